// SPDX-License-Identifier: Apache-2.0
// Which account a user has linked: its name is shown, another one is confirmed, refused or taken as the app says; and several accounts of one
// app, each under a label, of which a server or a call chooses one.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startApp } from '../world/apps.mjs';
import { Browser } from '../world/browser.mjs';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';

const [ANN, BOB] = [0, 1];
const USERS = 2;
const OTHER = USERS;  // Person i has accounts i and i + OTHER of each app.
const IDENTITY = { idMember: 'id', nameMember: 'login' };
const RULES = {
  warned: { ...IDENTITY, sameAccount: 'WARN' },
  required: { ...IDENTITY, sameAccount: 'REQUIRED' },
  any: { ...IDENTITY, sameAccount: 'ANY' },
  domain: { ...IDENTITY, accountDomain: 'SAME_AS_SIGN_IN', sameAccount: 'ANY' },
};

for (const topology of TOPOLOGIES) {
  describe(`accounts at apps, ${topology}`, () => {
    let world;
    let upstreams;
    const apps = {};
    const people = [];  // { browser, tokens by server }
    const split = topology === 'split';
    // What the provider of the app `domain` says of its accounts.
    const emails = new Map();

    before(async () => {
      world = await startWorld(topology, { users: USERS, gateway: { secondEdge: split }, resources: () => undefined });
      for (const [slug, rules] of Object.entries(RULES)) {
        apps[slug] = await startApp(world, slug, {
          users: USERS, accounts: 2, more: (provider) => ({ accountIdentity: { userinfoUrl: provider.userinfoUrl, ...rules } }),
          settings: {
            userinfo: ({ user }) => ({ id: `id-of-${user.username}`, login: user.username, ...emails.get(user.username) }),
          },
        });
      }
      const { warned } = apps;
      await world.gateway.apply({
        apps: Object.values(apps).map(({ app }) => app),
        mcpServers: [
          ...Object.values(apps).map(({ server }) => server),
          { ...warned.server, slug: 'at-work', appAuth: { oauthAuthorization: { app: 'warned', account: 'work' } } },
          { slug: 'none', upstreamUrl: world.echo.url, agentAuth: warned.server.agentAuth, appAuth: { passthrough: {} } },
        ],
      });
      upstreams = { ...Object.fromEntries(Object.entries(apps).map(([slug, { provider }]) => [slug, provider])), 'at-work': warned.provider };
      for (const i of [ANN, BOB]) {
        const browser = new Browser();
        people[i] = { browser, tokens: {} };
        for (const slug of [...Object.keys(upstreams), 'none']) {
          people[i].tokens[slug] = (await obtainToken(world, slug, persona(i, { skipLink: true }), { browser })).accessToken;
        }
      }
    });
    after(async () => {
      await world?.close();
      for (const app of Object.values(apps)) await app.close();
    });

    // Person i, who uses account number `as` everywhere.
    const persona = (i, { as = i, ...more } = {}) => world.persona(i, {
      accounts: { ...world.persona(i).accounts, ...Object.fromEntries(Object.values(apps).map((app) => [app.provider.url, app.account(as)])) }, ...more,
    });
    const nameOf = (slug, n) => apps[slug].account(n).username;
    const broker = (i, method, body) => people[i].browser.api(world.gateway.publicUrl, `sallyport.token_broker.v1.TokenBroker/${method}`, body);
    const listed = async (i, slug) => ((await broker(i, 'ListConnections')).connections ?? []).filter(({ appSlug }) => appSlug === slug)
      .map(({ label = '', state, accountName = '' }) => `${label}:${state}:${accountName}`).sort();
    // Resolves with the page where it ended.
    const connect = async (i, slug, { as = i, label, server = slug } = {}) => {
      apps[slug].signOut(people[i].browser);
      const query = label === undefined ? '' : `?account=${encodeURIComponent(label)}`;
      return (await people[i].browser.act(`${world.gateway.publicUrl}/connect/${server}${query}`, persona(i, { as }))).page;
    };
    const answer = async (i, page, value) => {
      const form = page.forms.find(({ buttons }) => buttons.some(({ name }) => name === 'answer'));
      assert.ok(form, page.html);
      return (await people[i].browser.submit(page, form, { button: form.buttons.find((button) => button.value === value) })).page;
    };
    const origins = () => [world.gateway.publicUrl, ...(split ? [world.gateway.secondEdgeOrigin] : [])];
    const call = (i, slug, account, origin = world.gateway.publicUrl) => callTool(`${origin}/mcp/${slug}`, 'whoami', {}, {
      token: people[i].tokens[slug],
      headers: [['Host', new URL(world.gateway.publicUrl).host], ...[account ?? []].flat().map((label) => ['X-Sallyport-Account', label])].flat(),
    });
    const who = async (...args) => toolText(await call(...args));
    const acts = (as, ...args) => waitFor(async () => (await who(...args)) === as, `${args.slice(0, 3)} to act as ${as}`, 2000, 20);
    const revokedAt = (slug, n) => apps[slug].provider.revoked(nameOf(slug, n)).map(({ kind }) => kind);

    describe('the name of an account', () => {
      it('is asked for at the link, shown on the page and in the list, and kept', async () => {
        const page = await connect(ANN, 'warned');
        assert.equal(page.status, 200, page.html);
        assert.match(page.html, /warned is connected/);
        assert.ok(page.html.includes(nameOf('warned', ANN)), 'the page names the account');
        assert.deepEqual(await listed(ANN, 'warned'), [`:linked:${nameOf('warned', ANN)}`]);
        apps.warned.provider.settings.userinfo = undefined;
        try {
          assert.deepEqual(await listed(ANN, 'warned'), [`:linked:${nameOf('warned', ANN)}`], 'it is not asked again');
        } finally {
          apps.warned.provider.settings.userinfo = ({ user }) => ({ id: `id-of-${user.username}`, login: user.username });
        }
      });

      it('is in no label, log or audit row: it is sealed with the tokens', async () => {
        for (const [trace, bytes] of await world.gateway.traces()) {
          assert.ok(!bytes.includes(nameOf('warned', ANN)), `${trace} names the account`);
        }
      });

      it('that the provider does not tell costs no link, where nothing depends on it', async () => {
        const { settings } = apps.any.provider;
        const { userinfo } = settings;
        settings.userinfo = undefined;
        try {
          assert.match((await connect(BOB, 'any')).html, /any is connected/);
        } finally {
          settings.userinfo = userinfo;
        }
        assert.deepEqual(await listed(BOB, 'any'), [':linked:']);
        await acts(nameOf('any', BOB), BOB, 'any');
      });
    });

    describe('another account than before', () => {
      it('is confirmed with sameAccount WARN; no keeps the former one, and revokes what was given', async () => {
        const page = await connect(ANN, 'warned', { as: ANN + OTHER });
        assert.match(new URL(page.url).pathname, /^\/connect\/warned\/confirm$/);
        for (const n of [ANN, ANN + OTHER]) assert.ok(page.html.includes(nameOf('warned', n)), 'both are named');
        await acts(nameOf('warned', ANN), ANN, 'warned');
        const after_ = await answer(ANN, page, 'no');
        assert.match(after_.html, /was not connected/);
        await acts(nameOf('warned', ANN), ANN, 'warned');
        await waitFor(() => revokedAt('warned', ANN + OTHER)[0] === 'refresh', 'what was given to be revoked', 60000, 100);
        assert.deepEqual(revokedAt('warned', ANN), []);
        // The page is good for one answer.
        assert.equal((await answer(ANN, page, 'yes')).status, 410);
        await acts(nameOf('warned', ANN), ANN, 'warned');
      });

      it('is nobody else\'s to confirm', async () => {
        const page = await connect(ANN, 'warned', { as: ANN + OTHER });
        const strange = (await people[BOB].browser.open(page.url)).page;
        assert.equal(strange.status, 410, strange.html);
        assert.ok(!strange.html.includes(nameOf('warned', ANN + OTHER)));
        await answer(BOB, page, 'yes');
        await acts(nameOf('warned', ANN), ANN, 'warned');
        await answer(ANN, page, 'no');
      });

      it('takes the place of the former one at yes, whose tokens are revoked then', async () => {
        const page = await connect(ANN, 'warned', { as: ANN + OTHER });
        const done = await answer(ANN, page, 'yes');
        assert.equal(done.status, 200, done.html);
        await acts(nameOf('warned', ANN + OTHER), ANN, 'warned');
        await waitFor(() => revokedAt('warned', ANN)[0] === 'refresh', 'the former one to be revoked', 60000, 100);
        assert.deepEqual((await listed(ANN, 'warned')).filter((line) => line.includes('linked')), [`:linked:${nameOf('warned', ANN + OTHER)}`]);
        await acts(nameOf('warned', ANN + OTHER), ANN, 'warned');
      });

      it('is refused with REQUIRED, until the former one is disconnected', async () => {
        assert.match((await connect(ANN, 'required')).html, /required is connected/);
        const page = await connect(ANN, 'required', { as: ANN + OTHER });
        assert.equal(page.status, 403, page.html);
        assert.match(page.html, /account_changed/);
        await acts(nameOf('required', ANN), ANN, 'required');
        await waitFor(() => revokedAt('required', ANN + OTHER)[0] === 'refresh', 'what was given to be revoked', 60000, 100);
        // The same one may be connected anew, and the other one under another label.
        assert.match((await connect(ANN, 'required')).html, /required is connected/);
        assert.match((await connect(ANN, 'required', { as: ANN + OTHER, label: 'second' })).html, /required is connected/);
        await broker(ANN, 'Disconnect', { appSlug: 'required' });
        assert.match((await connect(ANN, 'required', { as: ANN + OTHER })).html, /required is connected/);
        await acts(nameOf('required', ANN + OTHER), ANN, 'required');
      });

      it('is refused with REQUIRED when nobody says which it is', async () => {
        const { settings } = apps.required.provider;
        const { userinfo } = settings;
        settings.userinfo = () => ({ login: 'without an id' });
        try {
          const page = await connect(BOB, 'required');
          assert.equal(page.status, 403, page.html);
          assert.match(page.html, /account_unknown/);
        } finally {
          settings.userinfo = userinfo;
        }
        assert.deepEqual((await listed(BOB, 'required')).filter((line) => line.includes('linked')), []);
        await waitFor(() => revokedAt('required', BOB)[0] === 'refresh', 'what was given to be revoked', 60000, 100);
      });

      it('is taken with ANY', async () => {
        assert.match((await connect(ANN, 'any')).html, /any is connected/);
        assert.match((await connect(ANN, 'any', { as: ANN + OTHER })).html, /any is connected/);
        await acts(nameOf('any', ANN + OTHER), ANN, 'any');
      });
    });

    describe('accountDomain SAME_AS_SIGN_IN', () => {
      const says = (email) => emails.set(nameOf('domain', ANN), email);
      const refused = async (reason) => {
        const page = await connect(ANN, 'domain');
        assert.equal(page.status, 403, page.html);
        assert.match(page.html, new RegExp(reason));
        assert.deepEqual((await listed(ANN, 'domain')).filter((line) => line.includes(':linked')), []);
      };

      it('takes an account whose verified address is of the domain the user signed in with', async () => {
        says({ email: `ann@${world.idp.users[BOB].email.split('@')[1].toUpperCase()}`, email_verified: true });
        assert.match((await connect(ANN, 'domain')).html, /domain is connected/);
        await acts(nameOf('domain', ANN), ANN, 'domain');
        await broker(ANN, 'Disconnect', { appSlug: 'domain' });
      });

      it('refuses one of another domain, of one that only looks like it, one that is not verified, and one without', async () => {
        for (const email of ['ann@elsewhere.example', 'ann@example.com.evil.example', 'ann@evil-example.com', 'ann@mail.example.com']) {
          says({ email, email_verified: true });
          await refused('account_domain');
        }
        for (const fields of [{ email: 'ann@example.com' }, { email: 'ann@example.com', email_verified: false }, { email: 'ann@example.com', email_verified: 'true' }, {}]) {
          says(fields);
          await refused('account_unknown');
        }
        await waitFor(() => revokedAt('domain', ANN).filter((kind) => kind === 'refresh').length >= 9, 'everything that was given to be revoked', 60000, 250);
      });
    });

    describe('several accounts', () => {
      it('are connected under labels, and the call chooses by its header; without one it is the default account', async () => {
        await connect(BOB, 'warned');
        const page = await connect(BOB, 'warned', { as: BOB + OTHER, label: 'work' });
        assert.match(page.html, /warned is connected/, 'a second label is compared with nothing');
        assert.deepEqual(await listed(BOB, 'warned'), [`:linked:${nameOf('warned', BOB)}`, `work:linked:${nameOf('warned', BOB + OTHER)}`]);
        for (const origin of origins()) {
          await acts(nameOf('warned', BOB), BOB, 'warned', undefined, origin);
          await acts(nameOf('warned', BOB + OTHER), BOB, 'warned', 'work', origin);
        }
        // One after the other on the same connection, and at once.
        const both = await Promise.all(Array.from({ length: 40 }, (_, n) => who(BOB, 'warned', n % 2 ? 'work' : undefined)));
        for (const [n, name] of both.entries()) assert.equal(name, nameOf('warned', n % 2 ? BOB + OTHER : BOB));
      });

      it('are chosen by the server, unless the call does', async () => {
        await acts(nameOf('warned', BOB + OTHER), BOB, 'at-work');
        await acts(nameOf('warned', BOB + OTHER), BOB, 'at-work', 'work');
      });

      it('never reach the upstream as a header', async () => {
        await who(BOB, 'warned', 'work');
        for (const { headers } of apps.warned.provider.records.mcpRequests) assert.equal(headers['x-sallyport-account'], undefined);
      });

      it('that are not connected give the link for that label, and are each user\'s own', async () => {
        const text = await who(ANN, 'warned', 'work');
        const link = text.match(/https?:\/\/\S+\/connect\/warned\S*/)?.[0];
        assert.equal(new URL(link).searchParams.get('account'), 'work', text);
        assert.match(text, /"work"/);
        apps.warned.signOut(people[ANN].browser);
        const { page } = await people[ANN].browser.act(link, persona(ANN));
        assert.match(page.html, /warned is connected/);
        await acts(nameOf('warned', ANN), ANN, 'warned', 'work');
        await acts(nameOf('warned', BOB + OTHER), BOB, 'warned', 'work');
      });

      it('are refused when the label is none, stands twice, or would not be heard', async () => {
        const refused = async (i, slug, account, reason) => {
          const refusal = await call(i, slug, account);
          assert.equal(refusal.status, 400, refusal.body);
          assert.match(refusal.body, new RegExp(reason));
        };
        for (const label of ['a/b', 'sso:corp', 'with space', 'x'.repeat(65), '../work']) await refused(BOB, 'warned', label, 'account_malformed');
        await refused(BOB, 'warned', ['work', 'work'], 'account_malformed');
        await refused(BOB, 'none', 'work', 'account_not_used');
        const page = await connect(BOB, 'warned', { label: 'a/b' });
        assert.ok(page.status >= 400, `${page.url}: HTTP ${page.status}`);
      });

      it('are renamed by their user, with their tokens, on every replica', async () => {
        await broker(BOB, 'RenameConnection', { appSlug: 'warned', label: 'work', newLabel: 'office' });
        for (const origin of origins()) {
          await acts(nameOf('warned', BOB + OTHER), BOB, 'warned', 'office', origin);
          await waitFor(async () => /\/connect\/warned/.test(await who(BOB, 'warned', 'work', origin)), 'the former label to be free', 2000, 20);
        }
        assert.deepEqual(await listed(BOB, 'warned'), [`:linked:${nameOf('warned', BOB)}`, `office:linked:${nameOf('warned', BOB + OTHER)}`]);
        await assert.rejects(broker(BOB, 'RenameConnection', { appSlug: 'warned', label: 'office', newLabel: '' }), /HTTP 409/);
        await assert.rejects(broker(BOB, 'RenameConnection', { appSlug: 'warned', label: 'nobody', newLabel: 'x' }), /HTTP 404/);
        await assert.rejects(broker(BOB, 'RenameConnection', { appSlug: 'warned', label: 'office', newLabel: 'a/b' }), /HTTP 400/);
        assert.deepEqual(apps.warned.provider.revoked(nameOf('warned', BOB + OTHER)), [], 'nothing ends by a new name');
        // It is renewed under the new name like any other.
        apps.warned.provider.expireAccessTokens();
        await acts(nameOf('warned', BOB + OTHER), BOB, 'warned', 'office');
      });

      it('are ended one by one', async () => {
        assert.equal((await broker(BOB, 'Disconnect', { appSlug: 'warned', label: 'office' })).revocation, 'revoked');
        await waitFor(async () => /\/connect\/warned/.test(await who(BOB, 'warned', 'office')), 'the account to have ended', 10000, 50);
        await acts(nameOf('warned', BOB), BOB, 'warned');
        assert.deepEqual(await listed(BOB, 'warned'), [`:linked:${nameOf('warned', BOB)}`]);
        assert.deepEqual(revokedAt('warned', BOB), []);
      });

      it('are in the audit by label, and by no name', async () => {
        const find = (type, details) => waitFor(async () => (await world.gateway.auditEvents({ type, subject: world.subject(BOB) }))
          .find((event) => Object.entries(details).every(([key, value]) => event.details?.[key] === value)), `${type} in the audit`, 15000, 250);
        await find('link.completed', { app: 'warned', account: 'work' });
        await find('link.renamed', { app: 'warned', account: 'work', new_account: 'office' });
        await sleep(500);
        const all = JSON.stringify(await world.gateway.auditEvents());
        for (const { provider } of Object.values(apps)) for (const { username } of provider.users) assert.ok(!all.includes(username), username);
      });
    });

    it('are counted', async () => {
      let answered = 0;
      for (const name of split ? ['token_broker', 'token_broker_2'] : ['standalone']) {
        answered += await world.gateway.metric(name, 'sallyport_broker_account_questions_total', { outcome: 'answered' });
      }
      assert.ok(answered > 10, String(answered));
    });

    it('leave no secret anywhere', async () => {
      for (const app of Object.values(apps)) app.rememberSecrets();
      await assertNoSecretLeaked(world);
    });
  });
}

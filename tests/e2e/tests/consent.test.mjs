// SPDX-License-Identifier: Apache-2.0
// A token exchange that the identity provider refuses until the person has agreed there once more, as Microsoft Entra does: the caller
// gets the link, follows it, and the call goes on.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../world/browser.mjs';
import { connectClient, person } from '../world/clients.mjs';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, rpc, toolText } from '../world/http-client.mjs';
import { waitFor } from '../world/http.mjs';
import { remember } from '../world/secrets.mjs';
import { JWT_BEARER, startTokenService } from '../world/token-service.mjs';

const SCOPE = 'down.read';
const CLAIMS = JSON.stringify({ access_token: { capolids: { essential: true, values: ['c1'] } } });
const CHAT = 'https://chat.example/c/1';
// People: who agrees, whose provider is never content, whose claims have no end, who need not agree, who comes from a chat, who says no.
const [ADA, FOREVER, LONG, BOB, CHATTER, NO] = [0, 1, 2, 3, 4, 5];

for (const topology of TOPOLOGIES) {
  describe(`consent to a token exchange, ${topology}`, () => {
    let world;
    let tokens;
    before(async () => {
      world = await startWorld(topology, { users: 6, resources: () => undefined });
      const clientSecret = `canary-obo-${randomBytes(12).toString('base64url')}`;
      remember('client secret', clientSecret);
      const { idp } = world;
      tokens = await startTokenService({ clients: [{ client_id: 'obo', client_secret: clientSecret }], subjectOf: (token) => idp.owners.get(token), scopes: [SCOPE] });
      tokens.settings.judge = (subjectToken) => {
        const who = idp.users.findIndex(({ sub }) => sub === idp.owners.get(subjectToken));
        if (who === BOB) return undefined;
        if (who === LONG) return { error: 'interaction_required', claims: JSON.stringify({ access_token: { x: 'x'.repeat(100_000) } }) };
        if (who !== FOREVER && idp.granted.get(subjectToken).includes(SCOPE)) return undefined;
        return { error: 'invalid_grant', suberror: 'consent_required', error_description: 'AADSTS65001: not consented', claims: CLAIMS };
      };
      await world.gateway.apply({
        mcpServers: [{
          slug: 'orders', displayName: 'Orders', upstreamUrl: world.echo.url, agentAuth: { interactive: { allow: { everyone: true } } },
          appAuth: { passthrough: {} }, policy: { returnOrigins: [new URL(CHAT).origin] },
          outboundHeaders: [{
            name: 'X-Downstream', prefix: 'Bearer ',
            onBehalfOf: { exchangeUrl: tokens.tokenUrl, clientId: 'obo', clientSecret: { value: clientSecret }, style: 'ENTRA_OBO', scopes: [SCOPE] },
          }],
        }],
      });
    });
    after(async () => {
      await tokens?.close();
      await world?.close();
    });

    const call = (token) => callTool(world.gateway.mcpUrl('orders'), 'headers', {}, { token });
    const linkIn = (text) => text?.match(/https?:\/\/\S+\/connect\/orders\?\S*consent=1\S*/)?.[0];
    const linked = async (token) => {
      const answer = await call(token);
      assert.equal(answer.status, 200, answer.body);
      const link = linkIn(toolText(answer));
      assert.ok(link, answer.body);
      return link;
    };
    const downstreamOf = (text) => JSON.parse(text).headers['x-downstream'];
    const served = (token) => waitFor(async () => {
      const answer = await call(token);
      return answer.status === 200 && !answer.message.result.isError && downstreamOf(toolText(answer));
    }, 'the call to be served', 5000, 100);
    const subjectOf = (bearer) => JSON.parse(Buffer.from(bearer.split('.')[1], 'base64url')).oid;
    const asked = (browser) => browser.visited.filter((url) => url.startsWith(`${world.idp.issuer}/auth?`)).map((url) => new URL(url).searchParams);
    const consents = (browser) => asked(browser).filter((params) => params.get('prompt') === 'consent');

    it('is asked of a real client\'s user once, and then the call is served', async () => {
      const browser = new Browser();
      const user = world.idp.users[ADA];
      const { client, close } = await connectClient('client2', world.gateway.mcpUrl('orders'), { openUrl: person(browser, world.persona(ADA)) });
      try {
        assert.deepEqual((await client.listTools()).tools.map(({ name }) => name), ['connect_account']);
        const refused = await client.callTool({ name: 'headers', arguments: {} });
        assert.equal(refused.isError, true);
        const link = linkIn(refused.content[0].text);
        assert.ok(link, refused.content[0].text);
        assert.ok(!decodeURIComponent(link).includes('capolids'), 'what the provider wants is sealed');

        const { page } = await browser.act(link, world.persona(ADA));
        assert.match(page.html, /You have agreed/);
        const [params, ...more] = consents(browser);
        assert.equal(more.length, 0);
        assert.equal(params.get('client_id'), 'gateway');
        assert.deepEqual(params.get('scope').split(' ').sort(), ['openid', 'email', 'profile', 'offline_access', SCOPE].sort());
        assert.equal(params.get('claims'), CLAIMS);

        const answer = await waitFor(async () => {
          const candidate = await client.callTool({ name: 'headers', arguments: {} });
          return !candidate.isError && candidate;
        }, 'the call to be served', 5000, 100);
        assert.equal(subjectOf(downstreamOf(answer.content[0].text)), user.sub);
        assert.equal(world.idp.logins(user), 1, 'no password was asked for again');
      } finally {
        await close();
      }
      // Nor of another client of theirs, in the same browser.
      const { accessToken } = await obtainToken(world, 'orders', world.persona(ADA), { browser });
      assert.equal(subjectOf(await served(accessToken)), user.sub);
      assert.equal(consents(browser).length, 1);
    });

    it('does not concern others, whose links are not theirs either', async () => {
      const { accessToken: bobs, browser } = await obtainToken(world, 'orders', world.persona(BOB));
      assert.equal(subjectOf(await served(bobs)), world.idp.users[BOB].sub);
      const before = tokens.of(JWT_BEARER).length;
      const { accessToken } = await obtainToken(world, 'orders', world.persona(CHATTER));
      const { page } = await browser.act(await linked(accessToken), world.persona(BOB));
      assert.equal(page.status, 403);
      assert.match(page.html, /link_user_mismatch/);
      assert.equal(consents(browser).length, 0);
      assert.equal(tokens.of(JWT_BEARER).length, before);
      assert.equal(subjectOf(await served(bobs)), world.idp.users[BOB].sub);
    });

    it('leads back to an allowed chat without a page of ours, and nowhere else', async () => {
      const { accessToken, browser } = await obtainToken(world, 'orders', world.persona(CHATTER));
      const link = await linked(accessToken);
      const astray = await browser.open(`${link}&return_to=${encodeURIComponent('https://evil.example/')}`);
      assert.equal(astray.page.status, 400);
      const pages = browser.answers.length;
      const { callback } = await browser.act(`${link}&return_to=${encodeURIComponent(CHAT)}`, world.persona(CHATTER), { stop: ({ href }) => href === CHAT });
      assert.equal(callback?.href, CHAT);
      const ours = browser.answers.slice(pages).filter(({ url, status }) => url.startsWith(world.gateway.publicUrl) && status === 200);
      assert.deepEqual(ours.map(({ url }) => url), []);
      assert.equal(subjectOf(await served(accessToken)), world.idp.users[CHATTER].sub);
    });

    it('is not asked for again at once by a provider that is never content', async () => {
      const { accessToken, browser } = await obtainToken(world, 'orders', world.persona(FOREVER));
      await browser.act(await linked(accessToken), world.persona(FOREVER));
      const answer = await waitFor(async () => {
        const candidate = await call(accessToken);
        return candidate.status === 502 && candidate;
      }, 'the refusal in words', 5000, 100);
      assert.match(answer.body, /"reason":"interaction_required"/);
      assert.ok(!answer.body.includes('capolids'));
    });

    it('is asked for without claims that have no end', async () => {
      const { accessToken, browser } = await obtainToken(world, 'orders', world.persona(LONG));
      const link = await linked(accessToken);
      assert.ok(!link.includes('claims='), link);
      await browser.act(link, world.persona(LONG));
      assert.equal(consents(browser)[0].get('claims'), null);
    });

    it('changes nothing for who says no', async () => {
      const { accessToken, browser } = await obtainToken(world, 'orders', world.persona(NO));
      const link = await linked(accessToken);
      const { page: ours } = await browser.open(link);
      const { page: theirs } = await browser.submit(ours, ours.forms[0]);
      const form = theirs.forms[0];
      const { page } = await browser.submit(theirs, form, { button: form.buttons.find(({ value }) => value === 'deny') });
      assert.equal(page.status, 400);
      assert.match(page.html, /You have not agreed at Corporate login/);
      const { page: home } = await browser.open(`${world.gateway.publicUrl}/logout`);
      assert.equal(home.url, `${world.gateway.publicUrl}/logout`, 'still signed in: others are led on');
      assert.ok(linkIn(toolText(await call(accessToken))));
    });

    it('cannot be asked of somebody without a session or an exchange', async () => {
      const login = (browser, slug) => browser.open(`${world.gateway.publicUrl}/login?connector=corp&consent=${slug}&scope=everything`);
      assert.equal((await login(new Browser(), 'orders')).page.status, 401);
      const { browser } = await obtainToken(world, 'orders', world.persona(BOB));
      assert.equal((await login(browser, 'none')).page.status, 403);
    });

    it('is in the audit, and its claims are nowhere', async () => {
      const completed = await waitFor(async () => {
        const events = await world.gateway.auditEvents({ type: 'link.completed' });
        return events.length >= 4 && events;
      }, 'the audit of the consents', 15000, 250);
      const ada = completed.filter(({ subject }) => subject === world.subject(ADA));
      assert.equal(ada.length, 1);
      assert.equal(ada[0].details.connector, 'corp');
      assert.ok(ada[0].details.scopes.split(' ').includes(SCOPE));
      const started = await world.gateway.auditEvents({ type: 'link.started' });
      assert.ok(started.some(({ subject, details }) => subject === world.subject(ADA) && details.connector === 'corp'));
      const refused = await world.gateway.auditEvents({ type: 'link.refused' });
      assert.deepEqual(refused.map(({ subject, rule }) => [subject, rule]), [[world.subject(BOB), 'link_user_mismatch']]);
      assert.ok(!JSON.stringify([...completed, ...started]).includes('capolids'));
      await assertNoSecretLeaked(world);
    });

    it('lets tools be listed before', async () => {
      const { accessToken } = await obtainToken(world, 'orders', world.persona(NO));
      const listed = await rpc(world.gateway.mcpUrl('orders'), 'tools/list', {}, { token: accessToken });
      assert.deepEqual(listed.message.result.tools.map(({ name }) => name), ['connect_account']);
    });
  });
}

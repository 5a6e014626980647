// SPDX-License-Identifier: Apache-2.0
// Internal platforms ask for their users' tokens over gRPC: who they are, for whom they may ask, what they get, and what they are refused.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../world/browser.mjs';
import { assertNoSecretLeaked, codehostApp, defaultResources, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { listen, sendHtml, sleep, waitFor } from '../world/http.mjs';
import { makeUsers } from '../world/idp.mjs';
import { connectPlatform, healthOf, platformGateway, startAuthority, startCluster } from '../world/platforms.mjs';

const AUDIENCE = 'api://chat';
const [ANN, BOB, CID, DAN, EVE] = [0, 1, 2, 3, 4];
const CHAT = 'spiffe://example.org/ns/chat/sa/bot';
// What a client makes of a connection that the server ends in the handshake.
const NO_CONNECTION = /^UNAVAILABLE$/;
const REQUESTS = 'sallyport_broker_platform_requests_total';

for (const topology of TOPOLOGIES) {
  describe(`internal platforms, ${topology}`, () => {
    let world;
    let chatSite;
    let authority;
    let keys;
    let reviews;
    let listeners;
    const people = makeUsers(6);
    people[EVE].groups = ['guests'];
    const subject = (i) => `corp:${people[i].sub}`;
    const proofs = {};
    const open = [];

    before(async () => {
      authority = await startAuthority();
      const server = await authority.issue('listener', { server: true });
      proofs.chat = await authority.issue('chat', { uris: [CHAT], dnsNames: ['unrelated.example.org'] });
      proofs.batch = await authority.issue('batch', { dnsNames: ['batch.example.org'] });
      proofs.slow = await authority.issue('slow', { uris: ['spiffe://example.org/ns/slow/sa/bot'] });
      proofs.nothing = await authority.issue('nothing', { uris: ['spiffe://example.org/ns/nothing/sa/bot'] });
      proofs.lookalike = await authority.issue('lookalike', { uris: [`${CHAT}/`, `${CHAT}2`], dnsNames: ['*.example.org'] });
      proofs.both = await authority.issue('both', { uris: [CHAT], dnsNames: ['batch.example.org'] });
      proofs.nameless = await authority.issue('nameless');
      chatSite = await listen((req, res) => sendHtml(res, 200, '<h1>Chat</h1>'));
      keys = await startCluster({ issuer: 'https://keys.cluster.local', audience: 'sallyport', apiToken: `canary-keys-${randomBytes(12).toString('base64url')}` });
      const apiToken = `canary-reviews-${randomBytes(12).toString('base64url')}`;
      reviews = await startCluster({ issuer: 'https://reviews.cluster.local', audience: 'sallyport', apiToken });
      const tokenFile = path.join(authority.directory, 'api-token');
      await writeFile(tokenFile, apiToken, { mode: 0o400 });
      const told = await platformGateway({
        authority, server, reflection: true,
        platforms: [
          {
            id: 'chat', displayName: 'Company Chat', certificateUris: [CHAT], subjectTokenAudiences: [AUDIENCE], returnOrigins: [chatSite.url],
            grants: [{ apps: ['codehost'], groups: ['corp:engineering'] }],
          },
          {
            id: 'batch', certificateDnsNames: ['batch.example.org'],
            grants: [{ apps: ['codehost'], users: [ANN, BOB].map(subject), withoutUser: true }, { apps: ['*'] }],
          },
          { id: 'pod', serviceAccounts: ['keys:chat/pod'], grants: [{ apps: ['*'], withoutUser: true }] },
          { id: 'reviewed', serviceAccounts: ['reviews:batch/night'], grants: [{ apps: ['*'], withoutUser: true }] },
          {
            id: 'slow', certificateUris: ['spiffe://example.org/ns/slow/sa/bot'], rateLimit: 0.01, rateBurst: 3,
            grants: [{ apps: ['codehost'], withoutUser: true }],
          },
          { id: 'nothing', certificateUris: ['spiffe://example.org/ns/nothing/sa/bot'] },
        ],
        kubernetes: [
          { id: 'keys', issuer: keys.issuer, audience: keys.audience, jwksUrl: keys.jwksUrl },
          { id: 'reviews', issuer: reviews.issuer, audience: reviews.audience, tokenReviewUrl: reviews.url, tokenFile },
        ],
      });
      listeners = told.listeners(topology);
      world = await startWorld(topology, {
        users: people, gateway: told.settings,
        resources: (made) => {
          const resources = defaultResources(made);
          resources.apps.push({ ...codehostApp(made), slug: 'other', displayName: 'Other app' });
          return resources;
        },
      });
      for (const i of [ANN, EVE]) await obtainToken(world, i === ANN ? 'github' : 'echo', world.persona(i));
    });
    after(async () => {
      for (const client of open) client.close();
      await world?.close();
      for (const closer of [chatSite, keys, reviews, authority]) await closer?.close();
    });

    // By `name` of proofs; `undefined`: without a certificate. `at` is the number of the listener.
    const as = async (name, { at = 0, ...options } = {}) => {
      const client = await connectPlatform(listeners[at], { caFile: authority.caFile, proof: proofs[name], ...options });
      open.push(client);
      return client;
    };
    const minted = (i, options) => world.idp.mint(people[i], { audience: AUDIENCE, ...options });
    const broker = topology === 'split' ? 'token_broker' : 'standalone';
    const authn = topology === 'split' ? 'authn' : 'standalone';
    const refused = (promise, { code, reason, ...rest }) => assert.rejects(promise, (error) => {
      assert.deepEqual({ code: error.code, reason: error.reason }, { code, reason }, error.message);
      if (rest.text) assert.match(error.text, rest.text);
      if (rest.field) assert.ok(error.fields.includes(rest.field), `${error.fields}: ${error.text}`);
      return true;
    });
    const UNKNOWN = { code: 'UNAUTHENTICATED', reason: 'platform_unknown' };
    const NOT_GRANTED = { code: 'PERMISSION_DENIED', reason: 'platform_not_granted' };
    const bad = (text) => ({ code: 'UNAUTHENTICATED', reason: 'subject_token_invalid', text });
    // The token works at the app, as this user's.
    const assertGood = async (answer, i) => {
      assert.equal(answer.tokenType, 'Bearer');
      assert.equal(world.provider.ownerOf(answer.accessToken), world.account(i));
      assert.deepEqual(answer.allowedOrigins, [world.provider.url]);
      assert.deepEqual(answer.scopes, ['repo']);
      assert.ok(answer.expiresAt.seconds * 1000 > Date.now() + 60000);
      assert.equal(toolText(await callTool(world.provider.mcpUrl, 'whoami', {}, { token: answer.accessToken })), world.account(i));
    };

    describe('GetToken', () => {
      it('gives a user\'s token to a platform with a certificate, for a token of the identity provider\'s', async () => {
        for (const at of listeners.keys()) {
          const chat = await as('chat', { at });
          const request = { user: { subjectToken: await minted(ANN) }, app: 'codehost' };
          const answer = await chat.getToken(request);
          await assertGood(answer, ANN);
          const again = await chat.getToken(request);
          assert.equal(again.accessToken, answer.accessToken);
          assert.deepEqual([again.version, again.generation], [answer.version, answer.generation]);
        }
      });

      it('takes a token of the gateway\'s own, whichever MCP server it is for', async () => {
        const { accessToken } = await obtainToken(world, 'echo', world.persona(ANN));
        await assertGood(await (await as('chat')).getToken({ user: { subjectToken: accessToken }, app: 'codehost' }), ANN);
      });

      it('gives it to a platform that names the user, where a grant lets it', async () => {
        await assertGood(await (await as('batch')).getToken({ user: { subject: subject(ANN) }, app: 'codehost' }), ANN);
      });

      it('gives it to a service account whose signature the cluster\'s keys verify', async () => {
        const pod = await as(undefined, { token: await keys.mint('chat', 'pod') });
        await assertGood(await pod.getToken({ user: { subject: subject(ANN) }, app: 'codehost' }), ANN);
      });

      it('gives it to a service account that the cluster says is one, asked once a minute', async () => {
        const token = await reviews.mint('batch', 'night');
        const pod = await as(undefined, { token });
        for (let n = 0; n < 3; n++) await assertGood(await pod.getToken({ user: { subject: subject(ANN) }, app: 'codehost' }), ANN);
        assert.deepEqual(reviews.reviews.filter((entry) => entry.token === token).map(({ authenticated }) => authenticated), [true]);
      });

      it('renews a token that the app refused, once', async () => {
        const batch = await as('batch');
        const ask = (more = {}) => batch.getToken({ user: { subject: subject(ANN) }, app: 'codehost', ...more });
        const first = await ask();
        const before = world.provider.refreshes(world.account(ANN)).length;
        const told = { refusedVersion: first.version, refusedGeneration: first.generation };
        const [second, third] = [await ask(told), await ask(told)];
        assert.notEqual(second.accessToken, first.accessToken);
        assert.equal(third.accessToken, second.accessToken, 'there is a newer one already');
        assert.equal(world.provider.refreshes(world.account(ANN)).length, before + 1);
      });

      it('refuses what cannot be asked', async () => {
        const batch = await as('batch');
        const user = { subject: subject(ANN) };
        const invalid = (field) => ({ code: 'INVALID_ARGUMENT', reason: '', field });
        await refused(batch.getToken({ app: 'codehost' }), invalid('user'));
        await refused(batch.getToken({ user, app: '' }), invalid('app'));
        await refused(batch.getToken({ user, app: 'codehost', account: 'a/b' }), invalid('account'));
        await refused(batch.getToken({ user, app: 'codehost', scopes: ['two words'] }), invalid('scopes'));
        await refused(batch.getToken({ user, app: 'codehost', minLifetime: { seconds: 1801 } }), invalid('min_lifetime'));
      });
    });

    describe('who is no platform', () => {
      const user = () => ({ user: { subject: subject(ANN) }, app: 'codehost' });

      it('has no certificate and no token, a certificate without a name, or one that only resembles a platform\'s', async () => {
        for (const name of [undefined, 'nameless', 'lookalike']) await refused((await as(name)).getToken(user()), UNKNOWN);
      });

      it('has a certificate of two platforms, or proofs of two', async () => {
        await refused((await as('both')).getToken(user()), UNKNOWN);
        await refused((await as('batch', { token: await keys.mint('chat', 'pod') })).getToken(user()), UNKNOWN);
      });

      it('has a certificate of another authority: it does not get that far', async () => {
        const other = await startAuthority('another');
        try {
          proofs.forged = await other.issue('forged', { uris: [CHAT] });
          await assert.rejects((await as('forged')).getToken(user()), { code: NO_CONNECTION });
        } finally {
          await other.close();
        }
      });

      it('has a service-account token for another audience, of another account, issuer or signer, or an old one', async () => {
        const cases = [
          await keys.mint('chat', 'pod', { aud: ['https://kubernetes.default.svc'] }), await keys.mint('chat', 'other'),
          await keys.mint('other', 'pod'), await keys.mint('chat', 'pod', { iss: 'https://elsewhere' }),
          await keys.mint('chat', 'pod', { forged: true }), await keys.mint('chat', 'pod', { expiresIn: '-10m' }),
          // Good in one cluster, and nobody's in the other.
          await keys.mint('batch', 'night', { iss: reviews.issuer }), 'rubbish', `${await keys.mint('chat', 'pod')}x`,
        ];
        for (const [n, token] of cases.entries()) {
          await refused((await as(undefined, { token })).getToken(user()), UNKNOWN).catch((error) => assert.fail(`case ${n}: ${error.message}`));
        }
      });

      it('has the token of a pod that is gone', async () => {
        const token = await reviews.mint('batch', 'night', { expiresIn: '2h' });
        reviews.revoke(token);
        await refused((await as(undefined, { token })).getToken(user()), { ...UNKNOWN, text: /not_authenticated/ });
      });

      it('cannot be told while the cluster is away, and a certificate does not stand in', async () => {
        const token = await reviews.mint('batch', 'night', { expiresIn: '3h' });
        reviews.settings.trouble = 'down';
        try {
          await assert.rejects((await as('batch', { token })).getToken(user()), (error) => {
            assert.equal(error.code, 'UNAVAILABLE', error.message);
            assert.ok(error.retryAfter >= 1);
            return true;
          });
        } finally {
          reviews.settings.trouble = undefined;
        }
      });

      it('is nobody by a passport in the metadata', async () => {
        await assert.rejects((await as('batch', { metadata: { 'sallyport-passport': 'a.b.c' } })).getToken(user()), { code: 'UNAUTHENTICATED' });
      });
    });

    describe('for whom a platform may ask', () => {
      it('is not whoever has no grant, or no grant of this app', async () => {
        await refused((await as('nothing')).getToken({ user: { subject: subject(ANN) }, app: 'codehost' }), NOT_GRANTED);
        await refused((await as('chat')).getToken({ user: { subjectToken: await minted(ANN) }, app: 'other' }), NOT_GRANTED);
        await refused((await as('batch')).getToken({ user: { subject: subject(ANN) }, app: 'other' }), NOT_GRANTED);
        // Nor does it learn which apps there are.
        await refused((await as('batch')).getToken({ user: { subject: subject(ANN) }, app: 'no-such-app' }), NOT_GRANTED);
      });

      it('is told that there is no such app if it may use every one', async () => {
        const pod = await as(undefined, { token: await keys.mint('chat', 'pod') });
        await refused(pod.getToken({ user: { subject: subject(ANN) }, app: 'no-such-app' }), { code: 'NOT_FOUND', reason: '' });
      });

      it('is not a user of no group of the grant', async () => {
        await refused((await as('chat')).getToken({ user: { subjectToken: await minted(EVE) }, app: 'codehost' }), NOT_GRANTED);
      });

      it('is not a user whom it only names, unless a grant says so, whether there is one or not', async () => {
        const batch = await as('batch');
        const texts = new Set();
        for (const name of [subject(CID), 'corp:nobody', 'nowhere:nobody', 'nonsense']) {
          await assert.rejects(batch.getToken({ user: { subject: name }, app: 'codehost' }), (error) => {
            assert.deepEqual([error.code, error.reason], ['PERMISSION_DENIED', 'platform_not_granted'], error.message);
            texts.add(error.text);
            return true;
          });
        }
        assert.equal(texts.size, 1, 'one answer for all');
        await refused((await as('chat')).getToken({ user: { subject: subject(ANN) }, app: 'codehost' }), NOT_GRANTED);
      });

      it('is not the user of a token that does not stand the test, which it is told', async () => {
        const chat = await as('chat');
        const ask = (subjectToken) => chat.getToken({ user: { subjectToken }, app: 'codehost' });
        await refused(ask(await minted(ANN, { audience: 'api://someone-else' })), bad(/wrong_audience/));
        await refused(ask(await minted(ANN, { expiresIn: '-5m' })), bad(/expired/));
        await refused(ask('rubbish'), bad());
        await refused(ask(`${await minted(ANN)}x`), bad());
        // One for the gateway's API would be an administrator's word.
        await refused(ask(world.gateway.apiToken), bad());
        // Another platform has named no audience at all.
        await refused((await as('batch')).getToken({ user: { subjectToken: await minted(ANN) }, app: 'codehost' }), bad());
      });
    });

    describe('a link', () => {
      it('is what a user without an account is sent to; it leads back, and the token is there', async () => {
        const chat = await as('chat');
        const user = { subjectToken: await minted(BOB) };
        await assert.rejects(chat.getToken({ user, app: 'codehost' }), (error) => {
          assert.deepEqual([error.code, error.reason], ['FAILED_PRECONDITION', 'link_required'], error.message);
          assert.ok(error.link.startsWith(`${world.gateway.publicUrl}/connect/`), error.link);
          assert.match(error.text, /^Connect your Code Host account/);
          return true;
        });
        const back = `${chatSite.url}/rooms/7?from=sallyport`;
        const { url, message, linked } = await chat.startLink({ user, app: 'codehost', returnTo: back });
        assert.match(message, /^Connect your Code Host account/);
        assert.ok(!linked);
        const browser = new Browser();
        const { callback, page } = await browser.act(url, world.persona(BOB), { stop: ({ origin }) => origin === chatSite.url });
        assert.equal(callback?.href, back, `ended at ${page?.url} (HTTP ${page?.status}): ${page?.html?.slice(0, 2000)}`);
        await assertGood(await chat.getToken({ user, app: 'codehost' }), BOB);
        const repeated = await chat.startLink({ user, app: 'codehost', returnTo: back });
        assert.deepEqual([repeated.linked, repeated.url ?? ''], [true, '']);
      });

      it('that GetToken names works without a way back', async () => {
        const pod = await as(undefined, { token: await keys.mint('chat', 'pod') });
        const ask = () => pod.getToken({ user: { subject: subject(DAN) }, app: 'codehost' });
        const { link } = await ask().then(() => assert.fail('not linked yet'), (error) => error);
        const { page } = await new Browser().act(link, world.persona(DAN));
        assert.equal(page.status, 200, page.html);
        assert.match(page.html, /connected/i);
        await assertGood(await ask(), DAN);
      });

      it('is asked for again when a scope is missing', async () => {
        const batch = await as('batch');
        const ask = { user: { subject: subject(BOB) }, app: 'codehost', scopes: ['repo', 'admin:org'] };
        const { code, reason, link } = await batch.getToken(ask).then(() => assert.fail('not given'), (error) => error);
        assert.deepEqual([code, reason], ['FAILED_PRECONDITION', 'link_required']);
        assert.ok(link);
      });

      it('leads back to the platform\'s own origins only', async () => {
        const chat = await as('chat');
        const user = { subjectToken: await minted(CID) };
        for (const returnTo of ['https://evil.example/', `${chatSite.url}.evil.example/`, 'javascript:alert(1)', `${world.echo.origin}/`]) {
          await refused(chat.startLink({ user, app: 'codehost', returnTo }), { code: 'INVALID_ARGUMENT', reason: '', field: 'return_to' });
        }
        const { url } = await chat.startLink({ user, app: 'codehost', returnTo: `${chatSite.url}/` });
        const changed = new URL(url);
        changed.searchParams.set('return_to', 'https://evil.example/');
        const authorizations = world.provider.records.authorizations.length;
        const { page, callback } = await new Browser().act(changed.href, world.persona(CID), { stop: ({ hostname }) => hostname === 'evil.example' });
        assert.equal(callback, undefined, 'the ticket is for the address it was made with');
        assert.ok(page.status >= 400, `${page.url}: HTTP ${page.status}`);
        assert.equal(world.provider.records.authorizations.length, authorizations);
      });

      it('is of nobody else: another user who opens it connects nothing', async () => {
        const chat = await as('chat');
        const user = { subjectToken: await minted(CID) };
        const { url } = await chat.startLink({ user, app: 'codehost', returnTo: `${chatSite.url}/` });
        const before = world.provider.records.authorizations.length;
        const { page } = await new Browser().act(url, world.persona(DAN), { stop: ({ origin }) => origin === chatSite.url });
        assert.ok(page.status >= 400, `${page.url}: HTTP ${page.status}`);
        assert.match(page.html, /link_user_mismatch|not your link|somebody else|another user/i);
        assert.equal(world.provider.records.authorizations.length, before);
        await refused(chat.getToken({ user, app: 'codehost' }), { code: 'FAILED_PRECONDITION', reason: 'link_required' });
      });
    });

    it('ListConnections shows the user\'s connections of the apps that were granted, and never a token', async () => {
      const { connections } = await (await as('batch')).listConnections({ user: { subject: subject(ANN) } });
      assert.deepEqual(connections.map(({ appSlug, state }) => [appSlug, state]), [['codehost', 'linked']]);
      for (const secret of world.provider.secrets) assert.ok(!JSON.stringify(connections).includes(secret));
      await refused((await as('nothing')).listConnections({ user: { subject: subject(ANN) } }), NOT_GRANTED);
      const chat = await as('chat');
      const of = async (i) => (await chat.listConnections({ user: { subjectToken: await minted(i) } })).connections.length;
      assert.deepEqual([await of(ANN), await of(CID)], [1, 0]);
    });

    it('Disconnect revokes at the provider and forgets', async () => {
      const pod = await as(undefined, { token: await keys.mint('chat', 'pod') });
      const user = { subject: subject(DAN) };
      await pod.getToken({ user, app: 'codehost' });
      assert.equal((await pod.disconnect({ user, app: 'codehost' })).revocation, 'revoked');
      assert.deepEqual(world.provider.revoked(world.account(DAN)).map(({ kind }) => kind), ['refresh', 'access']);
      await refused(pod.getToken({ user, app: 'codehost' }), { code: 'FAILED_PRECONDITION', reason: 'link_required' });
      await refused(pod.disconnect({ user, app: 'codehost' }), { code: 'NOT_FOUND', reason: '' });
      await refused((await as('chat')).disconnect({ user: { subjectToken: await minted(ANN) }, app: 'other' }), NOT_GRANTED);
    });

    it('a revoked user\'s tokens are refused within a second, on every listener', async () => {
      const { accessToken } = await obtainToken(world, 'github', world.persona(BOB));
      const ours = { user: { subjectToken: accessToken }, app: 'codehost' };
      const theirs = { user: { subjectToken: await minted(BOB) }, app: 'codehost' };
      const chats = await Promise.all([...listeners.keys()].map((at) => as('chat', { at })));
      for (const chat of chats) for (const ask of [ours, theirs]) await assertGood(await chat.getToken(ask), BOB);
      const revocation = world.gateway.api('sallyport.authn.v1.Authn/RevokeUser', { subject: subject(BOB) });
      const isRefused = (chat, ask) => chat.getToken(ask).then(() => false, (error) => error.code === 'UNAUTHENTICATED' && error.reason === 'subject_token_invalid');
      await waitFor(async () => {
        const all = await Promise.all(chats.flatMap((chat) => [ours, theirs].map((ask) => isRefused(chat, ask))));
        return all.every(Boolean);
      }, 'the tokens to be refused', 5000, 20);
      const refusedAt = Date.now();
      await revocation;
      // From when it was decided: how long the command takes to get there is not the listeners' doing.
      const decided = await waitFor(async () => {
        const events = await world.gateway.auditEvents();
        return events.find(({ type, details }) => type === 'user.revoked' && details?.user === subject(BOB));
      }, 'the record', 20000, 200);
      const took = refusedAt - Date.parse(decided.at);
      assert.ok(took <= 1000, `it took ${took} ms`);
      // Naming them is no ban that was lifted: there is no connection left.
      await refused((await as('batch')).getToken({ user: { subject: subject(BOB) }, app: 'codehost' }), { code: 'FAILED_PRECONDITION', reason: 'link_required' });
    });

    it('has a rate limit of each platform, and says when to come again', async () => {
      const slow = await as('slow');
      const ask = () => slow.getToken({ user: { subject: subject(ANN) }, app: 'codehost' });
      for (let n = 0; n < 3; n++) await ask();
      await assert.rejects(ask(), (error) => {
        assert.equal(error.code, 'RESOURCE_EXHAUSTED', error.message);
        assert.ok(error.retryAfter > 0 && error.retryAfter <= 100, String(error.retryAfter));
        return true;
      });
      // Others are not held up by it.
      await (await as('batch')).getToken({ user: { subject: subject(ANN) }, app: 'codehost' });
    });

    describe('the listener', () => {
      it('has nothing of the gateway\'s own services, whoever asks', async () => {
        for (const name of ['chat', undefined]) {
          const client = await as(name);
          await assert.rejects(client.call('Endings', 'EndConnections', { subject: subject(ANN), wholeUser: true }), { code: 'UNIMPLEMENTED' });
          await assert.rejects(client.call('TokenBroker', 'ListConnections', {}), { code: 'UNIMPLEMENTED' });
        }
        const { connections } = await (await as('batch')).listConnections({ user: { subject: subject(ANN) } });
        assert.equal(connections.length, 1);
      });

      it('answers health checks', async () => {
        for (const address of listeners) assert.equal(await healthOf(address, { caFile: authority.caFile, proof: proofs.chat }), 1);
      });

      it('is the only one that a platform\'s certificate is good for', { skip: topology !== 'split' && 'there is no other' }, async () => {
        const internal = world.gateway.services.get('token_broker').config.server.listen;
        const { caFile, certificates } = world.gateway;
        const edge = { certificate: path.join(certificates, 'edge.crt'), privateKey: path.join(certificates, 'edge.key') };
        const codeOf = async (proof) => {
          const client = await connectPlatform(internal, { caFile, proof, anyName: true });
          open.push(client);
          return client.call('Endings', 'EndConnections', { subject: subject(ANN), wholeUser: true }).then(() => 'OK', ({ code }) => code);
        };
        assert.match(await codeOf(proofs.chat), NO_CONNECTION);
        assert.match(await codeOf(undefined), NO_CONNECTION);
        assert.match(await codeOf(edge), /^(PERMISSION_DENIED|UNAUTHENTICATED)$/, 'one of ours gets as far as its rights go');
      });
    });

    it('is in the audit: which platform, for whom, by what grant, and what it was given', async () => {
      const wanted = [
        { type: 'platform.admitted', actor: 'chat', subject: subject(ANN) }, { type: 'platform.admitted', actor: 'batch', subject: subject(ANN) },
        { type: 'platform.admitted', actor: 'pod', subject: subject(ANN) }, { type: 'platform.token', actor: 'chat', subject: subject(BOB) },
        { type: 'platform.token', actor: 'reviewed', subject: subject(ANN) },
        { type: 'platform.denied', actor: 'nothing', subject: subject(ANN), rule: 'platform_not_granted' },
        { type: 'platform.denied', actor: 'chat', rule: 'subject_token_invalid' },
        { type: 'platform.token', actor: 'chat', decision: 'DECISION_DENIED', rule: 'platform_not_granted' },
        { type: 'link.offered', actor: 'chat', subject: subject(BOB) }, { type: 'link.completed', actor: 'chat', subject: subject(BOB) },
        { type: 'link.disconnected', actor: 'pod', subject: subject(DAN) },
      ];
      let events;
      const missing = () => wanted.filter((row) => !events.some((event) => Object.entries(row).every(([key, value]) => event[key] === value)));
      await waitFor(async () => {
        events = await world.gateway.auditEvents();
        return missing().length === 0;
      }, 'the records', 20000, 500).catch((error) => assert.fail(`${error.message}: ${JSON.stringify(missing())}`));
      const [given] = events.filter(({ type, actor, decision }) => type === 'platform.token' && actor === 'batch' && decision === 'DECISION_ALLOWED');
      assert.equal(given.credentials.length, 1, 'which connection, its version and generation');
      assert.ok(events.filter(({ type }) => type.startsWith('platform.')).every(({ actor }) => actor), 'never without the platform');
    });

    it('is counted by platform, method and code', async () => {
      const count = (labels) => world.gateway.metric(broker, REQUESTS, labels);
      assert.ok(await count({ platform: 'chat', method: 'GetToken', code: 'OK' }) > 0);
      assert.ok(await count({ platform: 'chat', method: 'GetToken', code: 'FAILED_PRECONDITION' }) > 0);
      assert.ok(await count({ platform: 'slow', method: 'GetToken', code: 'RESOURCE_EXHAUSTED' }) > 0);
      assert.ok(await count({ platform: 'unknown', method: 'GetToken', code: 'UNAUTHENTICATED' }) > 0);
      const asked = (labels) => world.gateway.metric(authn, 'sallyport_authn_platform_requests_total', labels);
      assert.ok(await asked({ platform: 'pod', outcome: 'admitted' }) > 0);
      assert.ok(await asked({ platform: 'unknown', outcome: 'platform_unknown' }) > 0);
    });

    it('leaves no secret anywhere', async () => {
      await sleep(1000);  // What is written behind the answers.
      await assertNoSecretLeaked(world);
    });
  });

  describe(`a gateway that was told of no platform, ${topology}`, () => {
    let world;
    let authority;
    let told;
    let proof;
    before(async () => {
      authority = await startAuthority();
      told = await platformGateway({ authority, server: await authority.issue('listener', { server: true }), platforms: [], kubernetes: [] });
      proof = await authority.issue('chat', { uris: [CHAT] });
      world = await startWorld(topology, { users: 1, gateway: told.settings });
      await obtainToken(world, 'github', world.persona(0));
    });
    after(async () => {
      await world?.close();
      await authority?.close();
    });

    it('knows none, whatever they show, and has the metrics from the start', async () => {
      const [address] = told.listeners(topology);
      const client = await connectPlatform(address, { caFile: authority.caFile, proof });
      try {
        await assert.rejects(client.getToken({ user: { subject: world.subject(0) }, app: 'codehost' }), { code: 'UNAUTHENTICATED', reason: 'platform_unknown' });
      } finally {
        client.close();
      }
      const all = Object.values(await world.gateway.metrics()).join('\n');
      assert.match(all, new RegExp(`^${REQUESTS}\\{[^}]*platform="unknown"`, 'm'));
      assert.match(all, /^sallyport_authn_platform_requests_total\{/m);
    });
  });
}

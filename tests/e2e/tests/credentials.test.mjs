// SPDX-License-Identifier: Apache-2.0
// Credentials that the gateway gets for itself or on behalf of its callers, and those it keeps for them: real authorization servers, and
// upstreams that record what came.
import assert from 'node:assert/strict';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { calculateJwkThumbprint, exportJWK } from 'jose';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, rpc, toolText } from '../world/http-client.mjs';
import { listen, readBody, sendJson, sleep, waitFor } from '../world/http.mjs';
import { remember } from '../world/secrets.mjs';
import { JWT_BEARER, TOKEN_EXCHANGE, startTokenService } from '../world/token-service.mjs';

const REGISTRY = 'sallyport.registry.v1.Registry';
const EVERYONE = { interactive: { allow: { everyone: true } } };
const OPEN = { passthrough: {} };
const NONE = { passthrough: {} };

for (const topology of TOPOLOGIES) {
  describe(`credentials, ${topology}`, () => {
    let world;
    let tokens;
    let picky;
    const secret = (name) => {
      const value = `canary-${name}-${randomBytes(12).toString('base64url')}`;
      remember(name, value);
      return value;
    };
    const clientSecret = secret('service-client');
    const stored = { key: secret('stored-key'), password: secret('stored-password'), right: secret('right-key') };

    before(async () => {
      const key = generateKeyPairSync('rsa', { modulusLength: 2048 });
      const jwk = await exportJWK(key.publicKey);
      const pem = key.privateKey.export({ type: 'pkcs8', format: 'pem' });
      remember('private key', pem.split('\n')[1]);
      world = await startWorld(topology, { users: 3, resources: () => undefined });
      tokens = await startTokenService({
        clients: [
          { client_id: 'service', client_secret: clientSecret },
          { client_id: 'keyed', token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'RS256',
            jwks: { keys: [{ ...jwk, kid: await calculateJwkThumbprint(jwk), use: 'sig' }] } },
        ],
        subjectOf: (token) => world.idp.owners.get(token),
      });
      // Takes one key only.
      picky = await listen(async (req, res) => {
        const { id, method } = JSON.parse(await readBody(req));
        if (req.headers['x-key'] !== stored.right) return sendJson(res, 401, { error: 'unauthorized' });
        if (method === 'initialize') {
          const result = { protocolVersion: '2025-11-25', capabilities: {}, serverInfo: { name: 'picky', version: '1' } };
          return sendJson(res, 200, { jsonrpc: '2.0', id, result }, { 'Mcp-Session-Id': 'picky-session' });
        }
        if (id === undefined) return res.writeHead(202).end();
        return sendJson(res, 200, { jsonrpc: '2.0', id, result: { content: [{ type: 'text', text: 'served' }] } });
      });
      const client = { tokenUrl: tokens.tokenUrl, clientId: 'service', clientSecret: { value: clientSecret } };
      const server = (slug, upstreamUrl, agentAuth, appAuth, outboundHeaders = []) => ({ slug, upstreamUrl, agentAuth, appAuth, outboundHeaders });
      const { tokenUrl: exchangeUrl, ...exchanger } = client;
      await world.gateway.apply({
        credentials: [
          { slug: 'team-key', kind: 'API_KEY', value: { value: stored.key }, allowedUpstreamOrigins: [world.echo.origin] },
          { slug: 'wiki-key', displayName: 'Wiki key', kind: 'API_KEY', owner: 'USER', allowedUpstreamOrigins: [world.echo.origin] },
          { slug: 'picky-key', kind: 'API_KEY', owner: 'USER', allowedUpstreamOrigins: [picky.url] },
          { slug: 'wiki-login', displayName: 'Wiki login', kind: 'PASSWORD', owner: 'USER', allowedUpstreamOrigins: [world.echo.origin] },
          { slug: 'team-login', kind: 'PASSWORD', username: 'robot', value: { value: stored.password }, allowedUpstreamOrigins: [world.echo.origin] },
        ],
        mcpServers: [
          server('service', tokens.mcpUrl, OPEN, { clientCredentials: { ...client, scopes: ['read'] } }),
          server('keyed', tokens.mcpUrl, OPEN, {
            clientCredentials: { tokenUrl: tokens.tokenUrl, clientId: 'keyed', clientAuth: 'PRIVATE_KEY_JWT', privateKey: { value: pem } },
          }),
          server('several', world.echo.url, EVERYONE, NONE, [
            { name: 'X-First', prefix: 'Bearer', oauth2ServiceToken: { ...client, scopes: ['read'] } },
            { name: 'X-Second', oauth2ServiceToken: { ...client, clientAuth: 'BASIC', scopes: ['write'] } },
            { name: 'X-User-Id', callerIdentity: { claim: 'user_id' } },
            { name: 'X-Sub', callerIdentity: { claim: 'sub' } },
          ]),
          server('exchange', tokens.mcpUrl, EVERYONE, NONE, [
            { name: 'X-Downstream', prefix: 'Bearer', onBehalfOf: { exchangeUrl, ...exchanger, audience: 'https://down.example', actorToken: true } },
          ]),
          server('entra', world.echo.url, EVERYONE, NONE, [
            { name: 'X-Downstream', prefix: 'Bearer ', onBehalfOf: { exchangeUrl, ...exchanger, style: 'ENTRA_OBO', scopes: ['read'] } },
          ]),
          server('stored', world.echo.url, OPEN, NONE, [
            { name: 'X-Key', storedCredential: { credential: 'team-key' } },
            { name: 'X-Prefixed', prefix: 'Token', storedCredential: { credential: 'team-key' } },
            { name: 'X-Login', storedCredential: { credential: 'team-login' } },
          ]),
          server('picky', `${picky.url}/mcp`, EVERYONE, NONE, [{ name: 'X-Key', storedCredential: { credential: 'picky-key' } }]),
          server('wiki', world.echo.url, EVERYONE, NONE, [
            { name: 'X-Key', prefix: 'Token', storedCredential: { credential: 'wiki-key', match: 'PER_USER' } },
            { name: 'X-Login', storedCredential: { credential: 'wiki-login' } },
          ]),
        ],
      });
    });
    after(async () => {
      await tokens?.close();
      await picky?.close();
      await world?.close();
    });
    const call = (slug, options) => callTool(world.gateway.mcpUrl(slug), 'headers', {}, options);
    const seen = async (slug, options) => {
      const answer = await call(slug, options);
      assert.equal(answer.status, 200, answer.body);
      return JSON.parse(toolText(answer)).headers;
    };
    const tokenFor = async (slug, i) => (await obtainToken(world, slug, world.persona(i))).accessToken;
    const subjectOf = (bearer) => JSON.parse(Buffer.from(bearer.split('.')[1], 'base64url')).oid;

    describe('OAuth 2.1 client credentials', () => {
      it('are one token for every caller, fetched once', async () => {
        const all = await Promise.all(Array.from({ length: 40 }, () => seen('service')));
        assert.equal(new Set(all.map((headers) => headers.authorization)).size, 1);
        const fetched = tokens.of('client_credentials').filter(({ client, params }) => client === 'service' && params.scope === 'read');
        // One for each replica that was asked before the first of them shared what it had.
        assert.ok(fetched.length >= 1 && fetched.length <= (topology === 'split' ? 2 : 1), `${fetched.length} fetches`);
      });

      it('prove themselves with a private key', async () => {
        await seen('keyed');
        const [record] = tokens.of('client_credentials').filter(({ client }) => client === 'keyed');
        assert.equal(record.params.client_secret, undefined);
      });

      it('prove themselves with a key that was made here and never leaves', async () => {
        const saved = await world.gateway.api(`${REGISTRY}/CreateMcpServer`, {
          mcpServer: { slug: 'made', upstreamUrl: tokens.mcpUrl, agentAuth: OPEN,
            appAuth: { clientCredentials: { tokenUrl: tokens.tokenUrl, clientId: 'made', clientAuth: 'PRIVATE_KEY_JWT' } } },
        });
        const { publicJwk, ...rest } = saved.mcpServer.appAuth.clientCredentials.privateKey;
        assert.deepEqual(Object.keys(rest).sort(), ['set', 'updatedAt', 'version']);
        const jwk = JSON.parse(publicJwk);
        assert.equal(jwk.crv, 'P-256');
        assert.equal(jwk.d, undefined);
      });

      it('are fetched anew, once, when the upstream refuses a token that has not ended', async () => {
        await seen('service');
        const before = tokens.of('client_credentials').length;
        tokens.revokeAll();
        await seen('service');
        assert.equal(tokens.of('client_credentials').length, before + 1);
        tokens.revokeAll();
        const refused = await call('service');
        assert.equal(refused.status, 502, refused.body);
        assert.match(refused.body, /credential_refused/);
        assert.equal(tokens.of('client_credentials').length, before + 1, 'not again so soon');
      });
    });

    describe('outbound headers', () => {
      it('carry several service tokens, and who the caller is', async () => {
        const token = await tokenFor('several', 0);
        const headers = await seen('several', { token });
        assert.match(headers['x-first'], /^Bearer \S+$/);
        assert.match(headers['x-second'], /^\S+$/);
        assert.notEqual(headers['x-first'], `Bearer ${headers['x-second']}`);
        assert.equal(headers['x-user-id'], world.idp.users[0].sub, 'as the identity provider calls them');
        assert.equal(headers['x-sub'], world.subject(0));
      });

      it('carry a token on behalf of each caller, and our own to nobody', async () => {
        const mine = await Promise.all([0, 1].map((i) => tokenFor('entra', i)));
        for (const round of [1, 2]) {
          for (const i of [0, 1]) {
            const headers = await seen('entra', { token: mine[i] });
            assert.equal(subjectOf(headers['x-downstream']), world.idp.users[i].sub, `round ${round}`);
          }
        }
        const exchanges = tokens.of(JWT_BEARER);
        assert.equal(exchanges.length, 2, 'one for each caller\'s token');
        for (const { params } of exchanges) assert.ok(!mine.includes(params.assertion), 'the assertion is the identity provider\'s token');
      });

      it('carry one by RFC 8693, with the gateway as actor', async () => {
        const token = await tokenFor('exchange', 0);
        const headers = await seen('exchange', { token });
        const [record] = tokens.of(TOKEN_EXCHANGE);
        assert.equal(headers['x-downstream'], `Bearer ${record.token}`);
        assert.equal(record.subject, world.idp.users[0].sub);
        assert.equal(record.params.audience, 'https://down.example');
        assert.equal(JSON.parse(Buffer.from(record.token.split('.')[1], 'base64url')).actor, 'service');
      });

      it('say in words what the other identity provider refuses, and give the link to what it wants of the person', async () => {
        const token = await tokenFor('entra', 1);
        const said = async (error, status = 400) => {
          tokens.settings.refuse = { error, status };
          const other = await tokenFor('entra', 1);
          const answer = await call('entra', { token: other });
          tokens.settings.refuse = undefined;
          return answer;
        };
        await seen('entra', { token });
        const interaction = await said('interaction_required');
        assert.equal(interaction.status, 200, interaction.body);
        assert.match(toolText(interaction), /Agree at the identity provider corp to continue\. Open \S+\/connect\/entra\?/);
        const refused = await said('invalid_target');
        assert.equal(refused.status, 502, refused.body);
        assert.match(refused.body, /"reason":"token_refused"/);
        await seen('entra', { token });
      });

      it('carry what is stored, as it is, with a prefix, with its user name', async () => {
        const headers = await seen('stored');
        assert.equal(headers['x-key'], stored.key);
        assert.equal(headers['x-prefixed'], `Token ${stored.key}`);
        assert.equal(headers['x-login'], `Basic ${Buffer.from(`robot:${stored.password}`).toString('base64')}`);
      });

      it('carry a new value within a second of its entry', async () => {
        await seen('stored');
        const next = secret('stored-key-next');
        await world.gateway.api(`${REGISTRY}/UpdateCredential`, {
          credential: { slug: 'team-key', kind: 'API_KEY', value: { value: next }, allowedUpstreamOrigins: [world.echo.origin] },
        });
        const entered = Date.now();
        await waitFor(async () => (await seen('stored'))['x-key'] === next, 'the new value', 5000, 20);
        assert.ok(Date.now() - entered <= 1000, `it took ${Date.now() - entered} ms`);
        await sleep(Math.max(0, entered + 1000 - Date.now()));
        for (const headers of await Promise.all(Array.from({ length: 20 }, () => seen('stored')))) assert.equal(headers['x-key'], next);
      });
    });

    describe('of each user\'s own', () => {
      const own = [0, 1].map((i) => ({ key: secret(`wiki-key-${i}`), password: secret(`wiki-password-${i}`) }));
      const people = [];
      before(async () => {
        for (const i of [0, 1]) people[i] = await obtainToken(world, 'wiki', { ...world.persona(i), skipLink: true });
      });
      const asked = async (i) => {
        const answer = await call('wiki', { token: people[i].accessToken });
        assert.equal(answer.status, 200, answer.body);
        assert.equal(answer.message.result.isError, true, answer.body);
        return { text: toolText(answer), url: toolText(answer).match(/https?:\/\/\S+\/connect\/wiki\S*/)[0] };
      };
      const enter = async (i, url, fields) => {
        const { page } = await people[i].browser.open(url);
        assert.equal(page.status, 200, page.html);
        return people[i].browser.submit(page, page.forms.find(({ types }) => types.value === 'password'), { fields });
      };

      it('are asked for on one page each, and go out for their user alone', async () => {
        for (const i of [0, 1]) {
          const first = await asked(i);
          assert.match(first.text, /Enter your Wiki (key|login) to continue/);
          const { page } = await enter(i, first.url, first.url.includes('wiki-key') ? { value: own[i].key } : { username: `user-${i}`, value: own[i].password });
          assert.equal(page.status, 200, page.html);
          // What is missing still comes next.
          const next = page.url.includes('wiki-login') ? { username: `user-${i}`, value: own[i].password } : { value: own[i].key };
          const { page: done } = await enter(i, page.url, next);
          assert.match(done.html, /is stored/);
        }
        for (const i of [0, 1]) {
          const headers = await seen('wiki', { token: people[i].accessToken });
          assert.equal(headers['x-key'], `Token ${own[i].key}`);
          assert.equal(headers['x-login'], `Basic ${Buffer.from(`user-${i}:${own[i].password}`).toString('base64')}`);
        }
      });

      it('are replaced and ended by their user, at once', async () => {
        const api = (method, body) => people[0].browser.api(world.gateway.publicUrl, `sallyport.token_broker.v1.TokenBroker/${method}`, body);
        const next = secret('wiki-key-next');
        await api('SetCredential', { credential: 'wiki-key', value: { value: next } });
        await waitFor(async () => (await seen('wiki', { token: people[0].accessToken }))['x-key'] === `Token ${next}`, 'the new key', 1000, 20);
        const { credentials } = await api('ListOwnCredentials');
        assert.deepEqual(credentials.map(({ credential, state }) => [credential, state]).sort(), [['wiki-key', 'entered'], ['wiki-login', 'entered']]);
        await api('ClearCredential', { credential: 'wiki-key' });
        await waitFor(async () => (await call('wiki', { token: people[0].accessToken })).message.result.isError, 'the link', 1000, 20);
        assert.equal((await seen('wiki', { token: people[1].accessToken }))['x-key'], `Token ${own[1].key}`);
      });

      it('are asked for again when the upstream refuses them', async () => {
        const { accessToken: token, browser } = await obtainToken(world, 'picky', { ...world.persona(1), skipLink: true });
        const api = (method, body) => browser.api(world.gateway.publicUrl, `sallyport.token_broker.v1.TokenBroker/${method}`, body);
        const wrong = secret('mistyped-key');
        await api('SetCredential', { credential: 'picky-key', value: { value: wrong } });
        for (const round of [1, 2]) {
          const answer = await call('picky', { token });
          assert.equal(answer.status, 200, answer.body);
          assert.match(toolText(answer), /Enter your picky-key to continue/, `round ${round}`);
        }
        await api('SetCredential', { credential: 'picky-key', value: { value: stored.right } });
        const served = await waitFor(async () => {
          const answer = await call('picky', { token });
          return !answer.message.result.isError && answer;
        }, 'the right key', 2000, 20);
        assert.equal(toolText(served), 'served');
      });

      it('are asked for again within a session, which goes on', async () => {
        const { accessToken: token, browser } = await obtainToken(world, 'picky', { ...world.persona(2), skipLink: true });
        const api = (method, body) => browser.api(world.gateway.publicUrl, `sallyport.token_broker.v1.TokenBroker/${method}`, body);
        const say = (method, params, session) => rpc(world.gateway.mcpUrl('picky'), method, params, { era: 'legacy', token, session });
        const begun = await say('initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 't', version: '1' } });
        assert.equal(begun.status, 200, begun.body);
        const session = begun.headers['mcp-session-id'];
        await api('SetCredential', { credential: 'picky-key', value: { value: secret('mistyped-in-session') } });
        for (const round of [1, 2, 3]) {
          const listed = await say('tools/list', {}, session);
          assert.equal(listed.status, 200, `round ${round}: ${listed.body}`);
          assert.deepEqual(listed.message.result.tools.map(({ name }) => name), ['connect_account']);
        }
        assert.match(toolText(await say('tools/call', { name: 'connect_account', arguments: {} }, session)), /Enter your picky-key/);
        await api('SetCredential', { credential: 'picky-key', value: { value: stored.right } });
        await waitFor(async () => {
          const answer = await say('tools/call', { name: 'anything', arguments: {} }, session);
          return answer.status === 200 && !answer.message.result.isError && toolText(answer) === 'served';
        }, 'the session to go on', 2000, 20);
      });

      it('are given to a user by a credential-admin, and taken by nobody else', async () => {
        const given = secret('wiki-key-given');
        await world.gateway.api('sallyport.token_broker.v1.TokenBroker/SetCredential',
          { credential: 'wiki-key', value: { value: given }, subject: world.subject(0) });
        assert.equal((await seen('wiki', { token: people[0].accessToken }))['x-key'], `Token ${given}`);
        await assert.rejects(people[1].browser.api(world.gateway.publicUrl, 'sallyport.token_broker.v1.TokenBroker/SetCredential',
          { credential: 'wiki-key', value: { value: 'planted' }, subject: world.subject(0) }), /403|role/);
        assert.equal((await seen('wiki', { token: people[0].accessToken }))['x-key'], `Token ${given}`);
      });

      it('are in the audit: whose they are, who entered them, and who tried to', async () => {
        const all = (type) => world.gateway.auditEvents({ type });
        const denied = await waitFor(async () => (await all('credential.denied'))[0], 'the audit of the refusal', 15000, 250);
        assert.equal(denied.rule, 'role_missing');
        assert.equal(denied.subject, world.subject(1));
        assert.equal(denied.details.user, world.subject(0));
        const entered = await all('credential.entered');
        const byOthers = entered.filter(({ subject, details }) => subject !== details.user);
        assert.deepEqual(byOthers.map(({ details }) => [details.credential, details.user]), [['wiki-key', world.subject(0)]]);
        assert.ok(entered.length >= 9 && (await all('credential.cleared')).length === 1);
      });
    });

    it('are in the audit by name, and nowhere by value', async () => {
      const events = await waitFor(async () => {
        const { events: all = [] } = await world.gateway.api('sallyport.audit.v1.Audit/ListEvents', { pageSize: 1000, type: 'mcp.call' });
        const pieces = new Set(all.flatMap(({ credentials = [] }) => credentials.map(({ piece }) => piece)));
        return ['app_auth', 'outbound_headers[x-first]', 'outbound_headers[x-downstream]', 'outbound_headers[x-key]'].every((piece) => pieces.has(piece)) && all;
      }, 'the audit of the calls', 15000, 250);
      assert.ok(events.length > 0);
      await assertNoSecretLeaked(world);
    });
  });

  describe(`tokens that end for everybody at once, ${topology}`, () => {
    let world;
    let tokens;
    before(async () => {
      world = await startWorld(topology, { users: 2, resources: () => undefined });
      const clientSecret = `canary-many-${randomBytes(12).toString('base64url')}`;
      remember('client secret', clientSecret);
      tokens = await startTokenService({ clients: [{ client_id: 'service', client_secret: clientSecret }], subjectOf: (token) => world.idp.owners.get(token), seconds: 12 });
      const client = { clientId: 'service', clientSecret: { value: clientSecret } };
      await world.gateway.apply({
        mcpServers: [
          { slug: 'service', upstreamUrl: tokens.mcpUrl, agentAuth: OPEN, appAuth: { clientCredentials: { tokenUrl: tokens.tokenUrl, ...client } } },
          { slug: 'exchange', upstreamUrl: world.echo.url, agentAuth: EVERYONE, appAuth: NONE,
            outboundHeaders: [{ name: 'X-Downstream', onBehalfOf: { exchangeUrl: tokens.tokenUrl, ...client } }] },
        ],
      });
    });
    after(async () => {
      await tokens?.close();
      await world?.close();
    });

    it('cost one fetch for each replica and no failed call', async () => {
      const { accessToken } = await obtainToken(world, 'exchange', world.persona(0));
      const both = async () => {
        const answers = await Promise.all([
          ...Array.from({ length: 250 }, () => callTool(world.gateway.mcpUrl('service'), 'headers')),
          ...Array.from({ length: 250 }, () => callTool(world.gateway.mcpUrl('exchange'), 'headers', {}, { token: accessToken })),
        ]);
        assert.deepEqual(answers.filter(({ status }) => status !== 200).map(({ status, body }) => `${status} ${body}`), []);
      };
      await both();
      for (let round = 0; round < 2; round++) {
        const before = tokens.records.length;
        const last = Math.max(...tokens.records.map(({ endsAt }) => endsAt));
        await sleep(Math.max(0, last - Date.now() + 50));
        await both();
        const replicas = topology === 'split' ? 2 : 1;
        for (const grant of ['client_credentials', TOKEN_EXCHANGE]) {
          const fetched = tokens.records.slice(before).filter((record) => record.grant === grant);
          assert.ok(fetched.length >= 1 && fetched.length <= replicas, `${fetched.length} of ${grant}`);
        }
      }
      assert.equal(tokens.refused(), 0, 'no call came with a token that had ended');
    });
  });
}

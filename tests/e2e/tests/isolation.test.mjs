// SPDX-License-Identifier: Apache-2.0
// Fifty users at once through pieces of every credential scope: every reply is its caller's own.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, defaultResources, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { sleep } from '../world/http.mjs';
import { callTool as callOnce, toolText } from '../world/http-client.mjs';

const USERS = 50;
const CALLS = process.env.SALLYPORT_LONG === '1' ? 200 : 20;
const IN_FLIGHT = 1000;  // USERS x 20: all at once, except in the long run
const TRUSTED = 'api://trusted';
const VALIDATED = 'api://validated';

// Runs `jobs` with at most `width` at a time.
async function all(jobs, width) {
  const queue = [...jobs];
  await Promise.all(Array.from({ length: width }, async () => {
    for (let job = queue.shift(); job; job = queue.shift()) await job();
  }));
}

// A thousand first calls at once can meet the time limit of the audit on a slow machine. Such a call is refused with Retry-After, and made
// again, as a client would. What it may never get is another caller's answer.
async function callTool(...call) {
  for (let tries = 20; ; --tries) {
    const answer = await callOnce(...call);
    if (answer.status !== 503 || tries === 0) return answer;
    await sleep(1000 * Number(answer.headers['retry-after'] ?? 1));
  }
}

// Beside the usual servers, some whose pieces are scoped by user, by token and by request.
function resourcesOf(world) {
  const resources = defaultResources(world);
  const trusting = { interactive: { allow: { everyone: true }, trustedConnectors: [{ connector: 'corp', audiences: [TRUSTED] }] } };
  const identity = [
    { name: 'X-User', callerIdentity: { claim: 'sub' } }, { name: 'X-Email', callerIdentity: { claim: 'email' } },
    { name: 'X-Idp-Token', forwardCallerToken: { token: 'ACCESS' } },
  ];
  const ofTheToken = { name: 'X-Device', callerIdentity: { claim: 'device' } };
  resources.mcpServers.push(
    {
      slug: 'mixed', upstreamUrl: world.echo.url, agentAuth: { interactive: { allow: { everyone: true } } },
      appAuth: { apiKey: { name: 'X-API-Key', value: { value: world.secrets.apiKey } } }, outboundHeaders: identity,
    },
    {
      slug: 'trusting', upstreamUrl: world.provider.mcpUrl, agentAuth: trusting, appAuth: { oauthAuthorization: { app: 'codehost' } },
      outboundHeaders: [...identity, ofTheToken],
    },
    { slug: 'own-credential', upstreamUrl: world.echo.url, agentAuth: trusting, appAuth: { passthrough: {} }, outboundHeaders: identity },
    {
      slug: 'validated', upstreamUrl: world.echo.url, agentAuth: { passthrough: { jwtValidation: { connector: 'corp', audience: VALIDATED } } },
      appAuth: { passthrough: {} }, outboundHeaders: [...identity, ofTheToken],
    },
  );
  return resources;
}

for (const topology of TOPOLOGIES) {
  describe(`isolation, ${topology}`, () => {
    let world;
    const tokens = [];
    before(async () => {
      // The tokens of the app end so soon that refreshes go on in the middle.
      world = await startWorld(topology, { users: USERS, provider: { accessSeconds: 6 }, resources: resourcesOf });
      await all(world.idp.users.map((user, i) => async () => {
        const { accessToken, browser } = await obtainToken(world, 'github', world.persona(i));
        const mint = (audience, device) => world.idp.mint(user, { audience, claims: { device: `${device} of ${user.username}` } });
        tokens[i] = {
          github: accessToken, mixed: (await obtainToken(world, 'mixed', world.persona(i), { browser })).accessToken,
          trusted: await Promise.all(['laptop', 'telephone'].map((device) => mint(TRUSTED, device))),
          validated: await mint(VALIDATED, 'runner'),
        };
      }), 8);
    });
    after(() => world?.close());

    const storm = async (call) => {
      const jobs = [];
      for (let n = 0; n < CALLS; n++) for (let i = 0; i < USERS; i++) jobs.push(() => call(i, n));
      await all(jobs, IN_FLIGHT);
    };
    // What the echo server saw of one call.
    const headersSeen = async (slug, mark, options) => {
      const answer = await callTool(world.gateway.mcpUrl(slug), 'headers', {}, { ...options, headers: { 'X-Call': mark, ...options.headers } });
      assert.equal(answer.status, 200, answer.body);
      const { headers } = JSON.parse(toolText(answer));
      assert.equal(headers['x-call'], mark);
      return headers;
    };
    const assertIdentity = (headers, i) => {
      assert.equal(headers['x-user'], world.subject(i));
      assert.equal(headers['x-email'], world.idp.users[i].email);
    };

    it('per-user OAuth: each call acts as its caller at the app', async () => {
      // Until the tokens have run out under way, however fast the machine is.
      const deadline = Date.now() + 20_000;
      do {
        await storm(async (i) => {
          const answer = await callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: tokens[i].github });
          assert.equal(toolText(answer), world.account(i),
            `${answer.body} ${JSON.stringify(world.provider.records.tokenRequests.filter((entry) => entry.user === world.account(i)))}`);
        });
      } while (world.provider.refreshes().length < USERS / 2 && Date.now() < deadline);
      const refreshes = await world.provider.decidedRefreshes();
      assert.ok(refreshes.length >= USERS / 2, `tokens were refreshed in the middle: only ${refreshes.length}`);
      assert.deepEqual(refreshes.filter((refresh) => refresh.outcome !== 'ok' || refresh.reused), []);
    });

    it('caller identity and forwarded sign-in tokens are the caller\'s', async () => {
      await storm(async (i, n) => {
        const headers = await headersSeen('mixed', `${i}-${n}`, { token: tokens[i].mixed });
        assertIdentity(headers, i);
        assert.equal(world.idp.owners.get(headers['x-idp-token']), world.idp.users[i].sub, 'the identity provider gave it to this user');
      });
    });

    it('two tokens of one user share the user\'s account at the app, and nothing that is the token\'s', async () => {
      const began = world.provider.records.mcpRequests.length;
      const links = world.provider.records.authorizations.length;
      await storm(async (i, n) => {
        const answer = await callTool(world.gateway.mcpUrl('trusting'), 'whoami', {},
          { token: tokens[i].trusted[n % 2], headers: { 'X-Call': `${i}-${n}` } });
        assert.equal(toolText(answer), world.account(i), answer.body);
      });
      const seen = new Map(world.provider.records.mcpRequests.slice(began).filter(({ user }) => user).map((entry) => [entry.headers['x-call'], entry]));
      assert.equal(seen.size, USERS * CALLS);
      for (const [mark, { headers, user }] of seen) {
        const [i, n] = mark.split('-').map(Number);
        assert.equal(user, world.account(i));
        assertIdentity(headers, i);
        assert.equal(headers['x-idp-token'], tokens[i].trusted[n % 2], 'the token that was presented');
        assert.equal(headers['x-device'], `${n % 2 ? 'telephone' : 'laptop'} of ${world.idp.users[i].username}`);
      }
      assert.equal(world.provider.records.authorizations.length, links, 'nobody had to link again');
    });

    it('a credential the agent brings goes with its own request only', async () => {
      await storm(async (i, n) => {
        const headers = await headersSeen('own-credential', `${i}-${n}`,
          { token: tokens[i].trusted[n % 2], headers: { 'X-Sallyport-Authorization': `Bearer brought-${i}-${n}` } });
        assert.equal(headers.authorization, `Bearer brought-${i}-${n}`);
        assertIdentity(headers, i);
        assert.equal(headers['x-idp-token'], tokens[i].trusted[n % 2]);
      });
    });

    it('validated Passthrough forwards the very token of the request, and whose it is', async () => {
      await storm(async (i, n) => {
        const headers = await headersSeen('validated', `${i}-${n}`, { token: tokens[i].validated });
        assert.equal(headers.authorization, `Bearer ${tokens[i].validated}`);
        assert.equal(headers['x-idp-token'], tokens[i].validated);
        assertIdentity(headers, i);
        assert.equal(headers['x-device'], `runner of ${world.idp.users[i].username}`);
      });
    });

    it('unvalidated Passthrough forwards the very token of the request', async () => {
      await storm(async (i, n) => {
        const token = `opaque-${i}-${n}`;
        const headers = await headersSeen('through', `${i}-${n}`, { token });
        assert.equal(headers.authorization, `Bearer ${token}`);
        assert.ok(headers['x-caller-token'].endsWith(token), headers['x-caller-token']);
      });
    });

    it('equal JSON-RPC ids of different callers do not meet', async () => {
      await storm(async (i, n) => {
        const answer = await callTool(world.gateway.mcpUrl('nightly'), 'echo', { message: `${i}/${n}` }, { id: 1 });
        assert.equal(answer.message?.id, 1, answer.body);
        assert.equal(JSON.parse(toolText(answer)).message, `${i}/${n}`);
      });
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

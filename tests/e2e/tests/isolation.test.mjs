// SPDX-License-Identifier: Apache-2.0
// Fifty users at once through pieces of every credential scope: every reply is its caller's own.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, defaultResources, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';

const USERS = 50;
const CALLS = process.env.SALLYPORT_LONG === '1' ? 200 : 20;

// Runs `jobs` with at most `width` at a time.
async function all(jobs, width) {
  const queue = [...jobs];
  await Promise.all(Array.from({ length: width }, async () => {
    for (let job = queue.shift(); job; job = queue.shift()) await job();
  }));
}

for (const topology of TOPOLOGIES) {
  describe(`isolation, ${topology}`, () => {
    let world;
    const tokens = [];
    before(async () => {
      world = await startWorld(topology, {
        users: USERS,
        provider: { accessSeconds: 6 },  // so that refreshes go on in the middle
        resources: (made) => {
          const resources = defaultResources(made);
          // One server whose pieces are scoped by user and by token, beside the organization's key.
          resources.mcpServers.push({
            slug: 'mixed', upstreamUrl: made.echo.url, agentAuth: { interactive: { allow: { everyone: true } } },
            appAuth: { apiKey: { name: 'X-API-Key', value: { value: made.secrets.apiKey } } },
            outboundHeaders: [
              { name: 'X-User', callerIdentity: { claim: 'sub' } }, { name: 'X-Email', callerIdentity: { claim: 'email' } },
              { name: 'X-Idp-Token', forwardCallerToken: { token: 'ACCESS' } },
            ],
          });
          return resources;
        },
      });
      await all(world.idp.users.map((_user, i) => async () => {
        const { accessToken, browser } = await obtainToken(world, 'github', world.persona(i));
        tokens[i] = { github: accessToken, mixed: (await obtainToken(world, 'mixed', world.persona(i), { browser })).accessToken };
      }), 8);
    });
    after(() => world?.close());

    const storm = async (call) => {
      const jobs = [];
      for (let n = 0; n < CALLS; n++) for (let i = 0; i < USERS; i++) jobs.push(() => call(i, n));
      await all(jobs, 100);
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
      assert.ok(world.provider.refreshes().length > 0, 'tokens were refreshed in the middle');
      assert.ok(world.provider.refreshes().every((refresh) => refresh.outcome === 'ok' && !refresh.reused));
    });

    it('caller identity and forwarded sign-in tokens are the caller\'s', async () => {
      const owner = new Map();
      await storm(async (i, n) => {
        const answer = await callTool(world.gateway.mcpUrl('mixed'), 'headers', {}, { token: tokens[i].mixed, headers: { 'X-Call': `${i}-${n}` } });
        const { headers } = JSON.parse(toolText(answer));
        assert.equal(headers['x-call'], `${i}-${n}`);
        assert.equal(headers['x-user'], world.subject(i));
        assert.equal(headers['x-email'], world.idp.users[i].email);
        const known = owner.get(headers['x-idp-token']) ?? i;
        owner.set(headers['x-idp-token'], known);
        assert.equal(known, i, 'one sign-in token belongs to one user');
      });
    });

    it('unvalidated Passthrough forwards the very token of the request', async () => {
      await storm(async (i, n) => {
        const token = `opaque-${i}-${n}`;
        const answer = await callTool(world.gateway.mcpUrl('through'), 'headers', {}, { token });
        const { headers } = JSON.parse(toolText(answer));
        assert.equal(headers.authorization, `Bearer ${token}`);
        assert.ok(headers['x-caller-token'].endsWith(token), headers['x-caller-token']);
      });
    });

    it('equal JSON-RPC ids of different callers do not meet', async () => {
      await storm(async (i, n) => {
        const answer = await callTool(world.gateway.mcpUrl('nightly'), 'echo', { message: `${i}/${n}` });
        assert.equal(JSON.parse(toolText(answer)).message, `${i}/${n}`);
      });
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

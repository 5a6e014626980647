// SPDX-License-Identifier: Apache-2.0
// Everyday operation: services that are stopped in good order, as by a rolling update, and a disk that is full.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, defaultResources, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, initialize, request, rpc, toolText } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';
import { startLoad, summary } from '../world/load.mjs';
import { run } from '../world/processes.mjs';

const skip = !TOPOLOGIES.includes('split') && 'split is not among the topologies';
const RATE = 200;  // requests a second
const KNOWN = 6;
const STOPS_WITHIN = 28000;  // What SIGTERM may take at most.

async function stopped({ gateway }, name, { signal = 'SIGTERM', within = STOPS_WITHIN } = {}) {
  const { process: child } = gateway.services.get(name);
  const at = Date.now();
  const ended = await child.kill(signal);
  assert.deepEqual(ended, { code: 0, signal: null }, `${name}: ${JSON.stringify(ended)}`);
  assert.ok(Date.now() - at < within, `${name} took ${Date.now() - at} ms`);
}

describe('SIGTERM in split mode', { skip }, () => {
  let world;
  const known = [];
  before(async () => {
    world = await startWorld('split', {
      users: KNOWN, provider: { accessSeconds: 8, rotation: 'strict' }, gateway: { secondEdge: true },
    });
    for (let i = 0; i < KNOWN; i++) {
      const { accessToken, browser } = await obtainToken(world, 'github', world.persona(i));
      known[i] = { i, github: accessToken, echo: (await obtainToken(world, 'echo', world.persona(i), { browser })).accessToken };
    }
  });
  after(() => world?.close());

  const call = async (n, origin = world.gateway.publicUrl) => {
    const user = known[n % KNOWN];
    const headers = { Host: new URL(world.gateway.publicUrl).host };
    if (n % 3 === 0) {
      const answer = await callTool(`${origin}/mcp/github`, 'whoami', {}, { token: user.github, headers });
      return { ...answer, ok: toolText(answer) === world.account(user.i) };
    }
    const answer = await callTool(`${origin}/mcp/echo`, 'echo', { message: `${n}` }, { token: user.echo, headers });
    return { ...answer, ok: JSON.parse(toolText(answer) ?? '{}').message === `${n}` };
  };

  for (const name of ['vault', 'registry', 'authn', 'token_broker', 'token_broker_2']) {
    it(`of ${name} under load ends it with 0, and known users' calls go on, through their refreshes too`, async () => {
      // Calls of both edges, each of which has a broker of its own: users of the broker that is gone use what is in its edge's memory.
      for (let n = 0; n < 2 * KNOWN; n++) for (const origin of [world.gateway.publicUrl, world.gateway.secondEdgeOrigin]) assert.ok((await call(n, origin)).ok);
      const running = startLoad(call, RATE);
      try {
        await sleep(300);
        await stopped(world, name);
        // Not for long: no token that a refresh is due for runs out meanwhile.
        await world.gateway.restart(name);
        await sleep(1500);
      } finally {
        await running.stop();
      }
      const failed = running.results.filter(({ ok }) => !ok);
      assert.equal(failed.length, 0, `${failed.length} of ${running.results.length} failed: ${summary(failed)}`);
    });
  }

  it('has used no refresh token twice', () => {
    assert.ok(world.provider.refreshes().length > 0);
    assert.deepEqual(world.provider.refreshes().filter((entry) => entry.reused || entry.outcome !== 'ok'), []);
  });

  it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
});

// What is at the public port, in either topology: `service` is the process that is stopped.
function frontDoor(topology, service) {
  describe(`SIGTERM at the public port, ${topology}`, () => {
    let world;
    before(async () => { world = await startWorld(topology, { users: 1 }); });
    after(() => world?.close());

    it('lets what it has taken on come to its end, says so to its balancer, and takes nothing new', async () => {
      const { gateway } = world;
      const { accessToken: token } = await obtainToken(world, 'trick', world.persona(0));
      const url = gateway.mcpUrl('trick');
      const slow = Array.from({ length: 20 }, (_x, n) => callTool(url, 'x', { delayMs: 2000, n }, { token }));
      const streams = Array.from({ length: 5 }, () => callTool(url, 'x', { events: 8, everyMs: 250 }, { token }));
      await waitFor(() => world.trickster.requests.filter(({ args }) => args.delayMs || args.events).length >= 25, 'the calls to be upstream');
      const stopping = stopped(world, service, { within: 6000 });  // Not all the time there is: the calls end after two seconds.
      const { adminUrl } = gateway.services.get(service);
      await waitFor(async () => (await request(`${adminUrl}/readyz`, { headers: { Connection: 'close' } })).status === 503, 'not to be ready', 1500);
      await waitFor(() => rpc(url, 'tools/list', {}, { token, headers: { Connection: 'close' } }).then(() => false, () => true), 'no new connection', 1500);
      for (const answer of await Promise.all(slow)) assert.equal(answer.status, 200, answer.body);
      for (const answer of await Promise.all(streams)) {
        assert.equal(answer.body.split('notifications/message').length - 1, 8);
        assert.ok(answer.message?.result, answer.body);
      }
      await stopping;
      await gateway.restart(service);
      assert.equal((await callTool(url, 'x', {}, { token })).status, 200);
    });

    it('cuts streams that have no end, and still ends with 0', async () => {
      const { gateway } = world;
      const { accessToken: token } = await obtainToken(world, 'trick', world.persona(0));
      const endless = callTool(gateway.mcpUrl('trick'), 'x', { hang: true }, { token }).then(() => 'ended', () => 'cut');
      await waitFor(() => world.trickster.requests.some(({ args }) => args.hang), 'the stream to be upstream');
      await stopped(world, service, { signal: 'SIGINT' });
      assert.equal(await endless, 'cut');
      await gateway.restart(service);
    });

    it('loses no record of a call', async () => {
      await waitFor(async () => {
        if (await world.gateway.metric(service, 'sallyport_audit_backlog_bytes') > 0) return false;
        return (await world.gateway.auditEvents({ type: 'mcp.call', serverSlug: 'trick' })).length >= 26;
      }, 'the calls in the audit', 20000, 250);
      assert.deepEqual(await world.gateway.auditEvents({ type: 'lost' }), []);
    });
  });
}
if (TOPOLOGIES.includes('standalone')) frontDoor('standalone', 'standalone');
if (TOPOLOGIES.includes('split')) frontDoor('split', 'edge');

describe('a full disk of the edge', { skip }, () => {
  let world;
  before(async () => {
    world = await startWorld('split', {
      users: 1,
      resources: (made) => {
        const resources = defaultResources(made);
        const nightly = resources.mcpServers.find(({ slug }) => slug === 'nightly');
        resources.mcpServers.push({ ...nightly, slug: 'recorded', policy: { auditRequired: true } });
        return resources;
      },
    });
  });
  after(() => world?.close());
  const call = (slug, options) => callTool(world.gateway.mcpUrl(slug), 'echo', { message: 'x' }, options);
  // No file of the process may grow beyond this many bytes: a write fails as on a full disk.
  const limit = (size) => run('prlimit', ['--pid', String(world.gateway.services.get('edge').process.child.pid), `--fsize=${size}:`]);

  it('stops calls to servers that demand a record, and no others, until there is room again', async () => {
    assert.equal((await call('recorded')).status, 200);
    const { session } = await initialize(world.gateway.mcpUrl('recorded'));
    await limit(1);
    const refused = await waitFor(async () => {
      const answer = await call('recorded');
      return answer.status !== 200 && answer;
    }, 'the refusal', 3000, 50);
    assert.equal(refused.status, 503);
    assert.match(refused.body, /audit_unavailable/);
    assert.ok(Number(refused.headers['retry-after']) >= 1);
    const upstream = world.echo.requests.length;
    assert.equal((await call('recorded')).status, 503);
    assert.equal((await rpc(world.gateway.mcpUrl('recorded'), 'tools/list', {}, { era: 'legacy', session })).status, 503);
    assert.equal(world.echo.requests.length, upstream, 'nothing went upstream unrecorded');
    assert.equal((await call('nightly')).status, 200);

    await limit('unlimited');
    await waitFor(async () => (await call('recorded')).status === 200, 'calls to be taken again', 3000, 50);
    const lost = await waitFor(async () => {
      const events = await world.gateway.auditEvents({ type: 'lost' });
      return events.length > 0 && events;
    }, 'the gap to be recorded', 10000, 250);
    const count = lost.reduce((sum, { lostFrom, lostTo }) => sum + Number(lostTo) - Number(lostFrom) + 1, 0);
    assert.equal(await world.gateway.metric('edge', 'sallyport_audit_lost_total'), count);
  });

  it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
});

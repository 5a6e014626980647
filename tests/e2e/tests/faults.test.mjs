// SPDX-License-Identifier: Apache-2.0
// Split mode under fire: services that die, a provider that is slow and strict, brokers that compete.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, obtainToken, startWorld, tokenRequest } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, request, rpc, toolText } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';

const RATE = 200;  // requests a second
const skip = !TOPOLOGIES.includes('split') && 'split is not among the topologies';

// Sends `call` RATE times a second until stopped; collects { at, status, retryAfter, ok, ms } of every call.
function load(call) {
  const results = [];
  const pending = new Set();
  let n = 0;
  const began = Date.now();
  const timer = setInterval(() => {
    // What is due by now, however late the timer is.
    for (const due = ((Date.now() - began) * RATE) / 1000; n < due;) {
      const at = Date.now();
      const job = call(n++).then(
        (answer) => results.push({
          at, ms: Date.now() - at, status: answer.status, retryAfter: answer.headers['retry-after'], ok: answer.ok, body: answer.body,
        }),
        (error) => results.push({ at, ms: Date.now() - at, status: 0, ok: false, body: String(error) }),
      ).finally(() => pending.delete(job));
      pending.add(job);
    }
  }, 20);
  return {
    results,
    stop: async () => {
      clearInterval(timer);
      await Promise.all(pending);
      return results;
    },
  };
}

const summary = (failed) => JSON.stringify(failed.slice(0, 5).map(({ status, ms, body }) => ({ status, ms, body: body?.slice(0, 200) })));

describe('kill -9 in split mode', { skip }, () => {
  let world;
  const known = [];
  before(async () => {
    world = await startWorld('split', { users: 12 });
    for (let i = 0; i < 3; i++) {
      const { accessToken, browser } = await obtainToken(world, 'github', world.persona(i));
      known.push({ i, github: accessToken, echo: (await obtainToken(world, 'echo', world.persona(i), { browser })).accessToken });
    }
  });
  after(() => world?.close());

  const knownCall = async (n) => {
    const user = known[n % known.length];
    if (n % 4 === 0) {
      const answer = await callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: user.github });
      return { ...answer, ok: toolText(answer) === world.account(user.i) };
    }
    const answer = await callTool(world.gateway.mcpUrl('echo'), 'echo', { message: String(n) }, { token: user.echo });
    return { ...answer, ok: answer.status === 200 };
  };

  for (const [index, victim] of ['vault', 'registry', 'authn', 'token_broker', 'token_broker_2', 'redis'].entries()) {
    it(`of ${victim}: known users' calls go on, all is healthy soon after the restart`, async () => {
      // A first-time user whose token exists and whose first call comes while the victim is dead.
      const firstTimer = (await obtainToken(world, 'echo', world.persona(3 + index))).accessToken;
      await Promise.all(Array.from({ length: 24 }, (_x, n) => knownCall(n)));
      const running = load(knownCall);
      await sleep(500);
      if (victim === 'redis') await world.gateway.redis.kill();
      else await world.gateway.kill(victim);
      await sleep(500);
      const stranger = await rpc(world.gateway.mcpUrl('echo'), 'tools/list', {}, { token: firstTimer });
      assert.ok([200, 503].includes(stranger.status), `first-time user: HTTP ${stranger.status} ${stranger.body}`);
      if (stranger.status === 503) assert.ok(stranger.headers['retry-after'], 'Retry-After');
      await sleep(1500);
      const restarted = Date.now();
      if (victim === 'redis') await world.gateway.redis.restart();
      else await world.gateway.restart(victim);
      await world.gateway.ready(10000);
      assert.ok(Date.now() - restarted < 10000);
      const results = await running.stop();
      assert.ok(results.length >= RATE * 2.4, `only ${results.length} calls were made`);
      const failed = results.filter((result) => !result.ok);
      assert.deepEqual(failed.length, 0, `${failed.length} of ${results.length} failed: ${summary(failed)}`);
      await waitFor(async () => (await rpc(world.gateway.mcpUrl('echo'), 'tools/list', {}, { token: firstTimer })).status === 200,
        'the first-time user to get in', 10000, 200);
    });
  }

  it('loses nothing that was stored', async () => {
    for (const { i, github } of known) {
      assert.equal(toolText(await callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: github })), world.account(i));
    }
    const { accessToken } = await obtainToken(world, 'github', world.persona(0));
    assert.equal(toolText(await callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: accessToken })), world.account(0));
    assert.ok(world.provider.refreshes().every((refresh) => !refresh.reused));
  });

  it('of edge, with the registry down: restarts from its snapshot and counts the lost audit', async () => {
    const nightly = (n) => callTool(world.gateway.mcpUrl('nightly'), 'echo', { n })
      .then((answer) => ({ ...answer, ok: answer.status === 200 }));
    const count = async (filter) => (await world.gateway.api('sallyport.audit.v1.Audit/ListEvents', { pageSize: 1000, ...filter })).events ?? [];
    await nightly(0);
    const since = new Date().toISOString();
    await world.gateway.kill('registry');
    const running = load(nightly);
    await sleep(1500);
    await world.gateway.kill('edge');
    world.gateway.startService('edge');
    await waitFor(async () => (await nightly(0)).status === 200, 'the edge to serve from its snapshot', 10000, 50);
    await running.stop();
    await world.gateway.restart('registry');
    await world.gateway.ready(10000);
    const answered = running.results.filter((result) => result.ok).length;
    assert.ok(answered >= RATE, `${answered} answered`);
    const [recorded, lost] = await waitFor(async () => {
      const calls = (await count({ serverSlug: 'nightly', type: 'mcp.call', since })).length;
      const gone = (await count({ type: 'lost', since })).filter((event) => event.source.startsWith('edge'))
        .reduce((sum, event) => sum + Number(event.lostTo) - Number(event.lostFrom) + 1, 0);
      return calls + gone >= answered && [calls, gone];
    }, `each of ${answered} answered calls to be recorded or counted as lost`, 20000, 250);
    // What 100 ms hold at this rate, twice, because the load comes in bursts.
    assert.ok(lost <= RATE / 5, `${lost} events lost beside ${recorded} recorded`);
  });

  it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
});

describe('two brokers and a strict, slow provider', { skip }, () => {
  let world;
  let token;
  const ACCESS = 8;
  before(async () => {
    world = await startWorld('split', { users: 2, provider: { accessSeconds: ACCESS }, gateway: { secondEdge: true } });
    token = (await obtainToken(world, 'github', world.persona(0))).accessToken;
  });
  after(() => world?.close());

  // Through either edge; each has a broker of its own.
  const whoami = (n, options = {}) => {
    const { gateway } = world;
    const origin = n % 2 === 0 ? gateway.publicUrl : gateway.secondEdgeOrigin;
    return callTool(`${origin}/mcp/github`, 'whoami', {}, { token, headers: { Host: new URL(gateway.publicUrl).host }, ...options });
  };

  it('refresh once for 200 calls at the instant of expiry, and every call succeeds', async () => {
    await waitFor(async () => (await whoami(1)).status === 200, 'the second edge');
    for (const n of [0, 1]) assert.equal(toolText(await whoami(n)), world.account(0));
    world.provider.settings.answerDelayMs = 2000;
    const last = world.provider.records.tokenRequests.filter((entry) => entry.outcome === 'ok').at(-1).at;
    await sleep(Math.max(0, last + ACCESS * 1000 - Date.now()));
    const before = world.provider.refreshes().length;
    const answers = await Promise.all(Array.from({ length: 200 }, (_x, n) => whoami(n)));
    const wrong = answers.filter((answer) => toolText(answer) !== world.account(0));
    assert.equal(wrong.length, 0, `${wrong.length} failed: ${wrong[0]?.status} ${wrong[0]?.body}`);
    const refreshes = world.provider.refreshes().slice(before);
    assert.equal(refreshes.length, 1, JSON.stringify(refreshes));
    for (const broker of ['token_broker', 'token_broker_2']) {
      assert.match(await world.gateway.services.get(broker).process.log(), /"ResolveCredentials"/, `${broker} was asked`);
    }
    assert.ok(world.provider.refreshes().every((refresh) => refresh.outcome === 'ok' && !refresh.reused));
    world.provider.settings.answerDelayMs = 0;
  });

  it('survives a broker that dies inside a refresh: one lease of 503 at most, no user lost', async () => {
    world.provider.settings.rotation = 'grace';
    world.provider.settings.graceMs = 60000;
    world.provider.settings.answerDelayMs = 1000;
    const last = world.provider.records.tokenRequests.filter((entry) => entry.outcome === 'ok').at(-1).at;
    await sleep(Math.max(0, last + ACCESS * 1000 + 100 - Date.now()));
    const inFlight = whoami(0).catch((error) => error);
    await sleep(400);
    await world.gateway.kill('token_broker');
    await world.gateway.restart('token_broker');
    world.provider.settings.answerDelayMs = 0;
    await inFlight;
    const back = await waitFor(async () => {
      const answer = await whoami(1);
      if (answer.status !== 200) assert.equal(answer.status, 503, answer.body);
      return answer.status === 200 && answer;
    }, 'the connection to work again', 60000, 500);
    assert.equal(toolText(back), world.account(0));
    world.provider.settings.rotation = 'strict';
  });

  for (const kind of ['429', '500', 'invalid_client', 'html', 'reset']) {
    it(`keeps the user when the provider answers ${kind}`, async () => {
      const second = await obtainToken(world, 'github', world.persona(1));
      world.provider.expireAccessTokens();
      world.provider.failNext(kind);
      const call = () => callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: second.accessToken });
      await call();
      world.provider.clearFailures();
      const back = await waitFor(async () => {
        const answer = await call();
        assert.notEqual(answer.message?.result?.isError, true, `the user was asked to link again: ${answer.body}`);
        return answer.status === 200 && answer;
      }, 'the refresh to succeed', 40000, 500);
      assert.equal(toolText(back), world.account(1));
    });
  }

  it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
});

// A provider that rotates strictly: the former refresh token dies at once, and using it again ends the whole family.
describe('a broker that dies inside refreshes at a strict provider', { skip }, () => {
  const ACCESS = 8;
  const LEASE = 30000;  // Of one refresh.
  // Of the three refreshes that are cut off:
  const [DROPPED, ROTATED_LATER, ROTATED] = [0, 1, 2];
  let world;
  const victims = [];
  const known = [];
  let survivor;
  before(async () => {
    world = await startWorld('split', { users: 5 });
    for (const i of [3, 4]) known.push({ i, token: (await obtainToken(world, 'github', world.persona(i))).accessToken });
    world.provider.settings.accessSeconds = ACCESS;
    for (const i of [DROPPED, ROTATED_LATER, ROTATED]) {
      const { accessToken, browser } = await obtainToken(world, 'github', world.persona(i));
      victims.push({ i, token: accessToken, browser });
    }
    world.provider.settings.accessSeconds = 3600;
  });
  after(() => world?.close());

  const whoami = ({ token }) => callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token });
  const refreshes = ({ i }) => world.provider.refreshes(world.account(i));
  const link = (answer) => answer.message?.result?.isError && toolText(answer).match(/http\S+\/connect\/github\S*/)?.[0];
  // How often a broker was asked.
  const asked = async (name) => (await world.gateway.services.get(name).process.log()).split('"ResolveCredentials"').length;

  // Every 500 ms, until it is settled: works again, or asks for the link. Until then it is 503 with Retry-After.
  async function settled(victim, until) {
    for (;;) {
      const answer = await whoami(victim);
      if (answer.status === 200) return { ...answer, at: Date.now() };
      assert.equal(answer.status, 503, answer.body);
      assert.ok(answer.headers['retry-after'], 'Retry-After');
      assert.ok(Date.now() < until, `still 503 after the lease: ${answer.body}`);
      await sleep(500);
    }
  }

  it('costs one lease of 503, then works or asks for the link; nobody else notices', async () => {
    const brokers = ['token_broker', 'token_broker_2'];
    const calls = await Promise.all(brokers.map(asked));
    for (const user of [...known, ...victims]) assert.equal(toolText(await whoami(user)), world.account(user.i));
    const more = (await Promise.all(brokers.map(asked))).map((count, n) => count > calls[n]);
    assert.equal(more.filter(Boolean).length, 1, 'the edge asks one broker as long as that lives');
    const doomed = brokers[more.indexOf(true)];
    survivor = brokers[more.indexOf(false)];
    const last = world.provider.records.tokenRequests.at(-1).at;
    await sleep(Math.max(0, last + ACCESS * 1000 + 100 - Date.now()));
    const before = victims.map((victim) => refreshes(victim).length);
    world.provider.stallRefresh(world.account(DROPPED), { thinkMs: 2000, dropIfGone: true });
    world.provider.stallRefresh(world.account(ROTATED_LATER), { thinkMs: 2000 });
    world.provider.stallRefresh(world.account(ROTATED), { answerMs: 2000 });
    const running = load(async (n) => {
      const user = known[n % known.length];
      const answer = await whoami(user);
      return { ...answer, ok: toolText(answer) === world.account(user.i) };
    });
    try {
      const began = Date.now();
      const cutOff = victims.map((victim) => whoami(victim));
      await waitFor(() => victims.every((victim, n) => refreshes(victim).length === before[n] + 1), 'three refreshes to be under way', 5000);
      await sleep(300);
      assert.deepEqual(victims.map((user) => refreshes(user).at(-1).outcome), ['pending', 'pending', 'ok']);
      await world.gateway.kill(doomed);
      for (const answer of await Promise.all(cutOff)) assert.equal(answer.status, 503, answer.body);

      // A waiting call looks about once a second, and what it finds is one more exchange away.
      const limit = began + LEASE + 5000;
      const ends = await Promise.all(victims.map((user) => settled(user, limit)));
      assert.equal(toolText(ends[DROPPED]), world.account(DROPPED), 'the token was not used up: the second broker renews');
      for (const i of [ROTATED_LATER, ROTATED]) assert.ok(link(ends[i]), `the rotated token is lost: ${ends[i].body}`);
      for (const end of ends) assert.ok(end.at - began > LEASE - 2000 && end.at < limit, `settled after ${end.at - began} ms`);
      const outcomes = victims.map((user, n) => refreshes(user).slice(before[n]).map(({ outcome }) => outcome));
      assert.deepEqual(outcomes, [['dropped', 'ok'], ['ok', 'invalid_grant'], ['ok', 'invalid_grant']]);
    } finally {
      await running.stop();
    }
    const failed = running.results.filter((result) => !result.ok);
    assert.equal(failed.length, 0, `${failed.length} of ${running.results.length} failed: ${summary(failed)}`);
    assert.ok(running.results.length >= RATE * 25, `only ${running.results.length} calls were made`);
  });

  it('says why, and asks the provider no more', async () => {
    const failures = (await world.gateway.services.get(survivor).process.log()).match(/"failure":"\w+"/g) ?? [];
    assert.equal(failures.filter((failure) => failure.includes('rotation_response_lost')).length, 2, failures.join());
    const before = world.provider.refreshes().length;
    for (const i of [ROTATED_LATER, ROTATED]) assert.ok(link(await whoami(victims[i])));
    assert.equal(world.provider.refreshes().length, before);
  });

  it('lets the users link again, each their own account', async () => {
    for (const i of [ROTATED_LATER, ROTATED]) {
      await victims[i].browser.act(link(await whoami(victims[i])), world.persona(i));
      const back = await waitFor(async () => {
        const answer = await whoami(victims[i]);
        return !link(answer) && answer;
      }, 'the new link to be known', 5000, 100);
      assert.equal(toolText(back), world.account(i));
    }
    for (const user of [...known, ...victims]) assert.equal(toolText(await whoami(user)), world.account(user.i));
  });

  it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
});

describe('kill -9 of authn in the middle of its own protocol', { skip }, () => {
  let world;
  before(async () => { world = await startWorld('split', { users: 1 }); });
  after(() => world?.close());

  it('keeps registrations, consents, refresh tokens and sessions', async () => {
    const got = await obtainToken(world, 'echo', world.persona(0));
    await world.gateway.kill('authn');
    await world.gateway.restart('authn');
    await world.gateway.ready();
    const renewed = await tokenRequest(world, {
      grant_type: 'refresh_token', refresh_token: got.refreshToken, client_id: got.clientId, resource: world.gateway.mcpUrl('echo'),
    });
    assert.equal(renewed.status, 200, renewed.body);
    assert.equal((await rpc(world.gateway.mcpUrl('echo'), 'tools/list', {}, { token: renewed.json.access_token })).status, 200);
    // The browser's session still stands: no second sign-in at the identity provider.
    const visits = got.browser.visited.length;
    await obtainToken(world, 'echo', world.persona(0), { browser: got.browser });
    assert.ok(!got.browser.visited.slice(visits).some((url) => url.startsWith(world.idp.issuer)));
    const keys = await request(`${world.gateway.publicUrl}/oauth/jwks`);
    assert.equal(keys.status, 200);
  });

  it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
});

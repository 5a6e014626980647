// SPDX-License-Identifier: Apache-2.0
// Users' tokens at a slow, strict or failing provider, with brokers that compete and services that die inside a refresh.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';
import { startLoad, summary } from '../world/load.mjs';

const RATE = 200;  // requests a second
const LEASE = 30000;  // of one refresh
const BROKERS = ['token_broker', 'token_broker_2'];
const skip = !TOPOLOGIES.includes('split') && 'split is not among the topologies';

// How often each broker was asked.
const asked = (gateway) => Promise.all(BROKERS.map((broker) =>
  gateway.metric(broker, 'sallyport_rpc_requests_total', { method: 'ResolveCredentials' })));

// 200, or 503 with Retry-After; never another refusal, and never a request to link again. A client secret that is refused is said to be.
function checkPatient(answer) {
  assert.ok(!answer.message?.result?.isError, `the user was asked to link again: ${answer.body}`);
  if (answer.status === 200 || answer.message?.error?.data?.reason === 'provider_rejects_client') return;
  assert.equal(answer.status, 503, answer.body);
  assert.ok(Number(answer.headers['retry-after']) >= 1, 'Retry-After');
}

describe('two brokers and a strict, slow provider', { skip }, () => {
  let world;
  let token;
  let secondToken;
  before(async () => {
    world = await startWorld('split', { users: 2, provider: { accessSeconds: 6 }, gateway: { secondEdge: true } });
    token = (await obtainToken(world, 'github', world.persona(0))).accessToken;
    secondToken = (await obtainToken(world, 'github', world.persona(1))).accessToken;
  });
  after(() => world?.close());

  // Through either edge; each has a broker of its own.
  const whoami = (n, options = {}) => {
    const { gateway } = world;
    const origin = n % 2 === 0 ? gateway.publicUrl : gateway.secondEdgeOrigin;
    return callTool(`${origin}/mcp/github`, 'whoami', {}, { token, headers: { Host: new URL(gateway.publicUrl).host }, ...options });
  };
  const secondUser = () => callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: secondToken });

  const refreshes = (i) => world.provider.refreshes(world.account(i));
  // Until the user's last token has ended, one that was still being fetched in the background included.
  const untilExpiry = async (i) => {
    const last = () => world.provider.records.tokenRequests.findLast((entry) => entry.outcome === 'ok' && entry.user === world.account(i));
    for (let left; (left = last().endsAt + 100 - Date.now()) > 0;) await sleep(left);
  };

  // Calls until one succeeds; all before are 503 with Retry-After.
  async function comesBack(call, until) {
    return waitFor(async () => {
      const answer = await call();
      checkPatient(answer);
      return answer.status === 200 && answer;
    }, 'the connection to work again', Math.max(0, until - Date.now()), 500);
  }

  it('refresh once for 200 calls at the instant of expiry, and every call succeeds', async () => {
    await waitFor(async () => (await whoami(1)).status === 200, 'the second edge');
    for (const n of [0, 1]) assert.equal(toolText(await whoami(n)), world.account(0));
    world.provider.settings.answerDelayMs = 2000;
    await untilExpiry(0);
    const before = refreshes(0).length;
    const askedBefore = await asked(world.gateway);
    const answers = await Promise.all(Array.from({ length: 200 }, (_x, n) => whoami(n)));
    const wrong = answers.filter((answer) => toolText(answer) !== world.account(0));
    assert.equal(wrong.length, 0, `${wrong.length} failed: ${wrong[0]?.status} ${wrong[0]?.body}`);
    const during = refreshes(0).slice(before);
    assert.equal(during.length, 1, JSON.stringify(during));
    const askedAfter = await asked(world.gateway);
    for (const [n, broker] of BROKERS.entries()) assert.ok(askedAfter[n] > askedBefore[n], `${broker} was asked`);
    assert.ok(answers.every((answer) => answer.status === 200));
    assert.ok(world.provider.refreshes().every((refresh) => refresh.outcome === 'ok' && !refresh.reused));
    world.provider.settings.answerDelayMs = 0;
  });

  it('survives a broker that dies inside a refresh: one lease of 503 at most, no user lost', async () => {
    const { provider, gateway } = world;
    Object.assign(provider.settings, { rotation: 'grace', graceMs: 2 * LEASE, answerDelayMs: 1000 });
    try {
      await untilExpiry(0);
      const before = refreshes(0).length;
      const began = Date.now();
      // The first edge asks the first broker only.
      const cutOff = whoami(0);
      await waitFor(() => refreshes(0).length > before, 'the refresh to be under way', 5000);
      await sleep(200);
      await gateway.kill('token_broker');
      assert.equal(refreshes(0).length, before + 1);
      assert.equal(refreshes(0).at(-1).outcome, 'ok', 'the provider has rotated the token');
      assert.equal(refreshes(0).at(-1).answeredAt, undefined, 'and has not answered yet');
      await gateway.restart('token_broker');
      provider.settings.answerDelayMs = 0;
      const answer = await cutOff;
      assert.equal(answer.status, 503, answer.body);
      checkPatient(answer);
      // What a waiting call finds after the lease is one more exchange away.
      const back = await comesBack(() => whoami(1), began + LEASE + 5000);
      assert.equal(toolText(back), world.account(0));
      assert.equal(refreshes(0).length, before + 2);
      assert.ok(refreshes(0).every((entry) => !entry.reused));
    } finally {
      Object.assign(provider.settings, { rotation: 'strict', answerDelayMs: 0 });
    }
  });

  const FAILURES = [
    { kind: '429', rest: 1000 },
    { kind: '500', rest: 2000 },
    { kind: '500', rest: 2000, refused: true },
    { kind: 'html', rest: 2000 },
    { kind: 'reset', rest: LEASE },
    // The client is not presented there for a minute.
    ...(process.env.SALLYPORT_LONG ? [{ kind: 'invalid_client', rest: 60000 }] : []),
  ];
  for (const { kind, rest, refused } of FAILURES) {
    it(`keeps the user when the provider answers ${kind}${refused ? ' after the upstream refused the token' : ''}`, async () => {
      const { provider } = world;
      await untilExpiry(1);
      if (refused) {
        await comesBack(secondUser, Date.now() + 5000);
        provider.expireAccessTokens();
      }
      const before = provider.records.tokenRequests.length;
      const authorizations = provider.records.authorizations.length;
      provider.failNext(kind);
      const began = Date.now();
      const first = await secondUser();
      checkPatient(first);
      const [failed] = provider.records.tokenRequests.slice(before);
      assert.deepEqual({ outcome: failed?.outcome, user: failed?.user }, { outcome: `injected ${kind}`, user: world.account(1) });
      provider.clearFailures();
      assert.equal(toolText(await comesBack(secondUser, began + rest + 5000)), world.account(1));
      assert.deepEqual(provider.records.tokenRequests.slice(before + 1).map(({ outcome }) => outcome), ['ok']);
      assert.equal(provider.records.authorizations.length, authorizations, 'nobody had to link again');
    });
  }

  it('loses nothing when the vault dies between the answer of a strict provider and its storing', async () => {
    const { provider, gateway } = world;
    await untilExpiry(1);
    const before = refreshes(1).length;
    const authorizations = provider.records.authorizations.length;
    provider.settings.accessSeconds = 60;  // Must not end before it can be stored.
    provider.stallRefresh(world.account(1), { answerMs: 2000 });
    const waiting = secondUser();
    await waitFor(() => refreshes(1).length > before, 'the refresh to be under way', 5000);
    await sleep(300);
    await gateway.kill('vault');
    assert.equal(refreshes(1).at(-1).outcome, 'ok', 'the provider has rotated the token');
    assert.equal(refreshes(1).at(-1).answeredAt, undefined, 'and has not answered yet');
    await sleep(4000);
    assert.ok(refreshes(1).at(-1).answeredAt, 'the answer came while nobody could store it');
    const restarted = Date.now();
    await gateway.restart('vault');
    checkPatient(await waiting);
    const back = await comesBack(secondUser, restarted + 10000);
    assert.equal(toolText(back), world.account(1));
    assert.equal(refreshes(1).length, before + 1, 'asked once');
    assert.ok(refreshes(1).every((entry) => !entry.reused));
    assert.equal(provider.records.authorizations.length, authorizations, 'nobody had to link again');
  });

  it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
});

// A provider that rotates strictly: the former refresh token dies at once, and using it again ends the whole family.
describe('a broker that dies inside refreshes at a strict provider', { skip }, () => {
  const ACCESS = 8;
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
    const calls = await asked(world.gateway);
    for (const user of [...known, ...victims]) assert.equal(toolText(await whoami(user)), world.account(user.i));
    const more = (await asked(world.gateway)).map((count, n) => count > calls[n]);
    assert.equal(more.filter(Boolean).length, 1, 'the edge asks one broker as long as that lives');
    const doomed = BROKERS[more.indexOf(true)];
    survivor = BROKERS[more.indexOf(false)];
    const last = world.provider.records.tokenRequests.at(-1).at;
    await sleep(Math.max(0, last + ACCESS * 1000 + 100 - Date.now()));
    const before = victims.map((victim) => refreshes(victim).length);
    world.provider.stallRefresh(world.account(DROPPED), { thinkMs: 2000, dropIfGone: true });
    world.provider.stallRefresh(world.account(ROTATED_LATER), { thinkMs: 2000 });
    world.provider.stallRefresh(world.account(ROTATED), { answerMs: 2000 });
    const running = startLoad(async (n) => {
      const user = known[n % known.length];
      const answer = await whoami(user);
      return { ...answer, ok: toolText(answer) === world.account(user.i) };
    }, RATE);
    try {
      const began = Date.now();
      const cutOff = victims.map((victim) => whoami(victim));
      await waitFor(() => victims.every((victim, n) => refreshes(victim).length === before[n] + 1), 'three refreshes to be under way', 5000);
      await sleep(300);
      assert.deepEqual(victims.map((user) => refreshes(user).at(-1).outcome), ['pending', 'pending', 'ok']);
      await world.gateway.kill(doomed);
      for (const answer of await Promise.all(cutOff)) {
        assert.equal(answer.status, 503, answer.body);
        checkPatient(answer);
      }

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

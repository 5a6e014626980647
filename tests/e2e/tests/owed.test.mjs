// SPDX-License-Identifier: Apache-2.0
// Many revocations that are owed to a provider that is down: the gauges say so, and when it is back the lane goes on until nothing is left.
// Replicas share the work, and each revocation reaches the provider once.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startApp } from '../world/apps.mjs';
import { Browser } from '../world/browser.mjs';
import { daysAgo, openDatabase } from '../world/database.mjs';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { waitFor } from '../world/http.mjs';

const USERS = 4;
const EVERYBODY = [...Array(USERS).keys()];
const ACCOUNTS = 30;  // of each
const OWED = USERS * ACCOUNTS;  // More than two pages of 50, which is what a replica takes at once.
const PENDING = 3;  // exit code
const ROUNDS_MS = 120000;
// Less than lies between two rounds of a replica.
const ONE_ROUND_MS = 15000;

for (const topology of TOPOLOGIES) {
  describe(`revocations that are owed, ${topology}`, () => {
    let world;
    let hub;
    let wiki;
    let vault;
    const people = [];  // { browser, tokens by server }
    const split = topology === 'split';
    const brokers = split ? ['token_broker', 'token_broker_2'] : ['standalone'];

    before(async () => {
      world = await startWorld(topology, { users: USERS, resources: () => undefined });
      hub = await startApp(world, 'hub', { users: USERS });
      wiki = await startApp(world, 'wiki', { users: USERS });
      await world.gateway.apply({ apps: [hub.app, wiki.app], mcpServers: [hub.server, wiki.server] });
      vault = openDatabase(world.gateway, 'vault');
      await Promise.all(EVERYBODY.map(async (i) => {
        const browser = new Browser();
        people[i] = { browser, tokens: {} };
        for (const slug of ['hub', 'wiki']) people[i].tokens[slug] = (await obtainToken(world, slug, persona(i), { browser })).accessToken;
        for (let n = 1; n < ACCOUNTS; n++) {
          const { page } = await browser.act(`${world.gateway.publicUrl}/connect/hub?account=a${n}`, persona(i));
          assert.match(page.html, /hub is connected/, page.url);
        }
      }));
    });
    after(async () => {
      vault?.close();
      await world?.close();
      for (const app of [hub, wiki]) await app?.close();
    });

    const persona = (i) => world.persona(i, { accounts: { ...world.persona(i).accounts, [hub.provider.url]: hub.account(i), [wiki.provider.url]: wiki.account(i) } });
    const metric = (broker, name, labels) => world.gateway.metric(broker, `sallyport_broker_${name}`, labels);
    const gauges = async (broker) => ({
      due: await metric(broker, 'due', { lane: 'revocations' }), oldest: await metric(broker, 'oldest_due_seconds', { lane: 'revocations' }),
    });
    const everyBroker = (good, what) => Promise.all(brokers.map((broker) => waitFor(async () => good(await gauges(broker)), `${what} at ${broker}`, ROUNDS_MS, 500)));
    const revokedBy = async (broker) => metric(broker, 'revocations_total', { app: 'hub', outcome: 'revoked' });

    it('are none at first, and the gauges are there', async () => {
      const metrics = Object.values(await world.gateway.metrics()).join('\n');
      for (const name of ['due', 'oldest_due_seconds']) assert.match(metrics, new RegExp(`^sallyport_broker_${name}\\{lane="revocations"\\} 0$`, 'm'));
      for (const i of EVERYBODY) assert.equal(toolText(await callTool(world.gateway.mcpUrl('hub'), 'whoami', {}, { token: people[i].tokens.hub })), hub.account(i).username);
    });

    it('are counted by the gauges of every replica while the provider is down, and for how long', async () => {
      hub.provider.settings.revocationTrouble = 'down';
      const { stdout } = await world.gateway.cli(['connections', 'revoke', '--app', 'hub', '--yes'], { ok: (code) => code === PENDING });
      assert.match(stdout, new RegExp(`^connections ended\\s+${OWED}$`, 'm'));
      // The few that were tried are due again later.
      await everyBroker(({ due, oldest }) => due > OWED / 2 && due <= OWED && oldest > 1, 'what is owed in the gauges');
      assert.deepEqual(hub.provider.revoked(), []);
      assert.ok(hub.provider.records.revocations.length < OWED, 'a provider that is down is asked for a few of them only');
    });

    it('reach the provider once each when it is back, all in one go, whichever replica has them', async () => {
      // A connection to another app that nobody has used for a year: by default that is no reason to end it.
      await vault.exec(`UPDATE record SET used_at = ${daysAgo(365)}, next_at = 1000 WHERE kind = 'connection' AND head <> 0 AND name NOT LIKE 'sso:%'`);
      // What is owed is in the vault alone. The replicas begin again together, and know of no provider that is to be left alone.
      await Promise.all(brokers.map((broker) => world.gateway.kill(broker)));
      hub.provider.settings.revocationTrouble = undefined;
      // So slow that one replica would take minutes, until both are at it.
      hub.provider.settings.revocationDelayMs = split ? 1000 : 0;
      await vault.exec("UPDATE record SET next_at = 1000, listed_until = 0, claim_until = 0 WHERE kind = 'revocation' AND head <> 0");
      await Promise.all(brokers.map((broker) => world.gateway.restart(broker)));
      if (split) {
        await waitFor(async () => (await Promise.all(brokers.map(revokedBy))).every((count) => count > 0), 'both replicas to take part', ROUNDS_MS, 250);
        hub.provider.settings.revocationDelayMs = 0;
      }
      const goOn = Date.now();
      await waitFor(() => hub.provider.revoked().length >= 2 * OWED, 'the revocations', ROUNDS_MS, 100);
      const carried = hub.provider.revoked().map(({ at, kind, family }) => ({ at, kind, family }));
      const began = split ? goOn : carried[0].at;
      assert.ok(carried.at(-1).at - began < ONE_ROUND_MS, `one round: the last came after ${carried.at(-1).at - began} ms`);
      await everyBroker(({ due, oldest }) => due === 0 && oldest === 0, 'nothing to be due');
      const once = new Map();
      for (const { kind, family } of hub.provider.revoked()) once.set(`${family} ${kind}`, (once.get(`${family} ${kind}`) ?? 0) + 1);
      assert.equal(once.size, 2 * OWED, 'refresh and access token of each');
      assert.deepEqual([...once].filter(([, count]) => count !== 1), []);
      // Restarted ones count from zero.
      const counted = await Promise.all(brokers.map(revokedBy));
      assert.equal(counted.reduce((sum, count) => sum + count), OWED, String(counted));
      assert.deepEqual(await vault.rows('record', ['name'], "WHERE kind = 'revocation' AND head <> 0"), []);
    });

    it('are each in the audit, and no connection is ended for not being used unless that is configured', async () => {
      await waitFor(async () => (await world.gateway.auditEvents({ type: 'link.revoked' })).filter(({ rule, details }) => rule === 'revoked' && details.app === 'hub').length >= OWED,
        'link.revoked in the audit', 30000, 500);
      assert.equal((await world.gateway.auditEvents({ type: 'link.revoked' })).length, OWED);
      for (const i of EVERYBODY) {
        await waitFor(() => wiki.provider.refreshes(wiki.account(i).username).length > 0, 'the connection to be renewed', ROUNDS_MS, 250);
        assert.equal(toolText(await callTool(world.gateway.mcpUrl('wiki'), 'whoami', {}, { token: people[i].tokens.wiki })), wiki.account(i).username);
      }
      assert.deepEqual(await world.gateway.auditEvents({ type: 'link.idle_revoked' }), []);
      assert.deepEqual(wiki.provider.records.revocations, []);
    });

    it('leave no secret anywhere', async () => {
      for (const app of [hub, wiki]) app.rememberSecrets();
      await assertNoSecretLeaked(world);
    });
  });
}

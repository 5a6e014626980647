// SPDX-License-Identifier: Apache-2.0
// idleRevokeAfter: a connection that its user has not used for that long is ended and revoked at the provider, and no other one is.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startApp } from '../world/apps.mjs';
import { Browser } from '../world/browser.mjs';
import { daysAgo, openDatabase } from '../world/database.mjs';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { waitFor } from '../world/http.mjs';

const [ANN, BOB, CID] = [0, 1, 2];
const EVERYBODY = [ANN, BOB, CID];
const WORK = ANN + EVERYBODY.length;  // Ann's second account.
// Longer than idleRefresh, which is a week; with the day by which the vault may note a use late, eight days and an hour.
const IDLE = { idleRevokeAfter: '169h' };
const [TOO_LONG, NOT_YET] = [9, 7.5];
// Rounds of the background work are half a minute apart.
const ROUNDS_MS = 120000;

for (const topology of TOPOLOGIES) {
  describe(`accounts that nobody uses, ${topology}`, () => {
    let world;
    let hub;
    let vault;
    let lastUsed;  // by Ann, of her default account: a day
    const people = [];  // { browser, token }
    const split = topology === 'split';

    before(async () => {
      world = await startWorld(topology, {
        users: EVERYBODY.length, gateway: { secondEdge: split, standalone: IDLE, broker: IDLE }, resources: () => undefined,
      });
      hub = await startApp(world, 'hub', { users: EVERYBODY.length, accounts: 2 });
      await world.gateway.apply({ apps: [hub.app], mcpServers: [hub.server] });
      vault = openDatabase(world.gateway, 'vault');
      for (const i of EVERYBODY) {
        const browser = new Browser();
        people[i] = { browser, token: (await obtainToken(world, 'hub', persona(i), { browser })).accessToken };
      }
      hub.signOut(people[ANN].browser);
      const { page } = await people[ANN].browser.act(`${world.gateway.publicUrl}/connect/hub?account=work`, persona(ANN, WORK));
      assert.match(page.html, /hub is connected/, page.url);
    });
    after(async () => {
      vault?.close();
      await world?.close();
      await hub?.close();
    });

    const persona = (i, account = i) => world.persona(i, { accounts: { ...world.persona(i).accounts, [hub.provider.url]: hub.account(account) } });
    // Each edge has a broker of its own.
    const origins = () => [world.gateway.publicUrl, ...(split ? [world.gateway.secondEdgeOrigin] : [])];
    const whoami = async (i, { account, origin = world.gateway.publicUrl } = {}) => toolText(await callTool(`${origin}/mcp/hub`, 'whoami', {}, {
      token: people[i].token, headers: { Host: new URL(world.gateway.publicUrl).host, ...(account ? { 'X-Sallyport-Account': account } : {}) },
    }));
    const name = (n) => hub.account(n).username;
    // Connections, or the tokens of the sign-in, in the vault.
    const records = (i, kind) => `owner_id = '${world.subject(i)}' AND kind = 'connection' AND name ${kind}`;
    const [DEFAULT, SECOND, SIGN_IN] = ["NOT LIKE '%/work' AND name NOT LIKE 'sso:%'", "LIKE '%/work'", "LIKE 'sso:%'"];
    const unusedFor = (days, which) => vault.exec(`UPDATE record SET used_at = ${daysAgo(days)}, updated_at = ${daysAgo(days)} WHERE ${which}`);
    const usedAt = async (which) => Number((await vault.rows('record', ['used_at'], `WHERE ${which}`))[0][0]);
    const listed = async (i) => ((await people[i].browser.api(world.gateway.publicUrl, 'sallyport.token_broker.v1.TokenBroker/ListConnections')).connections ?? [])
      .map(({ appSlug, label = '', state }) => `${appSlug} ${label}:${state}`).sort();

    it('are in use at first, each at every edge', async () => {
      for (const origin of origins()) {
        for (const i of EVERYBODY) assert.equal(await whoami(i, { origin }), name(i));
        assert.equal(await whoami(ANN, { origin, account: 'work' }), name(WORK));
      }
    });

    it('count as used by a call for which the vault is asked, and by nothing else', async () => {
      lastUsed = new Date(daysAgo(TOO_LONG) / 1000).toISOString().slice(0, 10);
      await unusedFor(TOO_LONG, records(ANN, DEFAULT));
      await unusedFor(TOO_LONG, records(ANN, SIGN_IN));
      await unusedFor(NOT_YET, records(BOB, DEFAULT));
      await unusedFor(TOO_LONG, records(CID, DEFAULT));
      // His token is refused, and renewed for him.
      hub.provider.refuseCalls(1);
      assert.equal(await whoami(CID), name(CID));
      assert.ok(await usedAt(records(CID, DEFAULT)) > daysAgo(1), 'the call is noted');
      // Whoever lists accounts uses none.
      await listed(ANN);
      assert.ok(await usedAt(records(ANN, DEFAULT)) < daysAgo(TOO_LONG - 1));
    });

    it('end when they were not used for that long; others are renewed, also of the same user', async () => {
      const renewed = (n) => hub.provider.refreshes(name(n)).filter(({ outcome }) => outcome === 'ok').length;
      const before_ = new Map([BOB, CID, WORK].map((n) => [n, renewed(n)]));
      // All of them are looked at in the next round.
      await vault.exec("UPDATE record SET next_at = 1000 WHERE kind = 'connection' AND head <> 0");
      await waitFor(() => hub.provider.revoked().length >= 2, 'the revocation', ROUNDS_MS, 250);
      for (const n of [BOB, CID, WORK]) await waitFor(() => renewed(n) > before_.get(n), `${name(n)} to be renewed`, ROUNDS_MS, 250);
      assert.deepEqual(hub.provider.revoked().map(({ kind, user }) => `${kind} ${user}`), [`refresh ${name(ANN)}`, `access ${name(ANN)}`]);
      const left = await vault.rows('record', ['owner_id', 'name'], "WHERE kind = 'connection' AND head <> 0");
      assert.ok(left.some(([owner, record]) => owner === world.subject(ANN) && record.startsWith('sso:')), 'the tokens of a sign-in end with it');
      assert.equal(left.filter(([, record]) => !record.startsWith('sso:')).length, 3, JSON.stringify(left));
    });

    it('are gone for their user at every edge, who is asked to connect again; nobody else notices', async () => {
      for (const origin of origins()) {
        await waitFor(async () => /\/connect\/hub/.test(await whoami(ANN, { origin })), 'the account to have ended', 10000, 50);
        assert.equal(await whoami(ANN, { origin, account: 'work' }), name(WORK));
        for (const i of [BOB, CID]) assert.equal(await whoami(i, { origin }), name(i));
      }
      assert.deepEqual(await listed(ANN), ['hub work:linked']);
      hub.signOut(people[ANN].browser);
      const { page } = await people[ANN].browser.act(`${world.gateway.publicUrl}/connect/hub`, persona(ANN));
      assert.match(page.html, /hub is connected/, page.url);
      await waitFor(async () => await whoami(ANN) === name(ANN), 'the account that was connected again', 10000, 50);
      assert.deepEqual(await listed(ANN), ['hub :linked', 'hub work:linked']);
    });

    it('are in the audit, with the day of their last use', async () => {
      const [row, ...others] = await waitFor(async () => {
        const rows = await world.gateway.auditEvents({ type: 'link.idle_revoked' });
        return rows.length > 0 && rows;
      }, 'link.idle_revoked in the audit', 15000, 250);
      assert.deepEqual(others, []);
      assert.equal(row.subject, world.subject(ANN));
      assert.equal(row.details.last_used, lastUsed);
      await waitFor(async () => (await world.gateway.auditEvents({ type: 'link.revoked' })).some(({ subject, rule }) => subject === world.subject(ANN) && rule === 'revoked'),
        'link.revoked in the audit', 15000, 250);
    });

    it('leave no secret anywhere', async () => {
      hub.rememberSecrets();
      await assertNoSecretLeaked(world);
    });
  });
}

// SPDX-License-Identifier: Apache-2.0
// Revocations that cannot be carried out: given up after a week, which is audited; a record that does not open is put off, and keeps nobody
// else's waiting.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startApp } from '../world/apps.mjs';
import { Browser } from '../world/browser.mjs';
import { daysAgo, openDatabase, withEarlier } from '../world/database.mjs';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { waitFor } from '../world/http.mjs';

const [ANN, BOB, CID, DAN] = [0, 1, 2, 3];
const EVERYBODY = [ANN, BOB, CID, DAN];
const PENDING = 3;  // exit code
const ROUNDS_MS = 120000;
const COMES_BACK_MS = 180000;
const A_WEEK_AGO = 8;  // days, and one more

for (const topology of TOPOLOGIES) {
  describe(`revocations that cannot be carried out, ${topology}`, () => {
    let world;
    let hub;
    let vault;
    const browsers = [];
    const brokers = topology === 'split' ? ['token_broker', 'token_broker_2'] : ['standalone'];

    before(async () => {
      world = await startWorld(topology, { users: EVERYBODY.length, resources: () => undefined });
      hub = await startApp(world, 'hub', { users: EVERYBODY.length });
      await world.gateway.apply({ apps: [hub.app], mcpServers: [hub.server] });
      vault = openDatabase(world.gateway, 'vault');
      for (const i of EVERYBODY) {
        browsers[i] = new Browser();
        await obtainToken(world, 'hub', world.persona(i, { accounts: { ...world.persona(i).accounts, [hub.provider.url]: hub.account(i) } }), { browser: browsers[i] });
      }
    });
    after(async () => {
      vault?.close();
      await world?.close();
      await hub?.close();
    });

    const audit = async (type, i) => (await world.gateway.auditEvents({ type })).filter(({ subject }) => i === undefined || subject === world.subject(i));
    const audited = (type, i, good = () => true) => waitFor(async () => {
      const rows = (await audit(type, i)).filter(good);
      return rows.length > 0 && rows;
    }, `${type} of ${i ?? 'anybody'} in the audit`, ROUNDS_MS, 500);
    const states = async (i) => ((await browsers[i].api(world.gateway.publicUrl, 'sallyport.token_broker.v1.TokenBroker/ListConnections')).connections ?? [])
      .map(({ appSlug, state }) => `${appSlug} ${state}`);
    // The revocation that this user owes, as the vault has it.
    const owedBy = async (i) => {
      const rows = await vault.rows('record', ['rid', 'labels', 'next_at', 'reason'], "WHERE kind = 'revocation' AND head <> 0");
      const [row] = rows.filter(([, labels]) => Buffer.from(labels, 'base64url').includes(world.subject(i)));
      return row && { rid: row[0], labels: row[1], nextAt: Number(row[2]) / 1000, reason: row[3] };
    };
    // As if it were owed for so long already. It comes first in the next round.
    const age = async (i, days) => {
      const { rid, labels } = await owedBy(i);
      await vault.exec(`UPDATE record SET labels = '${withEarlier(labels, 'since', days)}', next_at = 1000, listed_until = 0 WHERE rid = '${rid}'`);
    };
    const counted = async (labels) => {
      let sum = 0;
      for (const broker of brokers) sum += await world.gateway.metric(broker, 'sallyport_broker_revocations_total', { app: 'hub', ...labels });
      return sum;
    };
    const asked = (i, refused) => hub.provider.records.revocations.filter((entry) => entry.user === hub.account(i).username && entry.refused === refused);

    it('are owed while the provider is down, and shown to their user', async () => {
      hub.provider.settings.revocationTrouble = 'down';
      const { stdout } = await world.gateway.cli(['connections', 'revoke', '--app', 'hub', '--yes'], { ok: (code) => code === PENDING });
      assert.match(stdout, new RegExp(`^connections ended\\s+${EVERYBODY.length}$`, 'm'));
      for (const i of EVERYBODY) assert.deepEqual(await states(i), ['hub revoke_pending']);
      assert.deepEqual(await audit('link.revocation_abandoned'), []);
    });

    it('are given up after a week, which the audit says of whom; those of others stay owed', async () => {
      await age(ANN, A_WEEK_AGO);
      await age(BOB, 6);
      const [row, ...others] = await audited('link.revocation_abandoned', ANN);
      assert.deepEqual(others, []);
      assert.deepEqual([row.decision, row.rule, row.details.app], ['DECISION_FAILED', 'provider_unavailable', 'hub']);
      assert.deepEqual((await audit('link.revocation_abandoned')).map(({ subject }) => subject), [world.subject(ANN)], 'six days are no week');
      assert.equal(await owedBy(ANN), undefined);
      assert.deepEqual(await states(ANN), [], 'nothing is pending any more');
      for (const i of [BOB, CID, DAN]) assert.deepEqual(await states(i), ['hub revoke_pending']);
      assert.equal(await counted({ outcome: 'abandoned' }), 1);
    });

    it('are put off where the record does not open, and the others are carried out as soon as the provider is back', async () => {
      const { rid } = await owedBy(CID);
      await vault.exec(`UPDATE record_version SET sealed = '${Buffer.alloc(64, 7).toString('base64url')}' WHERE rid = '${rid}'`);
      hub.provider.settings.revocationTrouble = undefined;
      // An attempt that met the provider while it was down puts its record off when it ends.
      await waitFor(async () => (await vault.rows('record', ['rid'], `WHERE kind = 'revocation' AND claim_until > ${daysAgo(0)}`)).length === 0,
        'attempts under way to end', 60000, 50);
      // All of them come in the next round in which the provider is asked again, that one first: what has been owed for days would wait longer.
      await vault.exec("UPDATE record SET next_at = 2000, listed_until = 0 WHERE kind = 'revocation' AND head <> 0");
      await vault.exec(`UPDATE record SET next_at = 1000 WHERE rid = '${rid}'`);
      const before_ = asked(CID, true).length;
      for (const i of [BOB, DAN]) {
        await waitFor(() => asked(i, false).length >= 2, `the revocation of ${i}`, COMES_BACK_MS, 250);
        await audited('link.revoked', i, ({ rule }) => rule === 'revoked');
        assert.deepEqual(asked(i, false).map(({ kind }) => kind), ['refresh', 'access']);
        assert.deepEqual(await states(i), []);
      }
      const left = await waitFor(async () => {
        const owed = await owedBy(CID);
        return owed.reason === 'damaged' && owed;
      }, 'what does not open to be put off', ROUNDS_MS, 500);
      assert.equal(left.rid, rid);
      assert.ok(left.nextAt > Date.now() + 23 * 3600 * 1000, 'for a day');
      const [row] = await waitFor(async () => {
        const rows = (await world.gateway.auditEvents({ type: 'secret.damaged' })).filter(({ details }) => details.kind === 'revocation');
        return rows.length > 0 && rows;
      }, 'secret.damaged in the audit', 15000, 250);
      assert.equal(row.decision, 'DECISION_FAILED');
      assert.deepEqual(await states(CID), ['hub revoke_pending']);
      assert.equal(asked(CID, true).length, before_);
      const vaultService = topology === 'split' ? 'vault' : 'standalone';
      assert.ok(await world.gateway.metric(vaultService, 'sallyport_vault_records_damaged_total') >= 1);
    });

    it('are given up in the end where the record never opens', async () => {
      await age(CID, A_WEEK_AGO);
      const [row] = await audited('link.revocation_abandoned', CID);
      assert.deepEqual([row.decision, row.rule, row.details.app], ['DECISION_FAILED', 'damaged', 'hub']);
      assert.deepEqual(await states(CID), []);
      assert.equal(await owedBy(CID), undefined);
      assert.deepEqual(asked(CID, false), []);
      assert.deepEqual(await vault.rows('record', ['rid'], "WHERE kind = 'revocation' AND head <> 0"), []);
      assert.equal(await counted({ outcome: 'abandoned' }), 2);
      assert.equal(await counted({ outcome: 'revoked' }), 2);
    });

    it('leave no secret anywhere', async () => {
      hub.rememberSecrets();
      await assertNoSecretLeaked(world);
    });
  });
}

// SPDX-License-Identifier: Apache-2.0
// An app that is deleted keeps its client and secret until its users' tokens are revoked, and no longer.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startApp } from '../world/apps.mjs';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, rpc, toolText } from '../world/http-client.mjs';
import { waitFor } from '../world/http.mjs';

const USERS = 3;
const EVERYBODY = [...Array(USERS).keys()];
const COMES_BACK_MS = 180000;

for (const topology of TOPOLOGIES) {
  describe(`an app that is deleted, ${topology}`, () => {
    let world;
    let gone;
    const people = [];

    before(async () => {
      world = await startWorld(topology, { users: USERS, resources: () => undefined });
      gone = await startApp(world, 'gone', { users: USERS });
      await world.gateway.apply({ apps: [gone.app], mcpServers: [gone.server] });
      for (const i of EVERYBODY) people[i] = await obtainToken(world, 'gone', persona(i));
    });
    after(async () => {
      await world?.close();
      await gone?.close();
    });

    const persona = (i, more = {}) => world.persona(i, { accounts: { ...world.persona(i).accounts, [gone.provider.url]: gone.account(i) }, ...more });
    const whoami = (i) => callTool(world.gateway.mcpUrl('gone'), 'whoami', {}, { token: people[i].accessToken });
    const registry = (method, body) => world.gateway.api(`sallyport.registry.v1.Registry/${method}`, body);
    const audit = (type) => world.gateway.auditEvents({ type });

    it('serves nothing from then on, and its users\' tokens are to be revoked though the provider is down', async () => {
      for (const i of EVERYBODY) assert.equal(toolText(await whoami(i)), gone.account(i).username);
      gone.provider.settings.revocationTrouble = 'down';
      await registry('DeleteMcpServer', { slug: 'gone' });
      await registry('DeleteApp', { slug: 'gone' });
      await waitFor(async () => (await rpc(world.gateway.mcpUrl('gone'), 'tools/list', {}, { token: people[0].accessToken })).status === 404,
        'the server to be gone', 2000, 20);
      await waitFor(() => gone.provider.records.revocations.length > 0, 'the first attempt', 60000, 100);
      assert.equal(gone.provider.records.revocations[0].kind, 'refresh');
      assert.deepEqual(await audit('config.app_finished'), [], 'not while anything is owed');
      const { apps = [] } = await registry('ListApps', {});
      assert.deepEqual(apps.map(({ slug }) => slug), []);
    });

    it('has them revoked with its own client and secret when the provider is back, each once, and is gone then', async () => {
      gone.provider.settings.revocationTrouble = undefined;
      await waitFor(() => gone.provider.revoked().length >= 2 * USERS, 'the revocations', COMES_BACK_MS, 250);
      const carried = gone.provider.revoked();
      assert.ok(carried.every(({ client }) => client === 'gateway-app'), JSON.stringify(carried));
      for (const i of EVERYBODY) {
        assert.deepEqual(carried.filter(({ user }) => user === gone.account(i).username).map(({ kind }) => kind), ['refresh', 'access']);
      }
      const [finished] = await waitFor(async () => {
        const rows = await audit('config.app_finished');
        return rows.length > 0 && rows;
      }, 'the app to be finished', 90000, 500);
      assert.equal(finished.decision, 'DECISION_ALLOWED');
      assert.equal(gone.provider.revoked().length, 2 * USERS);
      const ended = (await audit('link.disconnected')).filter(({ rule }) => rule === 'app_deleted').map(({ subject }) => subject);
      assert.deepEqual(ended.sort(), EVERYBODY.map((i) => world.subject(i)).sort());
      const revoked = (await audit('link.revoked')).filter(({ rule, details }) => rule === 'revoked' && details.app === 'gone').map(({ subject }) => subject);
      assert.deepEqual(revoked.sort(), EVERYBODY.map((i) => world.subject(i)).sort());
    });

    it('lends its name to another one, which has nothing of it', async () => {
      await world.gateway.apply({ apps: [gone.app], mcpServers: [gone.server] });
      assert.equal((await whoami(0)).status, 401, 'the server is another one: the former one\'s tokens are not for it');
      people[0] = await obtainToken(world, 'gone', persona(0, { skipLink: true }), { browser: people[0].browser });
      assert.match(toolText(await whoami(0)), /\/connect\/gone/);
    });

    it('leaves no secret anywhere', async () => {
      gone.rememberSecrets();
      await assertNoSecretLeaked(world);
    });
  });
}

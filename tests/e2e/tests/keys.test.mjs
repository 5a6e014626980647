// SPDX-License-Identifier: Apache-2.0
// The vault's keys are replaced while everything goes on: a new term, records brought over, the old term destroyed.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { startLoad, summary } from '../world/load.mjs';

const USERS = 4;

for (const topology of TOPOLOGIES) {
  describe(`keys of the vault, ${topology}`, () => {
    let world;
    const tokens = [];
    before(async () => {
      // Tokens end so soon that they are renewed, and written, all the time.
      world = await startWorld(topology, { users: USERS + 1, provider: { accessSeconds: 6 } });
      for (let i = 0; i < USERS; i++) tokens[i] = (await obtainToken(world, 'github', world.persona(i))).accessToken;
    });
    after(() => world?.close());

    const whoami = (i) => callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: tokens[i] })
      .then((answer) => ({ ...answer, ok: toolText(answer) === world.account(i) }));
    const vault = async (...args) => (await world.gateway.cli(['vault', ...args])).stdout;
    const terms = async () => (await world.gateway.api('sallyport.vault.v1.VaultAdmin/GetStatus')).terms;

    it('are replaced without one failed call, and the old term can be destroyed', async () => {
      const load = startLoad((n) => whoami(n % USERS), 20);
      try {
        assert.match(await vault('rotate'), /^term 2 begins/);
        await assert.rejects(vault('destroy-term', '1', '--yes'), /data keys are under it: rewrap first/);
        assert.match(await vault('rewrap'), /keys brought over, with \d+ records; 0 left/);
        assert.match(await vault('destroy-term', '1', '--yes'), /term 1 is destroyed/);
      } finally {
        await load.stop();
      }
      const failed = load.results.filter((result) => !result.ok);
      assert.equal(failed.length, 0, `${failed.length} of ${load.results.length} failed: ${summary(failed)}`);
      const [first, second] = await terms();
      assert.deepEqual([first.state, Number(first.dataKeys ?? 0)], ['destroyed', 0]);
      assert.ok(second.state === 'active' && Number(second.dataKeys) > USERS, JSON.stringify(second));
    });

    it('open everything after a restart, and take new users', async () => {
      const name = topology === 'split' ? 'vault' : 'standalone';
      await world.gateway.services.get(name).process.kill('SIGTERM');
      await world.gateway.restart(name);
      await world.gateway.ready();
      for (let i = 0; i < USERS; i++) assert.ok((await whoami(i)).ok, world.account(i));
      tokens[USERS] = (await obtainToken(world, 'github', world.persona(USERS))).accessToken;
      assert.ok((await whoami(USERS)).ok);
    });

    it('are told of in the audit', async () => {
      const types = new Set((await world.gateway.auditEvents()).map((event) => event.type));
      for (const type of ['vault.term_rotated', 'vault.rewrap', 'vault.term_destroyed']) assert.ok(types.has(type), type);
    });
  });
}

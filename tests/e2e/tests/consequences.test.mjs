// SPDX-License-Identifier: Apache-2.0
// What a dry run says of those who use a server already: how many must connect again, and whose calls break. It changes nothing.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { codehostApp, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool } from '../world/http-client.mjs';

const REGISTRY = 'sallyport.registry.v1.Registry';

for (const topology of TOPOLOGIES) {
  describe(`consequences of a change, ${topology}`, () => {
    let world;
    const tokens = [];
    const server = (slug) => world.resources.mcpServers.find((one) => one.slug === slug);
    const state = async () => JSON.stringify([
      await world.gateway.api(`${REGISTRY}/ListMcpServers`, { pageSize: 1000 }), await world.gateway.api(`${REGISTRY}/ListApps`),
    ]);
    // What `sallyport apply --dry-run` prints; nothing is changed by it.
    const preview = async (resources) => {
      const before = await state();
      const file = path.join(world.gateway.directory, 'changed.yaml');
      await writeFile(file, JSON.stringify(resources), { mode: 0o600 });
      const { stdout } = await world.gateway.cli(['apply', '--dry-run', '-f', file]);
      assert.equal(await state(), before);
      for (const i of [0, 1]) {
        assert.ok(!stdout.includes(world.subject(i)) && !stdout.includes(world.account(i)), `somebody is named:\n${stdout}`);
      }
      return stdout;
    };
    const works = async () => {
      for (const accessToken of tokens) {
        const answer = await callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: accessToken });
        assert.equal(answer.status, 200, answer.body);
      }
    };

    before(async () => {
      world = await startWorld(topology, { users: 3 });
      for (const i of [0, 1]) tokens.push((await obtainToken(world, 'github', world.persona(i))).accessToken);
      await works();
    });
    after(() => world?.close());

    it('a scope that their connections lack: both users must connect again', async () => {
      const stdout = await preview({
        mcpServers: [{ ...server('github'), appAuth: { oauthAuthorization: { app: 'codehost', scopes: ['gist'] } } }],
      });
      assert.match(stdout, /consequence: 2 users must connect Code Host again: scope gist is asked for and their connection lacks it/);
      const app = await preview({ apps: [{ ...codehostApp(world), defaultScopes: ['repo', 'gist'] }] });
      assert.match(app, /consequence: 2 users must connect Code Host again: scope gist/);
      await works();
    });

    it('another app: both connect that one, and the first is not used any more', async () => {
      const other = { ...codehostApp(world), slug: 'wiki', displayName: 'Wiki' };
      const stdout = await preview({
        apps: [other], mcpServers: [{ ...server('github'), appAuth: { oauthAuthorization: { app: 'wiki' } } }],
      });
      assert.match(stdout, /callers must connect Wiki before their next call, 2 of the 2 users who have connected Code Host among them; 0 users have/);
      assert.match(stdout, /2 users have connected Code Host: this server does not use it any more/);
      await works();
    });

    it('another type, and another door', async () => {
      const stdout = await preview({
        mcpServers: [
          { ...server('github'), agentAuth: { passthrough: {} }, appAuth: { passthrough: {} } },
          { ...server('nightly'), agentAuth: { interactive: { allow: { everyone: true } } } },
        ],
      });
      assert.match(stdout, /consequence: callers who signed in at the gateway are refused/);
      assert.match(stdout, /consequence: 2 users have connected Code Host: this server does not use it any more/);
      assert.match(stdout, /consequence: callers without a token, such as scripts, are refused/);
      await works();
    });

    it('a deletion', async () => {
      const before = await state();
      const { stdout } = await world.gateway.cli(['delete', 'server', 'github', '--dry-run']);
      assert.match(stdout, /^- McpServer github \(not deleted\)\n {4}consequence: every call is refused with 404\n {4}consequence: 2 users have/);
      assert.equal(await state(), before);
      await works();
    });

    it('only who may make the change learns a number', async () => {
      const { accessToken } = await obtainToken(world, 'echo', world.persona(2));
      const answer = await fetch(`${world.gateway.publicUrl}/api/${REGISTRY}/UpdateMcpServer`, {
        method: 'POST', headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${accessToken}` },
        body: JSON.stringify({ mcpServer: { ...server('github'), appAuth: { passthrough: {} } }, dryRun: true }),
      });
      assert.ok([401, 403].includes(answer.status), `HTTP ${answer.status}`);
      assert.ok(!(await answer.text()).includes('consequence'));
    });

    it('a real write says the same', async () => {
      const stdout = await world.gateway.apply({
        mcpServers: [{ ...server('github'), appAuth: { oauthAuthorization: { app: 'codehost', scopes: ['gist'] } } }],
      });
      assert.match(stdout, /consequence: 2 users must connect Code Host again: scope gist/);
    });
  });
}

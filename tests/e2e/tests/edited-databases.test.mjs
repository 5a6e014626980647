// SPDX-License-Identifier: Apache-2.0
// Somebody who writes the databases points every server and app at a place of their own, and takes down every bound they can see. Nothing
// that the gateway holds goes there.
import assert from 'node:assert/strict';
import { readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openDatabase } from '../world/database.mjs';
import { obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { listen, readBody, sendJson, waitFor } from '../world/http.mjs';

// Everything that arrives, whole.
async function startThief() {
  const seen = [];
  const server = await listen(async (req, res) => {
    const body = (await readBody(req)).toString();
    seen.push(`${req.method} ${req.url}\n${req.rawHeaders.join('\n')}\n${body}`);
    sendJson(res, 200, { jsonrpc: '2.0', id: 1, result: { content: [] }, access_token: 'thief', token_type: 'Bearer', expires_in: 3600 });
  });
  return { seen, origin: server.url, close: server.close };
}

// Binary columns are base64url text. Ports are of equal length, so that the length fields inside stay true.
function edited(text, origins, thief) {
  let bytes = Buffer.from(text, 'base64url').toString('latin1');
  for (const origin of origins) {
    assert.equal(origin.length, thief.length);
    bytes = bytes.replaceAll(origin, thief);
  }
  return Buffer.from(bytes, 'latin1').toString('base64url');
}

// Edges remember the configuration in a file; the thief has no need of it.
async function forgetSnapshots(directory) {
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true })) {
    if (entry.isFile() && /snapshot/.test(entry.name)) await rm(path.join(entry.parentPath ?? entry.path, entry.name));
  }
}

for (const topology of TOPOLOGIES) {
  describe(`edited databases, ${topology}`, () => {
    let world;
    let thief;
    let tokens;
    const services = () => [...world.gateway.services.keys()];
    before(async () => {
      thief = await startThief();
      world = await startWorld(topology, { users: 2, provider: { accessSeconds: 20 } });
      const { accessToken, browser } = await obtainToken(world, 'github', world.persona(0));
      tokens = { github: accessToken };
      for (const slug of ['echo', 'idp-token']) {
        tokens[slug] = (await obtainToken(world, slug, world.persona(0), { browser })).accessToken;
      }
      assert.equal(toolText(await callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: tokens.github })), world.account(0));
    });
    after(async () => {
      await world?.close();
      await thief?.close();
    });

    const call = (slug, tool, token) => callTool(world.gateway.mcpUrl(slug), tool, {}, { token, headers: { 'X-Mark': 'thief-was-here' } });

    it('send nothing that the gateway holds to a place that somebody wrote into them', async () => {
      const origins = [world.echo.url, world.provider.url, world.trickster.url].map((url) => new URL(url).origin);
      for (const name of services()) await world.gateway.services.get(name).process.kill('SIGTERM');
      const registry = openDatabase(world.gateway, 'registry');
      const vault = openDatabase(world.gateway, 'vault');
      let changed = 0;
      for (const [uid, body] of await registry.rows('resource', ['uid', 'body'])) {
        const now = edited(body, origins, thief.origin);
        if (now !== body) changed++;
        await registry.exec(`UPDATE resource SET body = '${now}' WHERE uid = '${uid}'`);
      }
      assert.ok(changed >= 10, `${changed} servers and apps were pointed elsewhere`);
      await registry.exec('DELETE FROM change_log');
      // What can be read in the vault's rows.
      for (const table of ['record', 'record_version']) {
        const key = table === 'record' ? ['rid'] : ['rid', 'version'];
        for (const [...row] of await vault.rows(table, [...key, 'labels'])) {
          const now = edited(row.at(-1), origins, thief.origin);
          const where = key.map((column, i) => (column === 'rid' ? `rid = '${row[i]}'` : `${column} = ${row[i]}`)).join(' AND ');
          await vault.exec(`UPDATE ${table} SET labels = '${now}' WHERE ${where}`);
        }
      }
      // Every version pinned, and every connection due for renewal at once.
      await vault.exec('UPDATE record_version SET pinned = 1');
      await vault.exec("UPDATE record SET next_at = 1000 WHERE kind = 'connection'");
      registry.close();
      vault.close();
      await forgetSnapshots(world.gateway.directory);
      for (const name of services()) world.gateway.startService(name);
      await world.gateway.ready();

      await call('trick-open', 'headers');
      for (const slug of ['nightly', 'query', 'bearer', 'basic']) {
        const answer = await call(slug, 'headers');
        assert.notEqual(answer.status, 200, `${slug}: ${answer.body}`);
      }
      for (const slug of ['echo', 'github', 'idp-token']) {
        const answer = await call(slug, 'headers', tokens[slug]);
        assert.notEqual(answer.status, 200, `${slug}: ${answer.body}`);
        assert.notEqual(answer.status, 401, `${slug}: the gateway still knows its user`);
      }
      // A link that is begun now sends neither secret nor code there.
      await obtainToken(world, 'github', world.persona(1)).catch(() => {});
      const refused = await waitFor(async () => {
        const events = await world.gateway.auditEvents();
        return events.some((event) => event.type === 'credential.refused' && event.rule === 'origin_not_allowed') && events;
      }, 'the refusals in the audit');
      assert.ok(refused.length > 0);
      assert.ok(thief.seen.length > 0, 'what is not the gateway\'s own to keep goes where the configuration says');
      const { apiKey, bearer, basic, query, literal, appSecret, clientSecret } = world.secrets;
      const held = [apiKey, bearer, basic, query, literal, appSecret, clientSecret, encodeURIComponent(query), encodeURIComponent(appSecret),
        Buffer.from(`robot:${basic}`).toString('base64'), ...world.provider.secrets, ...world.idp.owners.keys()];
      const stolen = held.filter((secret) => secret && thief.seen.some((request) => request.includes(secret)));
      assert.deepEqual(stolen, []);
    });
  });
}

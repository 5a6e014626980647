// SPDX-License-Identifier: Apache-2.0
// The sweep for secrets, at a running gateway: it passes as long as nothing is planted, and finds what is, in each kind of trace.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { appendFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, keptAnswers, toolText } from '../world/http-client.mjs';
import { findSecrets, remember } from '../world/secrets.mjs';
import { tracesOf } from '../world/sweep.mjs';

const FORMS = {
  raw: (text) => text,
  base64: (text) => Buffer.from(`?${text}`).toString('base64'),
  base64url: (text) => Buffer.from(`?>${text}`).toString('base64url'),
  'URL-encoded': encodeURIComponent,
};

for (const topology of TOPOLOGIES) {
  describe(`the sweep for secrets, ${topology}`, () => {
    let world;
    let closed = false;
    before(async () => { world = await startWorld(topology, { users: 1 }); });
    after(() => closed || world?.close({ sweep: false }));

    it('passes after a sign-in, a link, a call and a refresh', async () => {
      const { accessToken } = await obtainToken(world, 'github', world.persona(0));
      const whoami = () => callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: accessToken });
      assert.equal(toolText(await whoami()), world.account(0));
      world.provider.expireAccessTokens();
      assert.equal(toolText(await whoami()), world.account(0));
      assert.equal(world.provider.refreshes().length, 1);
      await assertNoSecretLeaked(world);
      // What is refreshed is in Redis now, for the other broker.
      if (topology === 'split') assert.match((await tracesOf(world)).get('redis').toString('latin1'), /sallyport:token:/);
    });

    it('finds a secret in each kind of trace, however it is written', async () => {
      const { gateway } = world;
      const expected = [];
      // A secret of its own for each trace and form, so that one find does not stand for another.
      const plant = async (trace, put) => {
        for (const [i, disguise] of Object.values(FORMS).entries()) {
          const start = randomBytes(9).toString('base64url');
          const secret = `${start}+/&=~of a test`;
          remember('planted', secret);
          await put(disguise(secret), i);
          expected.push(`${trace.replace('#', i)}: planted "${start}"…`);
        }
      };
      const answer = (more) => callTool(gateway.mcpUrl('trick-open'), 'x', { status: 200, ...more });
      const service = topology === 'split' ? 'edge' : 'standalone';
      const data = topology === 'split' ? 'edge-data' : 'data/edge';
      await plant(`log ${service}.log`, (text) => appendFile(path.join(gateway.logs, `${service}.log`), `${text}\n`));
      await plant(`file ${data}/planted-#`, (text, i) =>
        writeFile(path.join(gateway.directory, data, `planted-${i}`), Buffer.from(`\0\xff${text}\0`, 'latin1')));
      const json = (value) => answer({ body: JSON.stringify({ jsonrpc: '2.0', id: null, ...value }) });
      await plant('answers (error)', (text) => answer({ status: 500, body: text }));
      await plant('answers (error)', (text) => json({ error: { code: 1, message: text } }));
      await plant('answers (error)', (text) => json({ result: { isError: true, content: [{ type: 'text', text }] } }));
      // No upstream can put a page there, so it is laid beside those that were kept.
      await plant('answers (page)', (text) => keptAnswers.push({ origin: gateway.publicUrl, kind: 'page', text: `<p>${text}</p>` }));
      if (topology === 'split') {
        const { postgres, redis } = gateway;
        for (const name of ['vault', 'registry', 'authn']) {
          await postgres.psql(name, 'CREATE TABLE planted (value TEXT)');
          await plant(`database ${name}`, (text) => postgres.psql(name, `INSERT INTO planted VALUES ('${text}')`));
        }
        await plant('log postgres.log', (text) =>
          postgres.psql('vault', `BEGIN; INSERT INTO planted VALUES ('${text}'); DELETE FROM planted WHERE value = '${text}'; COMMIT`));
        await plant('redis', (text) => redis.cli('SET', `planted-${text}`, text));
        await plant('log redis-monitor.log', async (text) => {
          await redis.cli('SET', 'planted', text);
          await redis.cli('DEL', 'planted');
        });
      } else {
        for (const name of ['vault', 'registry', 'authn']) {
          const database = new DatabaseSync(path.join(gateway.dataDirectory, `${name}.db`));
          database.exec('PRAGMA busy_timeout = 5000; CREATE TABLE planted (value TEXT)');
          await plant(`file data/${name}.db`, (text) => database.prepare('INSERT INTO planted VALUES (?)').run(text));
          database.close();
        }
      }
      const traces = await tracesOf(world);
      await plant(`metrics ${service}`, (text) => {
        const name = `metrics ${service}`;
        traces.set(name, Buffer.concat([traces.get(name), Buffer.from(`sallyport_x{label="${text}"} 1\n`)]));
      });
      const found = findSecrets(traces).map((line) => line.replace(/ after .*/s, '').replace('.db-wal:', '.db:'));
      assert.deepEqual(expected.filter((line) => !found.includes(line)), [], 'planted and not found');
      assert.deepEqual(found.filter((line) => !line.includes(': planted "')), [], 'found and not planted');
    });

    it('sweeps once more when the gateway has stopped', async () => {
      closed = true;
      await assert.rejects(world.close(), /: planted "/);
    });
  });
}

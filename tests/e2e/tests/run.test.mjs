// SPDX-License-Identifier: Apache-2.0
// tools/run, the way somebody new uses it: what it prints is pasted where it says.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, readdir, rm, symlink } from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Browser } from '../world/browser.mjs';
import { connectClient, person } from '../world/clients.mjs';
import { freePort, sleep, waitFor } from '../world/http.mjs';
import { run, start } from '../world/processes.mjs';
import { findSecrets, remember, rememberJson } from '../world/secrets.mjs';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const BIN = process.env.SALLYPORT_BIN ?? path.join(ROOT, 'build/dev/bin');

const alive = (pid) => existsSync(`/proc/${pid}`);
const children = async (pid) =>
  (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ').filter(Boolean).map(Number);
const connects = (port) => new Promise((resolve) => {
  const socket = net.connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); });
  socket.on('error', () => resolve(false));
});

// tools/run in a process group of its own, as a terminal starts it, so that SIGINT reaches the children as well.
let starts = 0;
async function startDemo(data, port) {
  const demo = start(path.join(ROOT, 'tools/run'), ['--bin', BIN, '--data', data, '--port', String(port)],
    { logFile: path.join(data, `run-${++starts}.log`), detached: true, cwd: data });
  const printed = await waitFor(async () => {
    const text = await demo.log();
    if (!demo.alive) throw Object.assign(new Error(`tools/run has ended: ${text}`), { fatal: true });
    return text.includes('Ctrl-C stops everything.') && text;
  }, 'tools/run to be ready', 120000, 100);
  return { demo, printed, pids: await children(demo.child.pid) };
}

// Signals the whole group, as a terminal does on Ctrl-C.
const signal = (demo, name) => process.kill(-demo.child.pid, name);

describe('tools/run', () => {
  let data;
  let port;
  let running;
  before(async () => {
    data = await mkdtemp(path.join(os.tmpdir(), 'sallyport-run-'));
    port = await freePort();
    running = await startDemo(data, port);
  });
  after(async () => {
    if (running?.demo.alive) {
      signal(running.demo, 'SIGTERM');
      await running.demo.ended;
    }
    if (data) await rm(data, { recursive: true, force: true });
  });
  const url = (slug) => `http://127.0.0.1:${port}/mcp/${slug}`;
  const line = (pattern) => {
    const found = running.printed.match(pattern)?.[1];
    assert.ok(found, `${pattern} in:\n${running.printed}`);
    return found;
  };

  it('prints a curl that works at once', async () => {
    const command = line(/^( {2}curl .*\\\n.*)$/m);
    const { stdout } = await run('sh', ['-c', command], { cwd: data });
    const message = stdout.startsWith('{') ? stdout : stdout.match(/^data: (.*)$/m)?.[1];
    const { headers } = JSON.parse(JSON.parse(message).result.content[0].text);
    assert.ok(headers['x-api-key'], stdout);
    assert.equal(headers['x-internal-debug'], undefined);
  });

  it('prints a user and a password with which a client signs in to everything', async () => {
    const account = { username: line(/^ {2}demo user +(\S+)$/m), password: line(/^ {2}password +(\S+)$/m) };
    const persona = { connector: 'local', accounts: { [`http://127.0.0.1:${port}`]: account } };
    const { client, close } = await connectClient('sdk1', url('everything'), { openUrl: person(new Browser(), persona) });
    try {
      const result = await client.callTool({ name: 'echo', arguments: { message: 'from the demo' } });
      assert.match(result.content[0].text, /from the demo/);
    } finally {
      await close();
    }
  });

  it('prints configurations that clients can read', () => {
    const cursor = JSON.parse(line(/^Cursor .*\n\n {2}(.*)$/m));
    const code = JSON.parse(line(/^VS Code .*\n\n {2}(.*)$/m));
    for (const slug of ['everything', 'echo']) {
      assert.deepEqual(cursor.mcpServers[slug], { url: url(slug) });
      assert.deepEqual(code.servers[slug], { type: 'http', url: url(slug) });
      assert.ok(running.printed.includes(`\n  claude mcp add --transport http ${slug} ${url(slug)}\n`), running.printed);
    }
  });

  it('stops all it started on Ctrl-C', async () => {
    const { demo, pids } = running;
    assert.equal(pids.length, 3, `children: ${pids}`);
    assert.ok(pids.every(alive), `children: ${pids}`);
    signal(demo, 'SIGINT');
    assert.deepEqual(await demo.ended, { code: 130, signal: null });
    await sleep(100);
    assert.deepEqual(pids.filter(alive), []);
    assert.equal(await connects(port), false);
    assert.match(await demo.log(), /tools\/run: stopped\n$/);
  });

  it('starts again with the same user, password and port, and stops when it is told to', async () => {
    const page = () => running.printed.slice(running.printed.indexOf('sallyport is running'));
    const before = page();
    running = await startDemo(data, port);
    assert.equal(page(), before);
    // To it alone: the children must hear of it from it.
    assert.deepEqual(await running.demo.kill('SIGTERM'), { code: 143, signal: null });
    assert.deepEqual(running.pids.filter(alive), []);
  });

  it('takes a directory from where it is called', async () => {
    const { code, stderr } = await run(path.join(ROOT, 'tools/run'), ['--bin', './not-there'], { cwd: data, ok: (status) => status !== 0 });
    assert.equal(code, 1);
    assert.match(stderr, /--bin: no such directory/);
    await symlink(BIN, path.join(data, 'programs'));
    const relative = await run(path.join(ROOT, 'tools/run'), ['--bin', 'programs', '--data', 'demo/password'], { cwd: data, ok: (status) => status !== 0 });
    assert.match(relative.stderr, new RegExp(`${data}/demo/password`), 'a file, where a directory was meant');
  });

  it('leaves no secret in what it stored and logged', async () => {
    remember('password of the demo user', await readFile(path.join(data, 'demo/password'), 'utf8').then((text) => text.trim()));
    remember('key of the demo server', await readFile(path.join(data, 'demo/echo-api-key'), 'utf8').then((text) => text.trim()));
    rememberJson(await readFile(path.join(data, 'demo/config/sallyport/credentials.json'), 'utf8'));
    const traces = new Map();
    for (const top of ['logs', 'gateway']) {
      for (const entry of await readdir(path.join(data, top), { recursive: true, withFileTypes: true })) {
        const file = path.join(entry.parentPath, entry.name);
        if (entry.isFile() && !file.includes('/kek/')) traces.set(path.relative(data, file), await readFile(file));
      }
    }
    assert.ok(traces.get('logs/gateway.log')?.includes('"started"') && [...traces.keys()].some((name) => /registry.*db/.test(name)), [...traces.keys()].join());
    assert.deepEqual(findSecrets(traces), []);
  });
});

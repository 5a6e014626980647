// SPDX-License-Identifier: Apache-2.0
// A PostgreSQL server and a Redis server of the test's own, on unix sockets in a temporary directory.
import { chown, mkdir, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { run, start } from './processes.mjs';
import { waitFor } from './http.mjs';

async function postgresBin() {
  const versions = await readdir('/usr/lib/postgresql').catch(() => []);
  if (versions.length === 0) throw new Error('no PostgreSQL server below /usr/lib/postgresql: run tools/setup');
  return `/usr/lib/postgresql/${versions.sort((a, b) => Number(b) - Number(a))[0]}/bin`;
}

// PostgreSQL refuses to run as root: root lends it the account `postgres`, or `nobody`.
async function unprivileged() {
  if (process.getuid() !== 0) return {};
  for (const name of ['postgres', 'nobody']) {
    const id = async (flag) => Number((await run('id', [flag, name])).stdout);
    try {
      return { uid: await id('-u'), gid: await id('-g') };
    } catch { /* the next name */ }
  }
  throw new Error('neither postgres nor nobody is an account here');
}

// `databases` are created. connection(name) is a libpq string without a password. The log holds every statement with its parameters: what
// a row held that is gone by the time of a dump.
export async function startPostgres(logFile, databases) {
  const bin = await postgresBin();
  const account = await unprivileged();
  // A directory of its own: the account it runs as may not be able to enter the caller's.
  const directory = await mkdtemp(path.join(os.tmpdir(), 'sallyport-pg-'));
  const data = path.join(directory, 'data');
  if (account.uid !== undefined) await chown(directory, account.uid, account.gid);
  const options = { ...account, cwd: directory, env: { PATH: process.env.PATH, LC_ALL: 'C', HOME: directory } };
  await run(`${bin}/initdb`, ['-D', data, '-A', 'trust', '-U', 'sallyport', '-E', 'UTF8', '--no-sync', '--locale=C'], options);
  const server = start(`${bin}/postgres`, [
    '-D', data, '-k', directory, '-c', 'listen_addresses=', '-c', 'max_connections=200', '-c', 'fsync=off', '-c', 'shared_buffers=32MB',
    '-c', 'log_statement=all',
  ], { logFile, ...options });
  const psql = (database, sql) =>
    run(`${bin}/psql`, ['-h', directory, '-U', 'sallyport', '-d', database, '-v', 'ON_ERROR_STOP=1', '-At', '-c', sql]);
  await waitFor(() => psql('postgres', 'SELECT 1'), 'PostgreSQL', 20000, 100);
  for (const database of databases) await psql('postgres', `CREATE DATABASE ${database}`);
  return {
    connection: (database) => `host=${directory} dbname=${database} user=sallyport`,
    psql,
    // Everything in a database, as text.
    dump: async (database) => (await run(`${bin}/pg_dump`, ['-h', directory, '-U', 'sallyport', '--inserts', database])).stdout,
    // Runs what dump() gave.
    load: (database, text) =>
      run(`${bin}/psql`, ['-h', directory, '-U', 'sallyport', '-d', database, '-v', 'ON_ERROR_STOP=1', '-q', '-o', '/dev/null'], { input: text }),
    process: server, logFile,
    // SIGINT is PostgreSQL's fast shutdown.
    close: async () => {
      await server.kill('SIGINT');
      await rm(directory, { recursive: true, force: true });
    },
  };
}

// `monitorFile` gets every command with its arguments. `more` are further arguments of the server.
export async function startRedis(directory, logFile, monitorFile, more = []) {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const socket = path.join(directory, 'redis.sock');
  const launch = () => start('redis-server', ['--port', '0', '--unixsocket', socket, '--save', '', '--dir', directory, ...more], { logFile });
  let server = launch();
  let monitor;
  const cli = (...args) => run('redis-cli', ['-s', socket, '--no-raw', ...args]);
  const ready = async () => {
    await waitFor(async () => (await cli('PING')).stdout.includes('PONG'), 'Redis', 10000, 50);
    // It ends with the server it watches.
    const before = await readFile(monitorFile, 'utf8').catch(() => '');
    monitor = start('redis-cli', ['-s', socket, 'MONITOR'], { logFile: monitorFile });
    await waitFor(async () => (await monitor.log()).slice(before.length).includes('OK'), 'MONITOR of Redis', 10000, 25);
  };
  await ready();
  return {
    address: `unix:${socket}`, cli, logFile,
    // All keys and values, as text.
    dump: async () => {
      const keys = (await run('redis-cli', ['-s', socket, '--scan'])).stdout.split('\n').filter(Boolean);
      const values = [];
      for (const key of keys) values.push(key, (await run('redis-cli', ['-s', socket, 'GET', key])).stdout);
      return values.join('\n');
    },
    kill: () => server.kill('SIGKILL'),
    restart: async () => {
      server = launch();
      await ready();
    },
    close: async () => {
      await monitor.stop();
      await server.stop();
    },
  };
}

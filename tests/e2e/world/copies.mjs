// SPDX-License-Identifier: Apache-2.0
// What somebody has who copied the vault's database and Redis, as a backup does, and what it is worth later.
import { randomBytes } from 'node:crypto';
import { chmod, copyFile, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { request } from './http-client.mjs';
import { freePort, waitFor } from './http.mjs';
import { ROOT } from './platforms.mjs';
import { run, start } from './processes.mjs';

const BIN = process.env.SALLYPORT_BIN ?? path.join(ROOT, 'build/dev/bin');

export const kekDirectory = (gateway) => path.join(gateway.postgres ? gateway.directory : gateway.dataDirectory, 'kek');

// Of the vault's database and, where there is one, Redis; and of the keys, which lie apart from them. All below `directory`.
export async function copyStores(gateway, directory) {
  const file = (name) => path.join(directory, name);
  await mkdir(file('kek'), { mode: 0o700 });
  await copyFile(path.join(kekDirectory(gateway), 'kek-1'), file('kek/kek-1'));
  await symlink('kek-1', file('kek/current'));
  if (!gateway.postgres) {
    const live = new DatabaseSync(path.join(gateway.dataDirectory, 'vault.db'));
    live.exec(`PRAGMA busy_timeout = 5000; VACUUM INTO '${file('vault.db')}'`);
    live.close();
    await chmod(file('vault.db'), 0o600);
    return;
  }
  await writeFile(file('vault.sql'), await gateway.postgres.dump('vault'), { mode: 0o600 });
  await gateway.redis.cli('SAVE');
  await copyFile(path.join(gateway.directory, 'redis/dump.rdb'), file('dump.rdb'));
  await rm(path.join(gateway.directory, 'redis/dump.rdb'));
}

// Puts Redis back as it was in the copy; nothing to do without one.
export async function restoreRedis(gateway, directory) {
  if (!gateway.redis) return;
  const dump = path.join(gateway.directory, 'redis/dump.rdb');
  await gateway.redis.kill();
  await copyFile(path.join(directory, 'dump.rdb'), dump);
  await gateway.redis.restart();
  await rm(dump);
}

// What a vault of the thief's own says that runs on the copy with the keys of `kek`: { status, body } of its readiness.
export async function openCopy(gateway, directory, kek) {
  const own = path.join(directory, `vault-${randomBytes(4).toString('hex')}`);
  const certificates = path.join(own, 'certs');
  await mkdir(own, { mode: 0o700 });
  await run(path.join(ROOT, 'tools/dev-certs'), [certificates]);
  let database = { sqlite: path.join(own, 'vault.db') };
  if (gateway.postgres) {
    const name = `stolen_${path.basename(own).slice('vault-'.length)}`;
    await gateway.postgres.psql('postgres', `CREATE DATABASE ${name}`);
    await gateway.postgres.load(name, await readFile(path.join(directory, 'vault.sql'), 'utf8'));
    database = { postgresql: gateway.postgres.connection(name) };
  } else {
    await copyFile(path.join(directory, 'vault.db'), database.sqlite);
  }
  const [listenPort, adminPort, nobody] = [await freePort(), await freePort(), await freePort()];
  const file = path.join(own, 'vault.yaml');
  await writeFile(file, JSON.stringify({
    server: {
      listen: `127.0.0.1:${listenPort}`, adminListen: `127.0.0.1:${adminPort}`,
      tls: {
        certificate: `${certificates}/vault.crt`, privateKey: `${certificates}/vault.key`, caBundle: `${certificates}/ca.crt`, trustDomain: 'sallyport.local',
      },
    },
    peers: { authn: `127.0.0.1:${nobody}`, registry: `127.0.0.1:${nobody}` }, deployment: { publicUrl: gateway.publicUrl }, database,
    kek: { directory: kek },
  }), { mode: 0o600 });
  const vault = start(path.join(BIN, 'sallyport-vault'), ['--config', file], { logFile: path.join(own, 'vault.log'), cwd: own });
  try {
    // Its first answers can be those of a start that goes on.
    let last;
    return await waitFor(async () => {
      if (!vault.alive) throw Object.assign(new Error(`the vault has ended:\n${await vault.log()}`), { fatal: true });
      const { status, body } = await request(`http://127.0.0.1:${adminPort}/readyz`, { headers: { Connection: 'close' } });
      last = { status, body };
      return (status === 200 || /kek|keyring|deployment/.test(body)) && last;
    }, 'the vault on the copy to say how it is', 20000, 100).catch((error) => { throw new Error(`${error.message} ${JSON.stringify(last)}`); });
  } finally {
    await vault.stop();
  }
}

// Replaces the key-encryption key as an operator does: another file, the link, `sallyport vault rewrap`, and the former file is gone.
export async function replaceKek(gateway) {
  const directory = kekDirectory(gateway);
  await writeFile(path.join(directory, 'kek-2'), randomBytes(32), { mode: 0o400 });
  await rm(path.join(directory, 'current'));
  await symlink('kek-2', path.join(directory, 'current'));
  const { stdout } = await gateway.cli(['vault', 'rewrap']);
  await rm(path.join(directory, 'kek-1'));
  return stdout;
}

// SPDX-License-Identifier: Apache-2.0
// Redis as operators have it: over TLS with a client certificate and a user of its ACL, with a broken certificate, and as the cluster it
// must not be.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { freePort, waitFor } from '../world/http.mjs';
import { remember } from '../world/secrets.mjs';
import { makeAuthority } from '../world/tls-upstream.mjs';

const ACL = ['resetchannels', '~sallyport:*', '&sallyport:doorbell', '+get', '+set', '+del', '+publish', '+subscribe', '+ping'];

const brokersOf = (topology) => topology === 'split' ? ['token_broker', 'token_broker_2'] : ['standalone'];
const sum = async ({ gateway, topology }, metric, labels) => {
  const values = await Promise.all(brokersOf(topology).map((name) => gateway.metric(name, metric, labels)));
  return values.reduce((all, value) => all + value, 0);
};
const failures = (world, reason) => sum(world, 'sallyport_redis_failures_total', { reason });
const handshakes = (world, kind) => sum(world, 'sallyport_redis_tls_handshakes_total', { kind });
// Lines of the brokers' logs about this kind of failure.
const said = async ({ gateway, topology }, reason) => {
  const logs = Object.fromEntries(await gateway.logFiles());
  return brokersOf(topology).flatMap((name) => logs[`${name}.log`].split('\n').filter(Boolean).map((line) => JSON.parse(line)))
    .filter((line) => line.event === 'redis_failed' && line.reason === reason);
};
const whoami = (world, token) => callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token });

for (const topology of TOPOLOGIES) {
  describe(`Redis over TLS, ${topology}`, () => {
    let world;
    let directory;
    let authority;
    let stranger;
    const password = `canary-redis-${randomBytes(12).toString('base64url')}`;
    const file = (name) => path.join(directory, name);
    const writePair = async (name, { certificate, key }) => {
      await writeFile(file(`${name}.crt`), certificate);
      await writeFile(file(`${name}.key`), key, { mode: 0o600 });
    };

    before(async () => {
      remember('password of Redis', password);
      directory = await mkdtemp(path.join(os.tmpdir(), 'sallyport-redis-tls-'));
      [authority, stranger] = await Promise.all([makeAuthority('redis'), makeAuthority('stranger')]);
      await writeFile(file('ca.crt'), authority.pem);
      await writeFile(file('password'), `${password}\n`, { mode: 0o600 });
      await writePair('server', await authority.forServer('DNS:redis.test'));
      await writePair('client', await authority.forClient('broker'));
      const port = await freePort();
      world = await startWorld(topology, {
        users: 8,
        gateway: {
          redis: {
            arguments: [
              '--tls-port', `${port}`, '--tls-cert-file', file('server.crt'), '--tls-key-file', file('server.key'),
              '--tls-ca-cert-file', file('ca.crt'), '--tls-auth-clients', 'yes', '--user', 'sallyport', 'on', `>${password}`, ...ACL,
            ],
            client: {
              // The name is the certificate's; the timeout is for a busy machine.
              address: `localhost:${port}`, username: 'sallyport', passwordFile: file('password'), timeout: '5s',
              tls: { caBundle: file('ca.crt'), certificate: file('client.crt'), privateKey: file('client.key'), serverName: 'redis.test' },
            },
          },
        },
      });
    });
    after(async () => {
      await world?.close();
      await Promise.all([authority?.close(), stranger?.close()]);
      if (directory) await rm(directory, { recursive: true, force: true });
    });

    const renewed = async (i) => {
      const { accessToken } = await obtainToken(world, 'github', world.persona(i));
      assert.equal(toolText(await whoami(world, accessToken)), world.account(i));
      world.provider.expireAccessTokens();
      assert.equal(toolText(await whoami(world, accessToken)), world.account(i));
    };

    it('holds tokens and rings the doorbell, with the rights that the manual names', async () => {
      const { redis } = world.gateway;
      await waitFor(async () => (await redis.cli('PUBSUB', 'NUMSUB', 'sallyport:doorbell')).stdout
        .includes(`(integer) ${brokersOf(topology).length}`), 'every broker to listen to the doorbell');
      await renewed(0);
      assert.match(await redis.dump(), /sallyport:token:/);
      const connections = (await redis.cli('CLIENT', 'LIST')).stdout;
      assert.ok(connections.includes('user=sallyport'), connections);
      assert.ok(await handshakes(world, 'full') > 0);
      for (const reason of ['tls', 'auth', 'refused', 'cluster', 'protocol']) assert.equal(await failures(world, reason), 0, reason);
      await assertNoSecretLeaked(world);
    });

    it('is not believed with a certificate of another authority, and nobody notices but the operator', async () => {
      const { redis } = world.gateway;
      await redis.kill();
      await writePair('server', await stranger.forServer('DNS:redis.test'));
      await redis.restart();
      await waitFor(async () => await failures(world, 'tls') > 0, 'a broker to meet the stranger');
      await renewed(1);
      assert.doesNotMatch(await redis.dump(), /sallyport:token:/);
      let line;
      await waitFor(async () => (line = (await said(world, 'tls')).find(({ error }) => /set redis\.tls\.caBundle/.test(error))), 'the remedy in the log');
      assert.equal(line.level, 'error');
      assert.doesNotMatch((await redis.cli('CLIENT', 'LIST')).stdout, /user=sallyport/);
    });

    it('is used again once its certificate is good', async () => {
      const { redis } = world.gateway;
      await redis.kill();
      await writePair('server', await authority.forServer('DNS:redis.test'));
      await redis.restart();
      await waitFor(async () => (await redis.cli('PUBSUB', 'NUMSUB', 'sallyport:doorbell')).stdout
        .includes(`(integer) ${brokersOf(topology).length}`), 'every broker to listen again', 30000);
      // Those who failed leave it out for a second.
      let next = 2;
      await waitFor(async () => {
        await renewed(next++);
        return /sallyport:token:/.test(await redis.dump());
      }, 'tokens in it again', 4000, 700);
    });
  });

  describe(`a node of a Redis Cluster, ${topology}`, () => {
    let world;
    let directory;
    before(async () => {
      directory = await mkdtemp(path.join(os.tmpdir(), 'sallyport-redis-cluster-'));
      const bus = await freePort();
      const nodes = path.join(directory, 'nodes.conf');
      // Another node, which is not there, has every slot.
      await writeFile(nodes, [
        `${'a'.repeat(40)} 127.0.0.1:0@${bus} myself,master - 0 0 1 connected`,
        `${'b'.repeat(40)} 127.0.0.1:1@2 master - 0 0 2 connected 0-16383`,
        'vars currentEpoch 2 lastVoteEpoch 0', '',
      ].join('\n'));
      world = await startWorld(topology, {
        users: 1,
        gateway: {
          redis: {
            arguments: ['--cluster-enabled', 'yes', '--cluster-port', `${bus}`, '--cluster-config-file', nodes, '--cluster-allow-reads-when-down', 'yes'],
            client: { timeout: '5s' },
          },
        },
      });
    });
    after(async () => {
      // MONITOR does not show what a node turns away, which the sweep would miss.
      await world?.close({ sweep: false });
      if (directory) await rm(directory, { recursive: true, force: true });
    });

    it('costs nobody a call, and is named once with the remedy', async () => {
      const { accessToken } = await obtainToken(world, 'github', world.persona(0));
      assert.equal(toolText(await whoami(world, accessToken)), world.account(0));
      world.provider.expireAccessTokens();
      assert.equal(toolText(await whoami(world, accessToken)), world.account(0));
      await waitFor(async () => await failures(world, 'cluster') > 1, 'a second refusal');
      const lines = await said(world, 'cluster');
      assert.ok(lines.length >= 1 && lines.length <= brokersOf(topology).length, JSON.stringify(lines));
      assert.match(lines[0].error, /Redis Cluster \((MOVED|CLUSTERDOWN)\).*redis\.address/);
    });
  });
}

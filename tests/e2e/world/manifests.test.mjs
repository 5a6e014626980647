// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Manifests, startNameServer } from './manifests.mjs';

// A question for the addresses of a name, of a kind (A: 1, AAAA: 28), and the answer's addresses.
async function ask(server, name, kind = 1) {
  const labels = name.split('.').map((label) => Buffer.from([label.length, ...Buffer.from(label)]));
  const query = Buffer.concat([Buffer.from([7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]), ...labels, Buffer.from([0, 0, kind, 0, 1])]);
  const socket = dgram.createSocket('udp4');
  const [host, port] = server.address.split(':');
  const answer = await new Promise((resolve, reject) => {
    socket.once('message', resolve);
    socket.once('error', reject);
    socket.send(query, Number(port), host);
  });
  socket.close();
  assert.deepEqual([...answer.subarray(0, 2)], [7, 7]);
  const count = answer.readUInt16BE(6);
  return Array.from({ length: count }, (_, i) => [...answer.subarray(query.length + i * 16 + 12, query.length + i * 16 + 16)].join('.'));
}

test('the name server answers with all replicas of a name, whatever domain is searched', async () => {
  const server = await startNameServer((name) => name === 'gw-authn' ? ['127.1.2.3', '127.1.2.4'] : []);
  try {
    assert.deepEqual(await ask(server, 'gw-authn'), ['127.1.2.3', '127.1.2.4']);
    assert.deepEqual(await ask(server, 'gw-authn.gateway.svc.cluster.local'), ['127.1.2.3', '127.1.2.4']);
    assert.deepEqual(await ask(server, 'gw-vault'), []);
    assert.deepEqual(await ask(server, 'gw-authn', 28), []);
  } finally {
    await server.close();
  }
});

const CONTAINER = {
  command: ['sallyport-vault'], args: ['--config', '/etc/sallyport/config/config.yaml'], env: [{ name: 'EXTRA', value: '1' }],
  ports: [{ name: 'grpc', containerPort: 7003 }, { name: 'admin', containerPort: 9003 }],
  startupProbe: { httpGet: { path: '/livez', port: 'admin' } }, readinessProbe: { httpGet: { path: '/readyz', port: 'admin' } },
  livenessProbe: { httpGet: { path: '/livez', port: 'admin' } },
  volumeMounts: [{ name: 'config', mountPath: '/etc/sallyport/config' }, { name: 'kek', mountPath: '/etc/sallyport/kek' }],
};
const CONFIG = {
  server: { listen: '0.0.0.0:7003' }, peers: { authn: 'dns:///gw-sallyport-authn:7001' }, kek: { directory: '/etc/sallyport/kek' },
};

function documents(change = {}) {
  return [
    { kind: 'Service', metadata: { name: 'gw-sallyport-vault' }, spec: { clusterIP: 'None' } },
    { kind: 'ConfigMap', metadata: { name: 'vault' }, parsed: { 'config.yaml': { ...CONFIG, ...change } } },
    {
      kind: 'Deployment', metadata: { name: 'gw-sallyport-vault' },
      spec: { template: { spec: {
        containers: [CONTAINER],
        volumes: [{ name: 'config', configMap: { name: 'vault' } }, { name: 'kek', secret: { secretName: 'kek', defaultMode: 0o440 } }],
      } } },
    },
  ];
}

let directory;
before(async () => { directory = await mkdtemp(path.join(os.tmpdir(), 'sallyport-manifests-')); });
after(() => rm(directory, { recursive: true, force: true }));

function manifestsOf(change) {
  const manifests = new Manifests(directory);
  manifests.documents = documents(change);
  manifests.names = { address: '127.0.0.1:5353', close: async () => {} };
  return manifests;
}

test('a pod has its own address, its files where it mounts them, and its own environment', async () => {
  const manifests = manifestsOf();
  manifests.kek();
  const pod = manifests.plan('vault', 'vault');
  const planned = await manifests.prepare(pod);
  assert.equal(planned.program, 'sallyport-vault');
  assert.equal(planned.env.EXTRA, '1');
  assert.equal(planned.env.HOME, undefined);
  assert.deepEqual(planned.args, ['--config', path.join(pod.root, 'etc/sallyport/config/config.yaml')]);
  const config = JSON.parse(await readFile(planned.file, 'utf8'));
  assert.equal(config.server.listen, `${pod.address}:7003`);
  assert.equal(config.peers.authn, 'dns://127.0.0.1:5353/gw-sallyport-authn:7001');
  assert.equal(config.kek.directory, path.join(pod.root, 'etc/sallyport/kek'));
  const { mode, size } = await stat(path.join(config.kek.directory, 'current'));
  assert.deepEqual([mode & 0o777, size], [0o440, 32]);
  assert.equal(planned.probes.readinessProbe, `http://${pod.address}:9003/readyz`);
});

test('a Secret that is not there keeps a pod from starting', async () => {
  const manifests = manifestsOf();
  await assert.rejects(manifests.prepare(manifests.plan('vault', 'vault')), /there is no Secret kek/);
});

test('a file that the configuration names and nothing mounts is an error', async () => {
  const manifests = manifestsOf({ database: { passwordFile: '/etc/sallyport/postgresql/password' } });
  manifests.kek();
  await assert.rejects(manifests.prepare(manifests.plan('vault', 'vault')), /postgresql\/password is not mounted/);
});

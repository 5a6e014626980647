// SPDX-License-Identifier: Apache-2.0
// The gateway of a test in split mode as the Helm chart would start it: SALLYPORT_MANIFESTS=1.
import assert from 'node:assert/strict';
import { mkdir, readFile, symlink } from 'node:fs/promises';
import path from 'node:path';
import { request } from './http-client.mjs';
import { freePort } from './http.mjs';
import { Manifests } from './manifests.mjs';

const MOUNTED = '/etc/sallyport/secrets';
// Replicas by the names that tests use. One of edge_2 only where a test wants a second edge.
const REPLICAS = [
  ['vault', 'vault'], ['registry', 'registry'], ['authn', 'authn'], ['token_broker', 'token-broker'], ['token_broker_2', 'token-broker'],
  ['edge', 'edge'],
];

// Volumes are where tests look for them.
const DIRECTORIES = {
  vault: ['kek', '/etc/sallyport/kek'], authn: ['authn-data', '/var/lib/sallyport'], token_broker: ['broker-data', '/var/lib/sallyport'],
  token_broker_2: ['broker-data-2', '/var/lib/sallyport'], edge: ['edge-data', '/var/lib/sallyport'], edge_2: ['edge_2-data', '/var/lib/sallyport'],
};

// Client secrets are files of the test; in a cluster they are keys of a Secret.
async function asSecret(manifests, settings, files) {
  if (!settings?.clientSecretFile) return settings;
  const file = path.basename(settings.clientSecretFile);
  files.push({ file, secretKeyRef: { name: `test-${file}`, key: 'value' } });
  manifests.secret(`test-${file}`, { value: await readFile(settings.clientSecretFile) });
  return { ...settings, clientSecretFile: `${MOUNTED}/${file}` };
}

async function valuesOf(gateway, manifests) {
  const { settings } = gateway;
  const secretFiles = [];
  const connectors = [];
  for (const connector of gateway.connectors) {
    connectors.push(connector.oidc ? { ...connector, oidc: await asSecret(manifests, connector.oidc, secretFiles) } : connector);
  }
  const clients = [];
  for (const client of gateway.clients ?? []) clients.push(await asSecret(manifests, client, secretFiles));
  // PostgreSQL trusts whoever reaches its socket; the password is read all the same.
  const passwordSecret = { ...manifests.secret('postgresql', { password: 'not-asked-for' }), key: 'password' };
  const [, host] = /host=(\S+)/.exec(gateway.postgres.connection('vault'));
  const database = (name) => ({ name, user: 'sallyport', passwordSecret });
  return {
    mode: 'split', logLevel: 'debug', deployment: gateway.deployment, connectors, clients, secretFiles, roles: settings.roles ?? {},
    tls: { mode: 'secret' }, kek: { existingSecret: manifests.kek(), create: false }, networkPolicy: { enabled: false },
    postgresql: {
      host, sslmode: 'disable', databases: { vault: database('vault'), registry: database('registry'), authn: database('authn') },
    },
    redis: { address: gateway.redis.address },
    edge: { tls: gateway.tls ? { mode: 'secret', secret: 'public' } : { mode: 'none' }, config: settings.edge ?? {} },
    tokenBroker: { config: settings.broker ?? {} },
    vault: { config: settings.vault ?? {} },
    registry: { config: settings.registry ?? {} },
    authn: {
      // For the one-time admin token.
      extraVolumes: [{ name: 'data', emptyDir: {} }], extraVolumeMounts: [{ name: 'data', mountPath: '/var/lib/sallyport' }],
      config: {
        dataDirectory: '/var/lib/sallyport', accessTokenLifetime: settings.accessTokenLifetime, sessionLifetime: settings.sessionLifetime,
        ...settings.authn,
      },
    },
  };
}

// Starts every pod; `add(name, planned)` makes a service of the gateway of it.
export async function startFromManifests(gateway, add) {
  const manifests = new Manifests(gateway.directory);
  gateway.manifests = manifests;
  await manifests.certificates(gateway.certificates);
  await manifests.render(await valuesOf(gateway, manifests));
  const replicas = [...REPLICAS];
  const published = { edge: `127.0.0.1:${gateway.port}` };
  if (gateway.settings.secondEdge) {
    replicas.push(['edge_2', 'edge']);
    published.edge_2 = `127.0.0.1:${await freePort()}`;
    gateway.secondEdgeOrigin = `${new URL(gateway.publicUrl).protocol}//${published.edge_2}`;
  }
  // All first: the name server knows every replica before anything asks.
  const pods = replicas.map(([name, component]) => manifests.plan(name, component));
  const own = (name) => ({ ...(/^(edge|token_broker)/.test(name) ? { replica: name } : {}), ...gateway.settings.brokers?.[name] });
  for (const { root, name } of pods) {
    const [directory, mountPath] = DIRECTORIES[name] ?? [];
    if (!directory) continue;
    const inside = path.join(root, mountPath);
    await mkdir(path.join(gateway.directory, directory), { mode: 0o700 });
    await mkdir(path.dirname(inside), { recursive: true });
    await symlink(path.join(gateway.directory, directory), inside);
  }
  for (const pod of pods) add(pod.name, await manifests.prepare(pod, { published: published[pod.name], override: own(pod.name) }));
}

// Every probe of the manifests says yes once the gateway is ready.
export async function checkProbes(gateway) {
  for (const { name, probes } of gateway.services.values()) {
    for (const [kind, url] of Object.entries(probes)) {
      const { status } = await request(url, { headers: { Connection: 'close' } });
      assert.equal(status, 200, `${kind} of ${name} at ${url}`);
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Runs what the Helm chart renders for split mode: each pod's container is a process with the command, arguments, environment, ConfigMaps,
// Secrets and probes of the manifest. A pod has an address of its own on loopback and a root directory for its mounts. A name server
// answers for the headless Services, so that clients find all replicas as they do in a cluster.
import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import dgram from 'node:dgram';
import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './processes.mjs';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const CHART = path.join(ROOT, 'deploy/helm/sallyport');
const HELM = process.env.HELM ?? path.join(ROOT, 'build/helm/bin/helm');
const RELEASE = 'gw';
const PREFIX = `${RELEASE}-sallyport`;
// Readable without a parser of YAML: documents, and what ConfigMaps hold as files.
const TO_JSON = `
import json, sys, yaml
documents = [one for one in yaml.safe_load_all(sys.stdin) if one]
for one in documents:
    if one["kind"] == "ConfigMap":
        one["parsed"] = {name: yaml.safe_load(text) for name, text in one["data"].items() if name.endswith(".yaml")}
json.dump(documents, sys.stdout)
`;

export const USES_MANIFESTS = process.env.SALLYPORT_MANIFESTS === '1';

export async function renderChart(values, valuesFile) {
  await writeFile(valuesFile, JSON.stringify(values, null, 2), { mode: 0o600 });
  if (!existsSync(HELM)) throw new Error(`${HELM} is not there: run tests/helm/install`);
  const { stdout } = await run(HELM, ['template', RELEASE, CHART, '--namespace', 'gateway', '--kube-version', '1.36.0', '--values', valuesFile]);
  return JSON.parse((await run('/usr/bin/python3', ['-c', TO_JSON], { input: stdout })).stdout);
}

// A name server on loopback: `addresses(name)` are those of the first label of a name (RFC 1035 section 4.1).
export async function startNameServer(addresses) {
  const socket = dgram.createSocket('udp4');
  socket.on('message', (query, from) => {
    let end = 12;
    while (end < query.length && query[end] !== 0) end += query[end] + 1;
    if (end + 5 > query.length) return;
    const name = query.toString('latin1', 13, 13 + query[12]).toLowerCase();
    const found = query.readUInt32BE(end + 1) === 0x00010001 ? addresses(name) : [];
    const head = Buffer.alloc(12);
    query.copy(head, 0, 0, 2);
    head.writeUInt16BE(0x8500, 2);
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(found.length, 6);
    const answers = found.map((address) =>
      Buffer.from([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, ...address.split('.').map(Number)]));
    socket.send(Buffer.concat([head, query.subarray(12, end + 5), ...answers]), from.port, from.address);
  });
  await new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(0, '127.0.0.1', resolve);
  });
  return { address: `127.0.0.1:${socket.address().port}`, close: () => new Promise((resolve) => { socket.close(resolve); }) };
}

export class Manifests {
  pods = new Map();  // Name of the service in the tests -> pod.
  #secrets = new Map();  // Name -> { key: bytes }.

  constructor(directory) {
    this.directory = directory;
    // Each gateway has a block of its own: ports are those of the manifests.
    this.network = `127.${randomInt(1, 250)}.${randomInt(1, 250)}`;
  }

  secret(name, data) {
    this.#secrets.set(name, data);
    return { name };
  }

  // Certificates of tools/dev-certs as the Secrets that the chart names.
  async certificates(directory) {
    const read = (name) => readFile(path.join(directory, name));
    for (const service of ['edge', 'authn', 'token_broker', 'vault', 'registry']) {
      this.secret(`${PREFIX}-${service.replace('_', '-')}-tls`, {
        'tls.crt': await read(`${service}.crt`), 'tls.key': await read(`${service}.key`), 'ca.crt': await read('ca.crt'),
      });
    }
    this.secret('public', { 'tls.crt': await read('edge-public.crt'), 'tls.key': await read('edge-public.key') });
  }

  kek() {
    return this.secret('kek', { current: randomBytes(32) }).name;
  }

  async render(values) {
    this.documents = await renderChart(values, path.join(this.directory, 'values.json'));
    this.names = await startNameServer((name) =>
      [...this.pods.values()].filter((pod) => `${PREFIX}-${pod.component}` === name).map((pod) => pod.address));
  }

  #object(kind, name) {
    const found = this.documents.find((one) => one.kind === kind && one.metadata.name === name);
    assert.ok(found, `the chart renders no ${kind} ${name}`);
    return found;
  }

  // The pod of replica `name`; prepare() makes its files.
  plan(name, component) {
    const deployment = this.#object('Deployment', `${PREFIX}-${component}`);
    const { spec } = deployment.spec.template;
    const [container, ...others] = spec.containers;
    assert.equal(others.length, 0, `${component} has one container`);
    const service = this.#object('Service', `${PREFIX}-${component}`);
    assert.equal(service.spec.clusterIP, 'None');
    const pod = {
      name, component, spec, container, address: `${this.network}.${this.pods.size + 1}`, root: path.join(this.directory, 'pods', name),
      ports: Object.fromEntries(container.ports.map((port) => [port.name, port.containerPort])),
    };
    this.pods.set(name, pod);
    return pod;
  }

  // Where a path of the container is. Others are files of the machine.
  #inside(pod, text) {
    const mount = pod.container.volumeMounts.find(({ mountPath }) => text === mountPath || text.startsWith(`${mountPath}/`));
    return mount ? path.join(pod.root, text) : text;
  }

  async #write(file, bytes, mode) {
    await mkdir(path.dirname(file), { recursive: true });
    // Whole or not at all, as kubelet does it.
    await writeFile(`${file}.new`, bytes, { mode: 0o600 });
    await chmod(`${file}.new`, mode);
    await rename(`${file}.new`, file);
  }

  async #project(pod, mountPath, data, items, mode, what) {
    const files = items ?? Object.keys(data).map((key) => ({ key, path: key }));
    for (const item of files) {
      assert.ok(data[item.key] !== undefined, `${pod.name}: ${what} has no key ${item.key}: the pod would not start`);
      await this.#write(path.join(pod.root, mountPath, item.path), data[item.key], item.mode ?? mode);
    }
  }

  async #mountSecret(pod, mountPath, name, items, mode = 0o644) {
    const data = this.#secrets.get(name);
    assert.ok(data, `${pod.name}: there is no Secret ${name}: the pod would not start`);
    await this.#project(pod, mountPath, data, items, mode, `Secret ${name}`);
  }

  async #mount(pod, { name, mountPath }) {
    const volume = pod.spec.volumes.find((one) => one.name === name);
    assert.ok(volume, `${pod.name}: there is no volume ${name}`);
    await mkdir(path.join(pod.root, mountPath), { recursive: true, mode: 0o700 });
    if (volume.secret) await this.#mountSecret(pod, mountPath, volume.secret.secretName, volume.secret.items, volume.secret.defaultMode);
    for (const source of volume.projected?.sources ?? []) {
      assert.ok(source.secret, `${pod.name}: a source of ${name} is of a kind that only a cluster has`);
      await this.#mountSecret(pod, mountPath, source.secret.name, source.secret.items, volume.projected.defaultMode);
    }
    assert.ok(volume.secret || volume.projected || volume.emptyDir || volume.configMap, `${pod.name}: ${name} is of an unknown kind`);
  }

  // Addresses and paths of the pod as they are on this machine. Every file that the configuration names must be mounted.
  #localize(pod, value, published) {
    if (Array.isArray(value)) return value.map((one) => this.#localize(pod, one, published));
    if (value && typeof value === 'object') {
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, this.#localize(pod, one, published)]));
    }
    if (typeof value !== 'string') return value;
    if (value === `0.0.0.0:${pod.ports.public}` && published) return published;
    if (value.startsWith('0.0.0.0:')) return value.replace('0.0.0.0', pod.address);
    if (value.startsWith('dns:///')) return value.replace('dns:///', `dns://${this.names.address}/`);
    if (!value.startsWith('/')) return value;
    const local = this.#inside(pod, value);
    assert.ok(local !== value || existsSync(value), `${pod.name}: ${value} is not mounted`);
    return local;
  }

  // Makes the files of a pod and says how to start it. `published`: the address on which the public port is reached. `override`: settings of this
  // replica alone, which no Deployment has.
  async prepare(pod, { published, override = {} } = {}) {
    for (const mount of pod.container.volumeMounts) await this.#mount(pod, mount);
    const config = pod.container.volumeMounts.find(({ name }) => name === 'config');
    const map = this.#object('ConfigMap', pod.spec.volumes.find(({ name }) => name === 'config').configMap.name);
    const settings = { ...this.#localize(pod, map.parsed['config.yaml'], published), ...override };
    const file = path.join(pod.root, config.mountPath, 'config.yaml');
    await this.#write(file, `${JSON.stringify(settings, null, 2)}\n`, 0o644);
    const sanitizers = Object.entries(process.env).filter(([name]) => /^[ATU]B?SAN_OPTIONS$/.test(name));
    const env = { PATH: process.env.PATH, ...Object.fromEntries(sanitizers) };
    for (const { name, value } of pod.container.env ?? []) env[name] = value;
    return {
      program: pod.container.command[0], args: pod.container.args.map((argument) => this.#inside(pod, argument)), env, file, config: settings,
      adminUrl: `http://${pod.address}:${pod.ports[pod.container.readinessProbe.httpGet.port]}`,
      probes: Object.fromEntries(['startupProbe', 'readinessProbe', 'livenessProbe'].map((kind) => [kind, this.#probe(pod, kind)])),
    };
  }

  #probe(pod, kind) {
    const { path: target, port } = pod.container[kind].httpGet;
    assert.ok(pod.ports[port], `${pod.name}: ${kind} names a port that the container does not have`);
    return `http://${pod.address}:${pod.ports[port]}${target}`;
  }

  // The Secrets again in each pod, after they have changed.
  async remount() {
    for (const pod of this.pods.values()) {
      for (const mount of pod.container.volumeMounts) {
        if (pod.spec.volumes.find(({ name }) => name === mount.name)?.secret) await this.#mount(pod, mount);
      }
    }
  }

  async close() {
    await this.names?.close();
  }
}

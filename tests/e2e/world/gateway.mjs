// SPDX-License-Identifier: Apache-2.0
// The system under test, in either topology: `standalone` (one process, embedded stores) or `split` (one process per service with
// mTLS between them, two brokers, PostgreSQL, Redis).
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { request, trust } from './http-client.mjs';
import { freePort, waitFor } from './http.mjs';
import { USES_MANIFESTS } from './manifests.mjs';
import { checkProbes, startFromManifests } from './manifests-gateway.mjs';
import { run, start } from './processes.mjs';
import { remember } from './secrets.mjs';
import { startPostgres, startRedis } from './stores.mjs';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const BIN = process.env.SALLYPORT_BIN ?? path.join(ROOT, 'build/dev/bin');
const LOOPBACK = ['127.0.0.0/8'];
const GRACE_MS = 30000;  // What SIGTERM may take at most, and some.
// Files that are keys.
const KEYS = /^(?:data\/)?kek\/|^certs\/.*\.key$/;
// What a pod is given to read.
const MOUNTED = /^pods\/[^/]+\/etc\//;
const CLI_TOKEN = /^home\/\.config\/sallyport\/credentials\.json$/;

export const TOPOLOGIES = (process.env.SALLYPORT_TOPOLOGIES ?? 'standalone,split').split(',').filter(Boolean);

// Prepares a gateway without starting it, so that its public URL is known to what must be registered elsewhere first.
export async function reserveGateway(topology, { tls = false } = {}) {
  const port = await freePort();
  return { topology, port, tls, publicUrl: `${tls ? 'https' : 'http'}://127.0.0.1:${port}` };
}

// settings: connectors[] (config.v1.Connector), clients[] (config.v1.RegisteredClient), roles, accessTokenLifetime, sessionLifetime,
// edge/broker/…: overrides per service; brokers: the same for one replica, by its name. redis: { arguments, client }: further arguments of
// Redis and settings of its client (config.v1.TokenBrokerConfig.Redis); with it, standalone has a Redis too.
// database: overrides for the database of each service (split).
export async function startGateway(reserved, settings = {}) {
  const program = path.join(BIN, reserved.topology === 'split' ? 'sallyport-edge' : 'sallyport-standalone');
  if (!existsSync(program)) throw new Error(`${program} is not built`);
  const directory = await mkdtemp(path.join(os.tmpdir(), `sallyport-${reserved.topology}-`));
  const gateway = new Gateway(reserved, settings, directory);
  try {
    await (reserved.topology === 'split' ? gateway.startSplit() : gateway.startStandalone());
    await gateway.ready();
    return gateway;
  } catch (error) {
    const logs = await gateway.logTail();
    await gateway.close().catch(() => {});  // What was half started need not end well.
    throw new Error(`${error.message}\n${logs}`, { cause: error });
  }
}

function isLogLine(line) {
  try {
    const { ts, level, service, event } = JSON.parse(line);
    return [ts, level, service, event].every((field) => typeof field === 'string');
  } catch {
    return false;
  }
}

class Gateway {
  services = new Map();  // name -> { command, config, adminUrl, process }

  constructor({ topology, port, tls, publicUrl }, settings, directory) {
    Object.assign(this, { topology, port, tls, publicUrl, settings, directory, certificates: path.join(directory, 'certs') });
    this.logs = path.join(directory, 'logs');
    this.home = path.join(directory, 'home');
    this.secretFiles = 0;
  }

  mcpUrl(slug) { return `${this.publicUrl}/mcp/${slug}`; }

  get deployment() {
    return { publicUrl: this.publicUrl, egress: { upstreamNetworks: LOOPBACK, oauthNetworks: LOOPBACK }, ...this.settings.deployment };
  }

  // Client secrets are read from files; `clientSecret` here is put into one.
  async #withSecretFile({ clientSecret, ...settings }) {
    if (!clientSecret) return settings;
    const clientSecretFile = path.join(this.directory, `client-secret-${this.secretFiles++}`);
    await writeFile(clientSecretFile, clientSecret, { mode: 0o600 });
    remember('client_secret', clientSecret);
    return { ...settings, clientSecretFile };
  }

  async #connectors() {
    const all = [];
    for (const connector of this.settings.connectors ?? []) {
      all.push(connector.oidc ? { ...connector, oidc: await this.#withSecretFile(connector.oidc) } : connector);
    }
    return all;
  }

  async #clients() {
    const all = [];
    for (const client of this.settings.clients ?? []) all.push(await this.#withSecretFile(client));
    return all.length > 0 ? all : undefined;
  }

  async #add(name, program, config, adminPort) {
    const file = path.join(this.directory, `${name}.yaml`);
    // JSON is YAML.
    await writeFile(file, `${JSON.stringify(config, null, 2)}\n`, { mode: 0o600 });
    this.services.set(name, {
      name, command: path.join(BIN, program), file, config, adminUrl: `http://127.0.0.1:${adminPort}`, logFile: path.join(this.logs, `${name}.log`),
    });
    this.startService(name);
  }

  startService(name) {
    const service = this.services.get(name);
    const { command, args = ['--config', service.file], env, logFile } = service;
    service.process = start(command, args, { logFile, cwd: this.directory, env });
  }

  async #prepare() {
    await mkdir(this.logs, { recursive: true });
    await mkdir(this.home, { recursive: true });
    this.connectors = await this.#connectors();
    this.clients = await this.#clients();
  }

  // Certificates of the services and of the public port; tests trust their authority.
  async #certify() {
    await run(path.join(ROOT, 'tools/dev-certs'), [this.certificates]);
    this.caFile = path.join(this.certificates, 'ca.crt');
    if (this.tls) trust(await readFile(this.caFile, 'utf8'));
  }

  // New certificates in place of the old ones, of the same authority.
  async renewCertificates() {
    await run(path.join(ROOT, 'tools/dev-certs'), [this.certificates]);
    await this.manifests?.certificates(this.certificates);
    await this.manifests?.remount();
    await this.rememberKeys();
  }

  // Sets this.redis and returns the brokers' settings for it.
  async #startRedis() {
    const { arguments: more, client } = this.settings.redis ?? {};
    this.redis = await startRedis(path.join(this.directory, 'redis'), path.join(this.logs, 'redis.log'),
      path.join(this.logs, 'redis-monitor.log'), more);
    return { address: this.redis.address, ...client };
  }

  // Of the public port; undefined: plain HTTP.
  get #publicTls() {
    return this.tls
      ? { certificate: path.join(this.certificates, 'edge-public.crt'), privateKey: path.join(this.certificates, 'edge-public.key') } : undefined;
  }

  async startStandalone() {
    await this.#prepare();
    if (this.tls) await this.#certify();
    this.dataDirectory = path.join(this.directory, 'data');
    this.adminTokenFile = path.join(this.dataDirectory, 'admin-token');
    const adminPort = await freePort();
    const { roles, accessTokenLifetime, sessionLifetime, standalone } = this.settings;
    const redis = this.settings.redis && await this.#startRedis();
    await this.#add('standalone', 'sallyport-standalone', {
      dataDirectory: this.dataDirectory, deployment: this.deployment, listen: `127.0.0.1:${this.port}`,
      tls: this.#publicTls, adminListen: `127.0.0.1:${adminPort}`, logLevel: 'debug', connectors: this.connectors, clients: this.clients, roles,
      accessTokenLifetime, sessionLifetime, redis, ...standalone,
    }, adminPort);
  }

  async startSplit() {
    await this.#prepare();
    const { certificates } = this;
    const dir = (name) => path.join(this.directory, name);
    const [postgres, redis] = await Promise.all([
      startPostgres(path.join(this.logs, 'postgres.log'), ['vault', 'registry', 'authn']), this.#startRedis(), this.#certify(),
    ]);
    this.postgres = postgres;
    if (USES_MANIFESTS) {
      this.adminTokenFile = path.join(dir('authn-data'), 'admin-token');
      await startFromManifests(this, (name, { program, ...planned }) => {
        this.services.set(name, { name, command: path.join(BIN, program), logFile: path.join(this.logs, `${name}.log`), ...planned });
        this.startService(name);
      });
      return;
    }
    const { roles, accessTokenLifetime, sessionLifetime } = this.settings;
    const names = ['vault', 'registry', 'authn', 'token_broker', 'token_broker_2', 'edge', 'edge_2'];
    const ports = Object.fromEntries(await Promise.all(names.map(async (name) =>
      [name, { rpc: await freePort(), admin: await freePort() }])));
    const tls = (service) => ({
      certificate: `${certificates}/${service}.crt`, privateKey: `${certificates}/${service}.key`, caBundle: `${certificates}/ca.crt`,
      trustDomain: 'sallyport.local',
    });
    const server = (name, service = name) => ({
      listen: `127.0.0.1:${ports[name].rpc}`, tls: tls(service), adminListen: `127.0.0.1:${ports[name].admin}`, logLevel: 'debug',
    });
    const target = (name) => `127.0.0.1:${ports[name].rpc}`;
    const peers = (...services) => Object.fromEntries(services.map((service) => [
      service === 'token_broker' ? 'tokenBroker' : service,
      service === 'token_broker' ? `ipv4:${target('token_broker')},${target('token_broker_2')}` : target(service),
    ]));
    for (const data of ['kek', 'authn-data', 'broker-data', 'broker-data-2', 'edge-data', 'edge_2-data']) await mkdir(dir(data), { mode: 0o700 });
    this.adminTokenFile = path.join(dir('authn-data'), 'admin-token');
    const { deployment } = this;
    const database = (name) => ({ postgresql: this.postgres.connection(name), ...this.settings.database });
    const add = (name, program, config) => this.#add(name, program, config, ports[name].admin);
    await add('vault', 'sallyport-vault', {
      server: server('vault'), peers: peers('authn', 'registry'), deployment, database: database('vault'),
      kek: { directory: dir('kek') },
      ...this.settings.vault,
    });
    await add('registry', 'sallyport-registry', {
      server: server('registry'), peers: peers('vault', 'authn'), database: database('registry'), deployment, ...this.settings.registry,
    });
    await add('authn', 'sallyport-authn', {
      server: server('authn'), peers: peers('vault', 'registry', 'token_broker'), database: database('authn'), deployment, connectors: this.connectors,
      clients: this.clients, roles, dataDirectory: dir('authn-data'), accessTokenLifetime, sessionLifetime, ...this.settings.authn,
    });
    const broker = (name, data) => add(name, 'sallyport-token-broker', {
      server: server(name, 'token_broker'), peers: peers('authn', 'vault', 'registry'), deployment,
      redis, dataDirectory: dir(data), replica: name, ...this.settings.broker,
      ...this.settings.brokers?.[name],
    });
    await broker('token_broker', 'broker-data');
    await broker('token_broker_2', 'broker-data-2');
    const edge = (name, port, tokenBroker) => add(name, 'sallyport-edge', {
      server: server(name, 'edge'), peers: { ...peers('authn', 'token_broker', 'vault', 'registry'), ...(tokenBroker ? { tokenBroker } : {}) },
      deployment, listen: `127.0.0.1:${port}`, tls: this.#publicTls, dataDirectory: dir(`${name}-data`), replica: name,
      ...this.settings.edge,
    });
    // With a second edge, each edge has a broker of its own, so that work for one user reaches both brokers.
    const { secondEdge } = this.settings;
    await edge('edge', this.port, secondEdge && target('token_broker'));
    if (secondEdge) {
      this.secondEdgeOrigin = `${new URL(this.publicUrl).protocol}//127.0.0.1:${await freePort()}`;
      await edge('edge_2', new URL(this.secondEdgeOrigin).port, target('token_broker_2'));
    }
  }

  // Waits until every service says it is ready.
  async ready(ms = 30000) {
    await Promise.all([...this.services.keys()].map((name) => this.serviceReady(name, ms)));
    if (this.manifests) await checkProbes(this);
  }

  async serviceReady(name, ms = 30000) {
    const service = this.services.get(name);
    let last = 'no answer';
    await waitFor(async () => {
      if (!service.process.alive) {
        throw Object.assign(new Error(`${name} has ended: ${JSON.stringify(await service.process.ended)}`), { fatal: true });
      }
      const response = await request(`${service.adminUrl}/readyz`, { headers: { Connection: 'close' }, timeoutMs: 2000 });
      last = `${response.status} ${response.body}`;
      return response.status === 200;
    }, `${name} to be ready`, ms).catch((error) => { throw new Error(`${error.message} (${last})`); });
  }

  // kill -9, and the time at which the process was gone.
  async kill(name) {
    await this.services.get(name).process.kill('SIGKILL');
    return Date.now();
  }

  async restart(name) {
    this.startService(name);
    await this.serviceReady(name);
  }

  // The command line tool, with a home directory of its own.
  cli(args, options = {}) {
    return run(path.join(BIN, 'sallyport'), args, {
      ...options,
      env: {
        PATH: process.env.PATH, HOME: this.home, XDG_CONFIG_HOME: path.join(this.home, '.config'),
        ...(this.tls ? { SALLYPORT_CA_FILE: this.caFile } : {}), ...options.env,
      },
    });
  }

  // Redeems the one-time token once; later calls do nothing.
  async login() {
    if (this.apiToken) return;
    await waitFor(() => existsSync(this.adminTokenFile), 'the admin token file');
    const token = (await readFile(this.adminTokenFile, 'utf8')).trim();
    await this.cli(['login', '--url', this.publicUrl, '--admin-token-file', this.adminTokenFile]);
    this.adminToken = token;
    // The tool keeps its API token in a file below its home directory; the tests' own API calls use it too.
    for (const entry of await readdir(this.home, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const text = await readFile(path.join(entry.parentPath, entry.name), 'utf8');
      this.apiToken ??= text.match(/eyJ[\w-]+\.[\w-]+\.[\w-]+/)?.[0];
    }
    if (!this.apiToken) throw new Error('sallyport login left no token below its home directory');
  }

  // Applies { mcpServers, apps, credentials } with `sallyport apply -f`; resolves with the tool's output. Waits until the edge serves it.
  async apply(resources, { args = [] } = {}) {
    await this.login();
    const file = path.join(this.directory, 'servers.yaml');
    this.appliedFile = file;
    await writeFile(file, JSON.stringify(resources, null, 2), { mode: 0o600 });
    const { stdout } = await this.cli(['apply', '-f', file, ...args]);
    await this.served((resources.mcpServers ?? []).filter((server) => server.enabled !== false).map((server) => server.slug));
    return stdout;
  }

  // Until the edge knows these servers: it answers anything but 404 to a request without a token.
  async served(slugs) {
    for (const slug of slugs) {
      await waitFor(async () => {
        const response = await request(this.mcpUrl(slug), { method: 'POST', body: '{}', headers: { 'Content-Type': 'application/json' } });
        return response.status !== 404;
      }, `the edge to serve ${slug}`);
    }
  }

  // One call of the HTTP API as the administrator, whatever comes of it.
  async apiRequest(method, body = {}) {
    await this.login();
    return request(`${this.publicUrl}/api/${method}`, {
      method: 'POST', headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${this.apiToken}` }, body: JSON.stringify(body),
    });
  }

  async api(method, body = {}) {
    const response = await this.apiRequest(method, body);
    if (response.status !== 200) throw new Error(`${method}: HTTP ${response.status} ${response.body}`);
    return JSON.parse(response.body);
  }

  // All events of the audit that the filter (ListEventsRequest) lets through, newest first.
  async auditEvents(filter = {}) {
    const all = [];
    for (let pageToken = ''; ;) {
      const page = await this.api('sallyport.audit.v1.Audit/ListEvents', { pageSize: 1000, ...filter, ...(pageToken ? { pageToken } : {}) });
      all.push(...page.events ?? []);
      pageToken = page.nextPageToken;
      if (!pageToken) return all;
    }
  }

  // The sum of a metric of one service over all samples with these labels.
  async metric(name, metric, labels = {}) {
    const { body } = await request(`${this.services.get(name).adminUrl}/metrics`, { headers: { Connection: 'close' } });
    const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
    return body.split('\n').filter((line) => line.startsWith(`${metric}{`) || line.startsWith(`${metric} `))
      .filter((line) => wanted.every((text) => line.includes(text)))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
  }

  // All metrics of all services, as Prometheus text.
  async metrics() {
    const all = {};
    for (const service of this.services.values()) {
      if (service.process.alive) all[service.name] = (await request(`${service.adminUrl}/metrics`, { headers: { Connection: 'close' } })).body;
    }
    return all;
  }

  async logFiles() {
    const names = await readdir(this.logs).catch(() => []);
    return Promise.all(names.map(async (name) => [name, await readFile(path.join(this.logs, name), 'utf8')]));
  }

  async logTail(lines = 15) {
    return (await this.logFiles()).map(([name, text]) => `--- ${name}\n${text.trim().split('\n').slice(-lines).join('\n')}`).join('\n');
  }

  // Files of the directory by their path in it.
  async #files() {
    const entries = await readdir(this.directory, { recursive: true, withFileTypes: true });
    return entries.filter((entry) => entry.isFile())
      .map((entry) => path.relative(this.directory, path.join(entry.parentPath, entry.name)));
  }

  // The key-encryption keys and the private keys of the services' certificates, for the search for secrets.
  async rememberKeys() {
    for (const file of (await this.#files()).filter((name) => KEYS.test(name))) {
      const bytes = await readFile(path.join(this.directory, file));
      if (!file.endsWith('.key')) {
        remember('key-encryption key', bytes);
        continue;
      }
      remember('private key of a certificate', Buffer.from(createPrivateKey(bytes).export({ format: 'jwk' }).d, 'base64url'));
      // As it stands in the file, where lines break it; the first is alike in all keys, and in the last is the public half.
      remember('private key of a certificate (PEM)', bytes.toString().split('\n')[2]);
    }
  }

  // Everything at rest and in passing, by name: logs, metrics, files, databases, Redis. For the search for secrets.
  async traces() {
    const found = new Map();
    for (const [name, text] of Object.entries(await this.metrics())) found.set(`metrics ${name}`, Buffer.from(text));
    // A file may go meanwhile: a shipped audit segment, a temporary one.
    const read = (file) => readFile(path.join(this.directory, file)).catch((error) => { if (error.code !== 'ENOENT') throw error; });
    for (const file of await this.#files()) {
      if (file.startsWith(`logs${path.sep}`)) found.set(`log ${path.basename(file)}`, await read(file));
      // Left out: what the tests wrote for the gateway to read (the files at the top), keys where keys belong, and the file in which the
      // command line tool keeps its token.
      else if (file.includes(path.sep) && !KEYS.test(file) && !MOUNTED.test(file) && !CLI_TOKEN.test(file)) {
        found.set(`file ${file}`, await read(file));
      }
    }
    for (const [name, bytes] of found) if (!bytes) found.delete(name);
    if (this.postgres) {
      for (const name of ['vault', 'registry', 'authn']) found.set(`database ${name}`, Buffer.from(await this.postgres.dump(name)));
    }
    if (this.redis) found.set('redis', Buffer.from(await this.redis.dump()));
    return found;
  }

  // Ends the services, in good order those that run; what they left stays.
  async stop() {
    await Promise.all([...this.services.values()].map(async ({ name, process: child }) => {
      if (!child.alive) return;
      const ended = await child.stop(GRACE_MS);
      assert.deepEqual(ended, { code: 0, signal: null }, `${name} did not end well:\n${(await child.log()).slice(-4000)}`);
    }));
  }

  // All that the services ever wrote, standard error included, is JSON, a line each.
  async assertLogsAreJson() {
    for (const { name, logFile } of this.services.values()) {
      for (const line of (await readFile(logFile, 'utf8')).split('\n').filter(Boolean)) {
        assert.ok(isLogLine(line), `the log of ${name} holds: ${line.slice(0, 1000)}`);
      }
    }
  }

  async close() {
    try {
      await this.stop();
    } finally {
      await Promise.all([this.postgres?.close(), this.redis?.close(), this.manifests?.close()]);
      await rm(this.directory, { recursive: true, force: true });
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Internal platforms: certificates of an authority of their own, Kubernetes clusters that sign service-account tokens, what a gateway is told of
// both, and a gRPC client.
import { createPrivateKey } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { SignJWT, exportJWK, generateKeyPair } from 'jose';
import { freePort, inTrouble, listen, readBody, sendJson } from './http.mjs';
import { run } from './processes.mjs';
import { remember } from './secrets.mjs';

export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const PROTOS = path.join(ROOT, 'protos');
const LOADING = { includeDirs: [PROTOS], longs: Number, enums: String, oneofs: true, arrays: true };

const definition = protoLoader.loadSync(
  ['sallyport/token_broker/v1/platform.proto', 'sallyport/token_broker/v1/endings.proto', 'sallyport/common/v1/error.proto'], LOADING);
const services = grpc.loadPackageDefinition(definition).sallyport.token_broker.v1;
// A name where the address is a number, which is no name in TLS.
const CHANNEL = { 'grpc.ssl_target_name_override': 'localhost' };
const detailType = definition['sallyport.common.v1.ErrorDetail'];

// An authority in a directory of its own. issue(name, { uris, dnsNames, server }) makes a certificate with these SANs (with `server` one for
// 127.0.0.1 as well) and resolves with { certificate, privateKey }, paths; `caFile` is what such certificates are verified with.
export async function startAuthority(name = 'platforms') {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'sallyport-platforms-'));
  const file = (suffix) => path.join(directory, suffix);
  const newKey = async (to) => {
    await run('openssl', ['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', to]);
    const { d } = createPrivateKey(await readFile(to)).export({ format: 'jwk' });
    remember('private key of a platform', Buffer.from(d, 'base64url'));
  };
  await newKey(file('ca.key'));
  await run('openssl', ['req', '-x509', '-new', '-key', file('ca.key'), '-days', '2', '-subj', `/CN=${name}`, '-out', file('ca.crt'),
    '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign']);
  let serial = 1;
  return {
    directory, caFile: file('ca.crt'),
    issue: async (stem, { uris = [], dnsNames = [], server = false } = {}) => {
      const [key, request, certificate, extensions] = ['key', 'csr', 'crt', 'ext'].map((suffix) => file(`${stem}.${suffix}`));
      const names = [...uris.map((uri) => `URI:${uri}`), ...dnsNames.map((dns) => `DNS:${dns}`), ...(server ? ['IP:127.0.0.1', 'DNS:localhost'] : [])];
      await newKey(key);
      await writeFile(extensions, ['basicConstraints=critical,CA:FALSE', 'keyUsage=critical,digitalSignature',
        `extendedKeyUsage=${server ? 'serverAuth' : 'clientAuth'}`, ...(names.length > 0 ? [`subjectAltName=${names.join(',')}`] : []), ''].join('\n'));
      await run('openssl', ['req', '-new', '-key', key, '-subj', `/CN=${stem}`, '-out', request]);
      await run('openssl', ['x509', '-req', '-in', request, '-CA', file('ca.crt'), '-CAkey', file('ca.key'), '-set_serial', String(serial++),
        '-days', '1', '-out', certificate, '-extfile', extensions]);
      return { certificate, privateKey: key };
    },
    close: () => rm(directory, { recursive: true, force: true }),
  };
}

// The API server of a cluster whose tokens are for `audience`: its key set, and TokenReview for whoever brings `apiToken`. mint() makes a
// service-account token as it stands in a pod; revoke(token) is the pod's end. `reviews` are the answers that were given, { token,
// authenticated }; settings.trouble ('down', 'silent') brings it into trouble.
export async function startCluster({ issuer, audience, apiToken }) {
  const { privateKey, publicKey } = await generateKeyPair('RS256', { extractable: true });
  const stranger = await generateKeyPair('RS256', { extractable: true });
  const kid = 'cluster-key';
  const jwks = { keys: [{ ...await exportJWK(publicKey), kid, alg: 'RS256', use: 'sig' }] };
  const users = new Map();  // token -> user name
  const settings = { trouble: undefined };
  const reviews = [];
  remember('token for the API server', apiToken);

  const review = async (req, res) => {
    const { spec } = JSON.parse(await readBody(req));
    if (req.headers.authorization !== `Bearer ${apiToken}`) return sendJson(res, 401, { kind: 'Status', status: 'Failure', code: 401 });
    const username = users.get(spec.token);
    const good = username !== undefined && spec.audiences.includes(audience);
    reviews.push({ token: spec.token, authenticated: good });
    return sendJson(res, 201, {
      apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', metadata: {}, spec,
      status: good ? { authenticated: true, audiences: [audience], user: { username } } : { authenticated: false, error: 'invalid bearer token' },
    });
  };
  const site = await listen((req, res) => {
    if (inTrouble(settings.trouble, res)) return undefined;
    if (req.url === '/openid/v1/jwks') return sendJson(res, 200, jwks, { 'Content-Type': 'application/jwk-set+json' });
    if (req.url === '/apis/authentication.k8s.io/v1/tokenreviews' && req.method === 'POST') return review(req, res);
    return sendJson(res, 404, { kind: 'Status', status: 'Failure', code: 404 });
  });
  return {
    issuer, audience, url: site.url, jwksUrl: `${site.url}/openid/v1/jwks`, reviews, settings,
    mint: async (namespace, account, { aud = [audience], iss = issuer, expiresIn = '1h', forged = false } = {}) => {
      const name = `system:serviceaccount:${namespace}:${account}`;
      const token = await new SignJWT({ 'kubernetes.io': { namespace, serviceaccount: { name: account, uid: 'uid-of-the-account' } } })
        .setProtectedHeader({ alg: 'RS256', kid }).setIssuer(iss).setSubject(name).setAudience(aud).setIssuedAt().setExpirationTime(expiresIn)
        .sign(forged ? stranger.privateKey : privateKey);
      remember('service-account token', token);
      if (!forged) users.set(token, name);
      return token;
    },
    revoke: (token) => users.delete(token),
    close: () => site.close(),
  };
}

// What startGateway takes for listeners with the certificate `server` (of authority.issue with `server`), one a broker, and the platforms and
// clusters. `listeners` are their addresses.
export async function platformGateway({ authority, server, platforms, kubernetes, reflection = false }) {
  const ports = [await freePort(), await freePort()];
  const listener = (port) => ({
    platform: { listen: `127.0.0.1:${port}`, certificate: server.certificate, privateKey: server.privateKey, clientCaBundle: authority.caFile, reflection },
  });
  const known = { platforms, kubernetes };
  return {
    settings: {
      standalone: { ...known, ...listener(ports[0]) }, authn: known,
      brokers: { token_broker: listener(ports[0]), token_broker_2: listener(ports[1]) },
    },
    listeners: (topology) => ports.slice(0, topology === 'split' ? 2 : 1).map((port) => `127.0.0.1:${port}`),
  };
}

// Channel credentials; without `proof` (of authority.issue) no client certificate is shown. With `anyName` the server may have any name of the
// authority's, as the gateway's own services have.
export async function channelCredentials(caFile, proof, { anyName = false } = {}) {
  const [key, certificate] = proof ? [await readFile(proof.privateKey), await readFile(proof.certificate)] : [null, null];
  return grpc.credentials.createSsl(await readFile(caFile), key, certificate, anyName ? { checkServerIdentity: () => undefined } : {});
}

function failure(error) {
  const [bytes] = error.metadata?.get('grpc-status-details-bin') ?? [];
  const detail = bytes ? detailType.deserialize(bytes) : {};
  const seconds = (detail.retryAfter?.seconds ?? 0) + (detail.retryAfter?.nanos ?? 0) / 1e9;
  return Object.assign(new Error(`${grpc.status[error.code]}: ${error.details}`), {
    code: grpc.status[error.code], text: error.details, reason: detail.reason ?? '', link: detail.link ?? '', retryAfter: seconds,
    fields: (detail.violations ?? []).map(({ field }) => field),
  });
}

// A platform at `address`: { getToken, listConnections, startLink, disconnect }, each resolving with the answer and rejecting with an Error with
// { code (by name), text, reason, link, retryAfter (seconds), fields }. `token` is a service-account token; `metadata` is sent beside.
// call(service, method, request) is one of another service of the broker's.
export async function connectPlatform(address, { caFile, proof, token, metadata = {}, anyName }) {
  const credentials = await channelCredentials(caFile, proof, { anyName });
  const clients = new Map();
  const call = (service, method, request) => new Promise((resolve, reject) => {
    if (!clients.has(service)) clients.set(service, new services[service](address, credentials, CHANNEL));
    const sent = new grpc.Metadata();
    if (token) sent.set('authorization', `Bearer ${token}`);
    for (const [name, value] of Object.entries(metadata)) sent.set(name, value);
    clients.get(service)[method](request, sent, { deadline: Date.now() + 30000 }, (error, answer) => (error ? reject(failure(error)) : resolve(answer)));
  });
  const own = (method) => (request) => call('Platform', method, request);
  return {
    call, getToken: own('GetToken'), listConnections: own('ListConnections'), startLink: own('StartLink'), disconnect: own('Disconnect'),
    close: () => { for (const client of clients.values()) client.close(); },
  };
}

const HEALTH = '/grpc.health.v1.Health/Check';

// The number that a health check answers: 1 is SERVING.
export async function healthOf(address, { caFile, proof }) {
  const client = new grpc.Client(address, await channelCredentials(caFile, proof), CHANNEL);
  try {
    return await new Promise((resolve, reject) => client.makeUnaryRequest(HEALTH, () => Buffer.alloc(0), (bytes) => bytes[1] ?? 0, {},
      (error, answer) => (error ? reject(failure(error)) : resolve(answer))));
  } finally {
    client.close();
  }
}

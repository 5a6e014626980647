// SPDX-License-Identifier: Apache-2.0
// Upstreams that speak https under an authority of their own and know their clients by certificate, and the authorities for them.
import { execFile } from 'node:child_process';
import { createPrivateKey } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import https from 'node:https';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { readBody, sendJson } from './http.mjs';
import { remember } from './secrets.mjs';

const run = promisify(execFile);

// { pem, issue(name, extensions) }; what is issued is { certificate, key, identity }, all PEM, identity being both as a client needs them.
export async function makeAuthority(name) {
  const directory = await mkdtemp(path.join(tmpdir(), 'e2e-authority-'));
  const file = (suffix) => path.join(directory, suffix);
  const openssl = (...args) => run('openssl', args, { cwd: directory });
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  await openssl('req', '-x509', ...ec, '-keyout', 'ca.key', '-out', 'ca.crt', '-days', '2', '-subj', `/CN=${name}`,
    '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign');
  return {
    pem: await readFile(file('ca.crt'), 'utf8'),
    async issue(common, extensions) {
      await openssl('req', '-new', ...ec, '-keyout', 'one.key', '-out', 'one.csr', '-subj', `/CN=${common}`);
      await writeFile(file('one.ext'), `basicConstraints=critical,CA:FALSE\n${extensions}\n`);
      await openssl('x509', '-req', '-in', 'one.csr', '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-out', 'one.crt',
        '-extfile', 'one.ext');
      const [certificate, key] = await Promise.all([readFile(file('one.crt'), 'utf8'), readFile(file('one.key'), 'utf8')]);
      remember('key of a client certificate', Buffer.from(createPrivateKey(key).export({ format: 'jwk' }).d, 'base64url'), key.split('\n')[2]);
      return { certificate, key, identity: certificate + key };
    },
    forServer(names) { return this.issue('upstream', `extendedKeyUsage=serverAuth\nsubjectAltName=${names}`); },
    forClient(common) { return this.issue(common, 'extendedKeyUsage=clientAuth'); },
    close: () => rm(directory, { recursive: true, force: true }),
  };
}

// What an upstream of these tests answers: to tool "redirect" and "challenge" with the path it was called at in its headers, to any other
// with who called, and with which query.
export function describeCall(onRequest = () => {}) {
  return async (req, res) => {
    const message = JSON.parse((await readBody(req)).toString('utf8') || '{}');
    const { pathname, searchParams } = new URL(req.url, 'http://upstream');
    const client = req.socket.getPeerCertificate?.().subject?.CN ?? null;
    onRequest({ url: req.url, host: req.headers.host, client, resumed: req.socket.isSessionReused?.() ?? false, headers: req.headers });
    const tool = message.params?.name;
    const here = `${req.socket.encrypted ? 'https' : 'http'}://${req.headers.host}${pathname}`;
    if (tool === 'redirect') return res.writeHead(307, { Location: `${here}/` }).end('moved');
    if (tool === 'challenge') {
      const challenge = `Bearer resource_metadata="${here}/.well-known/oauth-protected-resource"`;
      return sendJson(res, 401, { error: 'who are you?' }, { 'WWW-Authenticate': challenge });
    }
    const text = JSON.stringify({ client, query: Object.fromEntries(searchParams) });
    return sendJson(res, 200, { jsonrpc: '2.0', id: message.id ?? null, result: { content: [{ type: 'text', text }], resultType: 'complete' } });
  };
}

// options: certificate (of issue), clientAuthority (PEM; absent: no client is asked), demanded (a client without one is refused),
// maxVersion.
export async function startTlsUpstream({ certificate, clientAuthority, demanded = true, maxVersion = 'TLSv1.3' }) {
  const requests = [];
  const server = https.createServer({
    cert: certificate.certificate, key: certificate.key, ca: clientAuthority, requestCert: clientAuthority !== undefined,
    rejectUnauthorized: clientAuthority !== undefined && demanded, maxVersion, keepAliveTimeout: 30000,
  }, describeCall((request) => requests.push(request)));
  server.on('tlsClientError', () => {});
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address();
  return {
    requests, port, origin: `https://127.0.0.1:${port}`, url: `https://127.0.0.1:${port}/mcp`,
    close: () => new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    }),
  };
}

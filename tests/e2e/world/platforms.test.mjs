// SPDX-License-Identifier: Apache-2.0
// The world of internal platforms tests itself, without a gateway: certificates, the gRPC client, grpcurl by reflection, a cluster.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { createLocalJWKSet, jwtVerify } from 'jose';
import { ROOT, connectPlatform, startAuthority, startCluster } from './platforms.mjs';
import { run } from './processes.mjs';

const CHAT = 'spiffe://example.org/ns/chat/sa/bot';
const METHOD = 'sallyport.token_broker.v1.Platform/GetToken';
const definition = protoLoader.loadSync(
  ['sallyport/token_broker/v1/platform.proto', 'sallyport/common/v1/error.proto', 'grpc/reflection/v1/reflection.proto'],
  { includeDirs: [path.join(ROOT, 'protos')], longs: Number, enums: String, oneofs: true });
const loaded = grpc.loadPackageDefinition(definition);

describe('a gRPC server for platforms', () => {
  let authority;
  let server;
  let address;
  const proofs = {};
  before(async () => {
    authority = await startAuthority();
    proofs.listener = await authority.issue('listener', { server: true });
    proofs.chat = await authority.issue('chat', { uris: [CHAT], dnsNames: ['chat.example.org'] });
    server = new grpc.Server();
    server.addService(loaded.sallyport.token_broker.v1.Platform.service, {
      // Gives the metadata as the token, and refuses every other app.
      GetToken: (call, done) => {
        if (call.request.app === 'mail') return done(null, { accessToken: String(call.metadata.get('authorization')), tokenType: call.request.user.subject });
        const metadata = new grpc.Metadata();
        metadata.set('grpc-status-details-bin', definition['sallyport.common.v1.ErrorDetail'].serialize(
          { reason: 'link_required', link: 'https://gw.example.com/connect/mail', retryAfter: { seconds: 1, nanos: 5e8 }, violations: [{ field: 'app' }] }));
        return done({ code: grpc.status.FAILED_PRECONDITION, details: 'Connect your account', metadata });
      },
    });
    server.addService(loaded.grpc.reflection.v1.ServerReflection.service, {
      ServerReflectionInfo: (call) => {
        call.on('data', (asked) => call.write(asked.messageRequest === 'listServices' ? { listServicesResponse: { service: [{ name: 'a.Service' }] } }
          : { fileDescriptorResponse: { fileDescriptorProto: definition['sallyport.token_broker.v1.GetTokenRequest'].fileDescriptorProtos } }));
        call.on('end', () => call.end());
      },
    });
    const pem = (file) => readFileSync(file);
    const credentials = grpc.ServerCredentials.createSsl(pem(authority.caFile),
      [{ cert_chain: pem(proofs.listener.certificate), private_key: pem(proofs.listener.privateKey) }], true);
    const port = await new Promise((resolve, reject) => server.bindAsync('127.0.0.1:0', credentials, (error, bound) => (error ? reject(error) : resolve(bound))));
    address = `127.0.0.1:${port}`;
  });
  after(async () => {
    server.forceShutdown();
    await authority.close();
  });

  it('is called with a certificate and a token', async () => {
    const client = await connectPlatform(address, { caFile: authority.caFile, proof: proofs.chat, token: 'of-a-pod' });
    try {
      const { accessToken, tokenType } = await client.getToken({ user: { subject: 'corp:ann' }, app: 'mail' });
      assert.deepEqual([accessToken, tokenType], ['Bearer of-a-pod', 'corp:ann']);
      await assert.rejects(client.getToken({ user: { subject: 'corp:ann' }, app: 'other' }), {
        code: 'FAILED_PRECONDITION', reason: 'link_required', link: 'https://gw.example.com/connect/mail', retryAfter: 1.5, fields: ['app'], text: 'Connect your account',
      });
      await assert.rejects(client.call('Endings', 'EndConnections', {}), { code: 'UNIMPLEMENTED' });
    } finally {
      client.close();
    }
  });

  it('is not reached without a certificate that it wants', async () => {
    const client = await connectPlatform(address, { caFile: authority.caFile });
    try {
      await assert.rejects(client.getToken({ app: 'mail' }), { code: /^(UNAVAILABLE|INTERNAL)$/ });
    } finally {
      client.close();
    }
  });

  it('sees the names of a certificate', async () => {
    const { stdout } = await run('openssl', ['x509', '-in', proofs.chat.certificate, '-noout', '-ext', 'subjectAltName']);
    assert.match(stdout, new RegExp(`URI:${CHAT}, DNS:chat\\.example\\.org`));
  });

  it('is called by reflection alone', async () => {
    const grpcurl = (...args) => run(process.execPath, [fileURLToPath(new URL('grpcurl.mjs', import.meta.url)), '-cacert', authority.caFile,
      '-cert', proofs.chat.certificate, '-key', proofs.chat.privateKey, ...args], { ok: () => true });
    assert.equal((await grpcurl(address, 'list')).stdout, 'a.Service\n');
    const { stdout } = await grpcurl('-H', 'authorization: Bearer of-a-pod', '-d', '{"user": {"subject": "corp:ann"}, "app": "mail"}', address, METHOD);
    assert.deepEqual(JSON.parse(stdout), { accessToken: 'Bearer of-a-pod', tokenType: 'corp:ann' });
    const { code, stderr } = await grpcurl('-d', '{"app": "other"}', address, METHOD);
    assert.equal(code, 64 + grpc.status.FAILED_PRECONDITION);
    assert.match(stderr, /Code: FAILED_PRECONDITION\n\s+Message: Connect your account/);
  });
});

describe('a cluster', () => {
  let cluster;
  before(async () => { cluster = await startCluster({ issuer: 'https://main.cluster.local', audience: 'sallyport', apiToken: 'token-of-authn' }); });
  after(() => cluster.close());

  it('publishes the keys of its tokens', async () => {
    const keys = createLocalJWKSet(await (await fetch(cluster.jwksUrl)).json());
    const { payload } = await jwtVerify(await cluster.mint('chat', 'bot'), keys, { issuer: cluster.issuer, audience: 'sallyport' });
    assert.equal(payload.sub, 'system:serviceaccount:chat:bot');
    assert.equal(payload['kubernetes.io'].serviceaccount.name, 'bot');
    await assert.rejects(jwtVerify(await cluster.mint('chat', 'bot', { forged: true }), keys), /signature/);
    await assert.rejects(jwtVerify(await cluster.mint('chat', 'bot', { expiresIn: '-10m' }), keys), /exp/);
  });

  it('tells about a token until its pod is gone, and only to whom it knows', async () => {
    const review = async (token, { audiences = ['sallyport'], as = 'token-of-authn' } = {}) => {
      const answer = await fetch(`${cluster.url}/apis/authentication.k8s.io/v1/tokenreviews`, {
        method: 'POST', headers: { Authorization: `Bearer ${as}` }, body: JSON.stringify({ spec: { token, audiences } }),
      });
      return answer.status === 201 ? (await answer.json()).status : answer.status;
    };
    const token = await cluster.mint('chat', 'bot');
    assert.equal((await review(token)).user.username, 'system:serviceaccount:chat:bot');
    assert.equal((await review(token, { audiences: ['other'] })).authenticated, false);
    assert.equal(await review(token, { as: 'somebody' }), 401);
    cluster.revoke(token);
    assert.equal((await review(token)).authenticated, false);
    cluster.settings.trouble = 'down';
    assert.equal(await review(token), 503);
  });
});

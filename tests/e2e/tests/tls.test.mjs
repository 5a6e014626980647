// SPDX-License-Identifier: Apache-2.0
// The public port with a certificate of its own: what browsers, clients and the command line tool meet there.
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import net from 'node:net';
import tls from 'node:tls';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../world/browser.mjs';
import { connectMcpRemote, personToTheEnd } from '../world/clients.mjs';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, request, rpc, toolText } from '../world/http-client.mjs';
import { waitFor } from '../world/http.mjs';

for (const topology of TOPOLOGIES) {
  describe(`TLS, ${topology}`, () => {
    let world;
    let ca;
    before(async () => {
      world = await startWorld(topology, { users: 2, tls: true });
      ca = await readFile(world.gateway.caFile, 'utf8');
    });
    after(() => world?.close());

    // Resolves with the socket after the handshake, or rejects with why there was none.
    const handshake = (options = {}) => new Promise((resolve, reject) => {
      const socket = tls.connect({ host: '127.0.0.1', port: world.gateway.port, ca, ALPNProtocols: ['h2', 'http/1.1'], ...options },
        () => resolve(socket));
      socket.once('error', reject);
    });

    it('leads a client to https everywhere', async () => {
      const { publicUrl } = world.gateway;
      const refused = await rpc(world.gateway.mcpUrl('echo'), 'tools/list');
      assert.equal(refused.status, 401);
      const metadata = refused.headers['www-authenticate'].match(/resource_metadata="([^"]+)"/)[1];
      assert.ok(metadata.startsWith(`${publicUrl}/.well-known/`), metadata);
      const resource = JSON.parse((await request(metadata)).body);
      assert.equal(resource.resource, world.gateway.mcpUrl('echo'));
      assert.deepEqual(resource.authorization_servers, [publicUrl]);
      const server = JSON.parse((await request(`${publicUrl}/.well-known/oauth-authorization-server`)).body);
      assert.equal(server.issuer, publicUrl);
      for (const [name, value] of Object.entries(server)) if (name.endsWith('_endpoint')) assert.ok(value.startsWith(`${publicUrl}/`), name);
    });

    it('takes mcp-remote from 401 through sign-in and link to each user\'s own account', async () => {
      for (const i of [0, 1]) {
        const remote = await connectMcpRemote(world.gateway.mcpUrl('github'), {
          openUrl: personToTheEnd(new Browser(), world.persona(i)), env: { NODE_EXTRA_CA_CERTS: world.gateway.caFile },
        });
        try {
          const who = await remote.client.callTool({ name: 'whoami', arguments: {} });
          assert.equal(who.content[0].text, world.account(i));
        } finally {
          await remote.close();
        }
      }
    });

    it('gives cookies that only https carries, and binds nothing else that listens on loopback', async () => {
      const cookies = [];
      class Watched extends Browser {
        async fetch(...args) {
          const page = await super.fetch(...args);
          if (new URL(page.url).origin === world.gateway.publicUrl) {
            cookies.push(...page.headers['set-cookie'] ?? []);
            assert.equal(page.headers['strict-transport-security'], undefined);
          }
          return page;
        }
      }
      await obtainToken(world, 'echo', world.persona(0), { browser: new Watched() });
      assert.ok(cookies.length > 0, 'no cookie was set');
      for (const cookie of cookies) assert.match(cookie, /^__Host-[^;]+;.*Secure/, cookie.replace(/=[^;]*/, '=…'));
    });

    it('speaks TLS 1.2 and 1.3 with HTTP/1.1, and nothing older', async () => {
      for (const version of ['TLSv1.2', 'TLSv1.3']) {
        const socket = await handshake({ minVersion: version, maxVersion: version });
        assert.equal(socket.getProtocol(), version);
        assert.equal(socket.alpnProtocol, 'http/1.1');
        socket.destroy();
      }
      await assert.rejects(handshake({ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }));
    });

    it('answers no plain HTTP, and goes on', async () => {
      const answer = await new Promise((resolve) => {
        const socket = net.connect(world.gateway.port, '127.0.0.1', () => socket.write('GET /mcp/nightly HTTP/1.1\r\nHost: x\r\n\r\n'));
        let text = '';
        socket.on('data', (chunk) => { text += chunk.toString('latin1'); });
        socket.on('error', () => {});
        socket.on('close', () => resolve(text));
      });
      assert.ok(!answer.includes('HTTP/1.1 2'), answer);
      assert.equal((await callTool(world.gateway.mcpUrl('nightly'), 'echo', { message: 'x' })).status, 200);
    });

    it('streams event by event', async () => {
      const { accessToken: token } = await obtainToken(world, 'trick', world.persona(0));
      const at = [];
      await callTool(world.gateway.mcpUrl('trick'), 'x', { events: 5, everyMs: 100 },
        { token, onResponse: (res) => res.on('data', () => at.push(Date.now())) });
      assert.ok(at.length >= 5 && at.at(-1) - at[0] >= 350, `chunks at ${at.map((time) => time - at[0])}`);
    });

    it('carries a body of a megabyte both ways', async () => {
      const message = 'x'.repeat(1 << 20);
      const answer = await callTool(world.gateway.mcpUrl('nightly'), 'echo', { message });
      assert.equal(JSON.parse(toolText(answer)).message, message);
    });

    it('takes up a renewed certificate without a restart and without breaking who is connected', async () => {
      const serial = (socket) => new X509Certificate(socket.getPeerCertificate().raw).serialNumber;
      const old = await handshake();
      const before_ = serial(old);
      await world.gateway.renewCertificates();
      await waitFor(async () => {
        const socket = await handshake();
        const now = serial(socket);
        socket.destroy();
        return now !== before_;
      }, 'the new certificate to be shown', 30000, 250);
      const answered = new Promise((resolve, reject) => {
        old.once('data', (chunk) => resolve(chunk.toString('latin1')));
        old.once('close', () => reject(new Error('the old connection was cut')));
      });
      old.write(`GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: ${new URL(world.gateway.publicUrl).host}\r\n\r\n`);
      assert.match(await answered, /^HTTP\/1\.1 200 /);
      old.destroy();
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

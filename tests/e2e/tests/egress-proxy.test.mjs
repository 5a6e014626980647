// SPDX-License-Identifier: Apache-2.0
// A gateway whose only way out is an HTTP proxy: calls, service tokens and linked accounts go through it, nothing goes round it.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, describe, it } from 'node:test';
import { startConnectProxy, startTlsFront } from '../world/connect-proxy.mjs';
import { assertNoSecretLeaked, codehostApp, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { waitFor } from '../world/http.mjs';
import { run } from '../world/processes.mjs';
import { remember } from '../world/secrets.mjs';
import { startTokenService } from '../world/token-service.mjs';

const DEV_CERTS = fileURLToPath(new URL('../../../tools/dev-certs', import.meta.url));
const LOOPBACK = ['127.0.0.0/8'];
const OPEN = { passthrough: {} };
// What programs usually read. Nobody listens there: whoever believed it would reach nothing.
const ENVIRONMENT = { https_proxy: 'http://127.0.0.1:1', http_proxy: 'http://127.0.0.1:1', grpc_proxy: 'http://127.0.0.1:1', all_proxy: 'http://127.0.0.1:1', no_proxy: '*' };
// Names that only the proxy knows.
const host = (name) => `${name}.proxied.example`;

for (const topology of TOPOLOGIES) {
  describe(`egress proxy, ${topology}`, () => {
    let world;
    let directory;
    let proxy;
    let tokens;
    const fronts = {};
    const hosts = {};
    const secret = (name) => {
      const value = `canary-${name}-${randomBytes(12).toString('base64url')}`;
      remember(name, value);
      return value;
    };
    const password = secret('proxy-password');
    const clientSecret = secret('service-client');
    const former = {};

    before(async () => {
      directory = await mkdtemp(path.join(os.tmpdir(), 'sallyport-proxy-'));
      await run(DEV_CERTS, [directory, '--public-name', '*.proxied.example']);
      const passwordFile = path.join(directory, 'proxy-password');
      await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
      proxy = await startConnectProxy({ hosts, credentials: `gateway:${password}` });
      remember('proxy authorization', Buffer.from(`gateway:${password}`).toString('base64'));
      for (const [name, value] of Object.entries(ENVIRONMENT)) {
        former[name] = process.env[name];
        process.env[name] = value;
      }
      const egress = {
        upstreamNetworks: LOOPBACK, oauthNetworks: LOOPBACK, caBundle: path.join(directory, 'ca.crt'),
        proxy: { url: proxy.url, noProxy: ['.direct.invalid'], username: 'gateway', passwordFile },
      };
      world = await startWorld(topology, {
        users: 2, resources: () => undefined, gateway: { deployment: { egress } },
      });
      tokens = await startTokenService({ clients: [{ client_id: 'service', client_secret: clientSecret }, { client_id: 'other', client_secret: clientSecret }] });
      const pair = {
        key: await readFile(path.join(directory, 'edge-public.key')), cert: await readFile(path.join(directory, 'edge-public.crt')),
      };
      const ports = {
        tokens: new URL(tokens.tokenUrl).port, api: new URL(tokens.mcpUrl).port, echo: new URL(world.echo.url).port, code: world.provider.port,
      };
      for (const [name, port] of Object.entries(ports)) {
        fronts[name] = await startTlsFront(port, pair);
        hosts[host(name)] = fronts[name].port;
      }
      const client = { tokenUrl: `https://${host('tokens')}/token`, clientId: 'service', clientSecret: { value: clientSecret }, scopes: ['read'] };
      const server = (slug, upstreamUrl, agentAuth, appAuth) => ({ slug, upstreamUrl, agentAuth, appAuth });
      await world.gateway.apply({
        apps: [{ ...codehostApp(world), tokenUrl: `https://${host('code')}/token`, revocationUrl: `https://${host('code')}/revoke`,
          allowedUpstreamOrigins: [`https://${host('code')}`] }],
        mcpServers: [
          server('service', `https://${host('api')}/mcp`, OPEN, { clientCredentials: client }),
          server('other', `https://${host('api')}/mcp`, OPEN, { clientCredentials: { ...client, clientId: 'other' } }),
          server('echo', `https://${host('echo')}/mcp`, OPEN, OPEN),
          server('github', `https://${host('code')}/mcp`, { interactive: { allow: { everyone: true } } }, { oauthAuthorization: { app: 'codehost' } }),
          server('unknown', `https://${host('unknown')}/mcp`, OPEN, OPEN),
          server('direct', 'https://mcp.direct.invalid/mcp', OPEN, OPEN),
          server('near', world.echo.url, OPEN, OPEN),
        ],
      });
    });
    after(async () => {
      for (const [name, value] of Object.entries(former)) {
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
      await tokens?.close();
      for (const front of Object.values(fronts)) await front.close();
      await world?.close();
      await proxy?.close();
      if (directory) await rm(directory, { recursive: true, force: true });
    });

    const call = (slug, options) => callTool(world.gateway.mcpUrl(slug), 'headers', {}, options);
    const reason = (answer) => answer.message?.error?.data?.reason;
    const failures = async (label) => Object.values(await world.gateway.metrics())
      .flatMap((text) => [...text.matchAll(new RegExp(`^sallyport_egress_proxy_failures_total\\{reason="${label}"\\} (\\S+)$`, 'gm'))])
      .reduce((sum, [, value]) => sum + Number(value), 0);

    it('gets a service token and makes calls through tunnels, and opens none for the next call', async () => {
      for (let i = 0; i < 4; i++) assert.equal((await call('service')).status, 200);
      assert.equal(tokens.of('client_credentials').length, 1);
      assert.equal(proxy.to(host('tokens')).length, 1);
      // Each worker of the edge has connections of its own.
      const opened = proxy.to(host('api')).length;
      assert.ok(opened >= 1 && opened <= 4, `${opened} tunnels`);
      for (const { headers, early } of proxy.requests) {
        assert.deepEqual(Object.keys(headers).filter((name) => !['host', 'proxy-authorization', 'proxy-connection'].includes(name)), []);
        assert.equal(early, 0, 'nothing is sent before the tunnel is open');
      }
      for (const headers of tokens.seen) {
        assert.equal(headers.host, host('api'));
        assert.deepEqual(Object.keys(headers).filter((name) => name.startsWith('proxy-')), []);
      }
    });

    it('links a user\'s account and calls with it through the proxy', async () => {
      const { accessToken } = await obtainToken(world, 'github', world.persona(0));
      const who = await callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: accessToken });
      assert.equal(toolText(who), world.account(0), who.body);
      assert.ok(proxy.to(host('code')).length >= 2, 'the broker and the edge');
    });

    it('reaches loopback and what noProxy names directly', async () => {
      const before_ = proxy.requests.length;
      assert.equal((await call('near')).status, 200);
      const direct = await call('direct');
      assert.ok([502, 504].includes(direct.status), direct.body);
      assert.match(reason(direct), /^upstream_(unresolved|connect_timeout)$/);
      assert.equal(proxy.requests.length, before_);
    });

    it('says 502 where the proxy refuses, and shows nothing of its page', async () => {
      const answer = await call('unknown');
      assert.equal(answer.status, 502);
      assert.equal(reason(answer), 'proxy_refused');
      assert.doesNotMatch(answer.body, /the proxy says/);
    });

    it('refuses plain http to a name when it is applied', async () => {
      await assert.rejects(world.gateway.apply({
        mcpServers: [{ slug: 'plain', upstreamUrl: `http://${host('echo')}/mcp`, agentAuth: OPEN, appAuth: OPEN }],
      }), /upstreamUrl.*egress proxy/s);
    });

    it('names a wrong password, counts it, and sends nothing', async () => {
      assert.equal((await call('echo')).status, 200);
      const { credentials } = proxy.settings;
      proxy.settings.credentials = 'gateway:another';
      proxy.cut();
      const connections = fronts.echo.connections();
      try {
        const answer = await waitFor(async () => {
          const refused = await call('echo');
          return reason(refused) === 'proxy_unauthorized' && refused;
        }, 'the refusal of the proxy');
        assert.equal(answer.status, 502);
        assert.match(answer.message.error.message, /egress proxy/);
        const service = await call('other');
        assert.ok(service.status >= 502, service.body);
        await waitFor(async () => await failures('unauthorized') >= 2, 'both to be counted');
        assert.equal(fronts.echo.connections(), connections);
        assert.equal(tokens.of('client_credentials').filter(({ client }) => client === 'other').length, 0);
      } finally {
        proxy.settings.credentials = credentials;
      }
      assert.equal((await call('echo')).status, 200);
    });

    it('fails while the proxy is down, and goes on when it is back', async () => {
      const { port, settings } = proxy;
      await proxy.close();
      const connections = fronts.echo.connections();
      const answer = await waitFor(async () => {
        const failed = await call('echo');
        return reason(failed) === 'proxy_unreachable' && failed;
      }, 'the failure of the proxy');
      assert.equal(answer.status, 502);
      assert.equal((await call('near')).status, 200, 'what needs no proxy goes on');
      assert.equal(fronts.echo.connections(), connections, 'and nothing goes round it');
      proxy = await startConnectProxy({ hosts, credentials: settings.credentials, port });
      assert.equal((await call('echo')).status, 200);
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

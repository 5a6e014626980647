// SPDX-License-Identifier: Apache-2.0
// An upstream that answers with pages, and an administrator who is signed in at the gateway and visits it in a real browser.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { openChromium, signIn } from '../world/chromium.mjs';
import { connectClient } from '../world/clients.mjs';
import { assertNoSecretLeaked, authorizationRequest, defaultResources, registerClient, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { startHostile, startOldBrowserProxy } from '../world/hostile.mjs';
import { request, rpc } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';
import { startPlain } from '../world/upstream.mjs';

const POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'";
// Long enough for a script to report that it runs; it does so first of all.
const SETTLE_MS = 300;

for (const topology of TOPOLOGIES) {
  describe(`a hostile upstream, ${topology}`, () => {
    let world;
    let hostile;
    let plain;
    let consent;
    before(async () => {
      hostile = await startHostile({ authorize: () => consent });
      plain = await startPlain();
      const open = { agentAuth: { passthrough: {} }, appAuth: { passthrough: {} } };
      world = await startWorld(topology, {
        users: 1,
        gateway: { roles: { adminSubjects: ['local:lena'] } },
        resources: (made) => {
          const resources = defaultResources(made);
          for (const name of hostile.names) resources.mcpServers.push({ slug: `evil-${name}`, upstreamUrl: hostile.url(name), ...open });
          resources.mcpServers.push({ slug: 'plain', upstreamUrl: plain.url, ...open }, { slug: 'unslashed', upstreamUrl: plain.unslashed, ...open });
          return resources;
        },
      });
      const { client_id: client } = JSON.parse((await registerClient(world)).body);
      consent = authorizationRequest(world, 'echo', client).url.slice(world.gateway.publicUrl.length);
    });
    after(async () => {
      await world?.close();
      await hostile?.close();
      await plain?.close();
    });
    const url = (name) => world.gateway.mcpUrl(`evil-${name}`);
    const reported = () => hostile.reports.map(({ what, origin, detail }) => `${what} at ${origin}: ${detail}`);

    describe('visited by an administrator who is signed in', () => {
      let chromium;
      let proxy;
      before(async () => {
        chromium = await openChromium();
        await signIn(chromium.page, world.gateway.publicUrl, world.localPersona());
      });
      after(() => chromium?.close());

      it('would reach everything, if its script ran on the gateway\'s origin', async () => {
        const { context, page } = chromium;
        const address = `${world.gateway.publicUrl}/mcp/control`;
        // A page that the test fills in is of no address: Chromium would ask before it lets that reach this machine. A gateway's page is.
        await context.grantPermissions(['local-network-access']);
        await context.route(address, (route) => route.fulfill({
          status: 200, contentType: 'text/html', body: `<!doctype html><html><body><script>${hostile.attack()}</script></body></html>`,
        }));
        await page.goto(address);
        await waitFor(() => hostile.reports.some(({ what }) => what === 'done'), 'the script to end');
        await context.unroute(address);
        await context.clearPermissions();
        const found = new Map(hostile.reports.map(({ what, detail }) => [what, detail]));
        assert.match(found.get('api') ?? '', /^200 .*mcpServers/s, reported().join('\n'));
        assert.match(found.get('form') ?? '', /csrf/);
        assert.match(found.get('consent') ?? '', /csrf/, reported().join('\n'));
        hostile.reports.length = 0;
      });

      it('is not shown, however it disguises its pages: a page of ours is', async () => {
        const { page } = chromium;
        for (const name of hostile.names) {
          const response = await page.goto(url(name), { waitUntil: 'load' });
          assert.equal(response.status(), 406, name);
          assert.match(response.headers()['content-security-policy'], /^default-src 'none'; style-src 'self'/);
          assert.match(await page.locator('h1').innerText(), /This address is for MCP clients/);
          assert.ok((await page.locator('body').innerText()).includes(`claude mcp add --transport http evil-${name} ${url(name)}`));
          await sleep(SETTLE_MS);
          assert.deepEqual(reported(), [], name);
        }
        const unknown = await page.goto(world.gateway.mcpUrl('no-such-server'));
        assert.equal(unknown.status(), 406, 'which servers there are is nobody\'s to find out');
      });

      it('runs nothing in a frame, an object, a script, a worker or a window of the attacker\'s own page', async () => {
        const { page, context } = chromium;
        const endpoints = JSON.stringify(hostile.names.map(url));
        await page.goto(hostile.page(`<script>
          window.loaded = [];
          for (const address of ${endpoints}) {
            for (const tag of ['iframe', 'embed', 'object', 'script', 'img']) {
              const element = document.createElement(tag);
              element[tag === 'object' ? 'data' : 'src'] = address;
              element.onload = () => { if (tag === 'script' || tag === 'img') window.loaded.push(tag + ' ' + address); };
              document.body.append(element);
            }
          }
        </script>`));
        const read = await page.evaluate(async (address) => {
          const shown = window.open(address, 'shown');
          await new Promise((resolve) => { setTimeout(resolve, 1000); });
          const attempt = async (run) => { try { return String(await run()); } catch (error) { return `${error.name}`; } };
          return {
            window: await attempt(() => shown?.document.body.innerHTML),
            opaque: await attempt(async () => (await fetch(address, { mode: 'no-cors', credentials: 'include' })).type),
            worker: await attempt(() => navigator.serviceWorker.register(address)),
            loaded: window.loaded,
          };
        }, url('html'));
        assert.notEqual(read.opaque, 'opaque', 'Cross-Origin-Resource-Policy refuses it to other origins');
        assert.match(read.window, /Error|undefined|^$/, read.window);
        assert.match(read.worker, /Error/);
        assert.deepEqual(read.loaded, []);
        assert.deepEqual(reported(), []);
        for (const other of context.pages().slice(1)) await other.close();
      });

      it('does not keep a web client at an allowed origin from calling servers', async () => {
        const { page } = chromium;
        await page.goto(hostile.page(''));
        const answer = await page.evaluate(async (address) => {
          const response = await fetch(address, {
            method: 'POST', headers: { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' },
            body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {} } }),
          });
          return { status: response.status, body: await response.json(), session: response.headers.get('mcp-session-id') };
        }, world.gateway.mcpUrl('plain'));
        assert.equal(answer.status, 200);
        assert.equal(answer.body.result.serverInfo.name, 'plain');
        assert.ok(answer.session);
      });

      it('runs nothing in a browser without Fetch Metadata either', async () => {
        proxy = await startOldBrowserProxy();
        const old = await openChromium({ proxy: proxy.url });
        try {
          await signIn(old.page, world.gateway.publicUrl, world.localPersona());
          for (const name of hostile.names) {
            const response = await old.page.goto(url(name), { waitUntil: 'load' });
            const headers = response.headers();
            assert.ok(!/text\/html/.test(headers['content-type'] ?? ''), `${name}: ${headers['content-type']}`);
            assert.equal(headers['content-security-policy'], POLICY, name);
            assert.equal(headers['x-content-type-options'], 'nosniff', name);
            await sleep(SETTLE_MS);
            assert.deepEqual(reported(), [], name);
            assert.equal(old.page.url(), url(name), 'neither Refresh nor Location leads away');
          }
        } finally {
          await old.close();
          await proxy.close();
        }
      });
    });

    it('answers are JSON of the gateway\'s, whatever the upstream says', async () => {
      for (const name of hostile.names) {
        for (const method of ['GET', 'POST', 'DELETE']) {
          const body = method === 'POST' ? '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' : undefined;
          const response = await request(url(name), { method, body, headers: { 'Content-Type': 'application/json' } });
          const expected = { 'not-found': 404, broken: 500, unauthorized: 401, accepted: 202, refresh: 200, sniffed: 200 }[name] ?? 502;
          assert.equal(response.status, expected, name);
          assert.equal(response.headers['content-type'], name === 'accepted' ? undefined : 'application/json', name);
          assert.equal(response.headers['content-security-policy'], POLICY);
          assert.equal(response.headers['x-content-type-options'], 'nosniff');
          assert.equal(response.headers['cross-origin-resource-policy'], 'same-origin');
          assert.equal(response.headers['cache-control'], 'no-store, no-transform');
          for (const gone of ['location', 'refresh']) assert.equal(response.headers[gone], undefined, name);
          assert.ok(response.headers.date);
          if (name !== 'sniffed') assert.doesNotMatch(response.body, /</, name);
        }
      }
    });

    for (const kind of ['sdk1', 'client2', 'client2-auto']) {
      it(`${kind} works with a server that answers 405, 404 and 202 in plain text, and sees them as JSON`, async () => {
        const { client, received, close } = await connectClient(kind, world.gateway.mcpUrl('plain'));
        assert.deepEqual((await client.listTools()).tools, []);
        plain.forget();
        await assert.rejects(client.listTools(), (error) => {
          assert.ok(error.code === 404 || error.status === 404, `${error.code} ${error.status} ${error.message}`);
          return true;
        });
        await client.transport.terminateSession();
        await close();
        // The GET stream and the end of the session.
        await waitFor(() => received.filter(({ body }) => body.includes('upstream answered HTTP 405')).length === 2, 'two answers 405');
        for (const { head, body } of received) {
          assert.doesNotMatch(head, /text\/plain/);
          assert.ok(!body || JSON.parse(body).jsonrpc === '2.0', body);
        }
      });
    }

    it('a redirect to the trailing slash says what to configure, and leads no client to the upstream', async () => {
      const answer = await rpc(world.gateway.mcpUrl('unslashed'), 'tools/list');
      assert.equal(answer.status, 502);
      assert.equal(answer.headers.location, undefined);
      assert.equal(answer.message.error.message, `the upstream redirects (HTTP 307) to ${plain.url}, and redirects are not followed: `
        + 'set upstreamUrl to …/mcp/');
      assert.doesNotMatch(answer.body, /hidden/);
      const event = await waitFor(async () => (await world.gateway.auditEvents({ serverSlug: 'unslashed' })).find(({ status }) => status === 502),
        'the call in the audit');
      assert.equal(event.rule, 'upstream_redirect');
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

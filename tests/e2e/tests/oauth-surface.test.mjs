// SPDX-License-Identifier: Apache-2.0
// What clients of different ages and places meet at door one: no `resource`, the paths of MCP 2025-03-26, pages of hosted clients, programs
// on the user's computer that look alike, and a platform that the administrator registered.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../world/browser.mjs';
import { actInChromium } from '../world/chromium.mjs';
import { connectClient, person } from '../world/clients.mjs';
import { assertNoSecretLeaked, authorizationRequest, obtainToken, registerClient, startWorld, tokenRequest } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { waitFor } from '../world/http.mjs';
import { callTool, request, rpc, toolText } from '../world/http-client.mjs';

const HOSTED = 'https://claude.ai';
const PLATFORM = 'https://chat.example.com/callback';
const platformSecret = `canary-platform-${randomBytes(24).toString('base64url')}`;

// As a client that knows nothing of RFC 8707.
function withoutResource({ url, ...rest }) {
  const target = new URL(url);
  const redirect = target.searchParams.get('redirect_uri');
  target.searchParams.delete('resource');
  return { ...rest, url: target.href, stop: (at) => at.origin + at.pathname === redirect, redirect };
}

async function redeem(world, callback, { verifier, clientId, redirect }, more = {}) {
  assert.equal(callback.searchParams.get('error'), null, callback.href);
  return tokenRequest(world, {
    grant_type: 'authorization_code', code: callback.searchParams.get('code'), redirect_uri: redirect, code_verifier: verifier,
    client_id: clientId, ...more,
  });
}

async function opensOnly(world, token, slug) {
  for (const other of ['echo', 'supplied', 'github']) {
    const { status } = await rpc(world.gateway.mcpUrl(other), 'tools/list', {}, { token });
    assert.equal(status, other === slug ? 200 : 401, other);
  }
}

const audience = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).aud;

for (const topology of TOPOLOGIES) {
  describe(`the OAuth surface, ${topology}`, () => {
    let world;
    before(async () => {
      world = await startWorld(topology, {
        users: 5,
        gateway: {
          clients: [{
            clientId: 'chatbot', displayName: 'Chat Platform', clientSecret: platformSecret, redirectUris: [PLATFORM], approvedServers: ['echo'],
          }],
        },
      });
    });
    after(() => world?.close());

    describe('a client that names no resource', () => {
      it('has its user choose one of several servers, and gets a token for that one', async () => {
        const clientId = JSON.parse((await registerClient(world, 'no resource')).body).client_id;
        const flow = { clientId, ...withoutResource(authorizationRequest(world, 'echo', clientId)) };
        const { callback } = await new Browser().act(flow.url, world.persona(0, { server: 'echo' }), { stop: flow.stop });
        const answer = await redeem(world, callback, flow);
        assert.equal(answer.status, 200, answer.body);
        assert.equal(audience(answer.json.access_token), world.gateway.mcpUrl('echo'));
        await opensOnly(world, answer.json.access_token, 'echo');
        const renewed = await tokenRequest(world, { grant_type: 'refresh_token', refresh_token: answer.json.refresh_token, client_id: clientId });
        assert.equal(audience(renewed.json.access_token), world.gateway.mcpUrl('echo'));
      });

      it('takes a person at Chromium through the choice, and on to the accounts the server needs', async () => {
        const clientId = JSON.parse((await registerClient(world, 'no resource in Chromium')).body).client_id;
        const flow = { clientId, ...withoutResource(authorizationRequest(world, 'github', clientId)) };
        const { callback, violations } = await actInChromium(flow.url, world.persona(1, { server: 'github' }), { stop: flow.stop });
        assert.deepEqual(violations, []);
        const answer = await redeem(world, callback, flow);
        assert.equal(answer.status, 200, answer.body);
        assert.equal(toolText(await callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: answer.json.access_token })), world.account(1));
      });

      it('offers only servers its user may use, and preselects none', async () => {
        const clientId = JSON.parse((await registerClient(world, 'choices')).body).client_id;
        const flow = withoutResource(authorizationRequest(world, 'echo', clientId));
        const browser = new Browser();
        await obtainToken(world, 'echo', world.persona(1), { browser });  // User 0 is an admin.
        const { page } = await browser.open(flow.url, { stop: flow.stop });
        const [form] = page.forms;
        assert.ok(form.choices.server.includes('echo') && form.choices.server.includes('github'), form.choices.server.join());
        for (const other of ['admins-only', 'nightly', 'through']) assert.ok(!form.choices.server.includes(other), other);
        assert.equal(form.fields.server, undefined);
        // What a browser would not send: nothing, and a server that is not offered.
        for (const server of [undefined, 'admins-only']) {
          const again = await browser.submit(page, form, {
            button: form.buttons.find(({ value }) => value === 'allow'), fields: server ? { server } : {}, stop: flow.stop,
          });
          assert.equal(again.callback, undefined);
          assert.equal(again.page.status, 400);
        }
      });
    });

    it('takes a query or a slash for the same server, and keeps the canonical audience', async () => {
      const clientId = JSON.parse((await registerClient(world, 'spelling')).body).client_id;
      const browser = new Browser();
      for (const suffix of ['/', '?tenant=a', '/?x']) {
        const resource = world.gateway.mcpUrl('echo') + suffix;
        const { url, verifier } = authorizationRequest(world, 'echo', clientId);
        const target = new URL(url);
        const redirect = target.searchParams.get('redirect_uri');
        target.searchParams.set('resource', resource);
        const { callback } = await browser.act(target.href, world.persona(0), { stop: (at) => at.origin + at.pathname === redirect });
        const answer = await redeem(world, callback, { verifier, clientId, redirect }, { resource });
        assert.equal(answer.status, 200, `${suffix} ${answer.body}`);
        assert.equal(audience(answer.json.access_token), world.gateway.mcpUrl('echo'));
      }
    });

    it('takes an SDK that finds no metadata over the paths of 2025-03-26', async () => {
      const browser = new Browser();
      const { client, oauth, asked, close } = await connectClient('sdk1', world.gateway.mcpUrl('supplied'), {
        blind: true, openUrl: person(browser, world.persona(2, { server: 'supplied' })),
      });
      try {
        assert.ok(asked.includes('/register') && asked.includes('/token'), asked.join());
        assert.ok(browser.visited.some((url) => new URL(url).pathname === '/authorize'));
        assert.ok(!asked.some((path) => path.startsWith('/oauth/')), asked.join());
        world.tokens.add(oauth.tokens().access_token).add(oauth.tokens().refresh_token);
        assert.ok((await client.listTools()).tools.length > 0);
      } finally {
        await close();
      }
    });

    it('ignores unknown scopes at a refresh', async () => {
      const got = await obtainToken(world, 'echo', world.persona(0));
      const answer = await tokenRequest(world, {
        grant_type: 'refresh_token', refresh_token: got.refreshToken, client_id: got.clientId, scope: 'openid email profile offline_access',
      });
      assert.equal(answer.status, 200, answer.body);
      assert.equal(answer.json.scope, 'mcp');
    });

    describe('a page of a hosted client', () => {
      const preflight = (path, origin = HOSTED) => request(world.gateway.publicUrl + path, {
        method: 'OPTIONS',
        headers: { Origin: origin, 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'authorization,content-type,mcp-protocol-version' },
      });

      it('may register, get a token and call a server that demands one', async () => {
        for (const path of ['/mcp/echo', '/oauth/register', '/oauth/token', '/oauth/revoke', '/register', '/token']) {
          const answer = await preflight(path);
          assert.equal(answer.status, 204, path);
          assert.equal(answer.headers['access-control-allow-origin'], HOSTED, path);
          assert.match(answer.headers['access-control-allow-headers'], /authorization/i);
        }
        const refused = await rpc(world.gateway.mcpUrl('echo'), 'tools/list', {}, { headers: { Origin: HOSTED } });
        assert.equal(refused.status, 401);
        assert.equal(refused.headers['access-control-allow-origin'], HOSTED);
        assert.match(refused.headers['access-control-expose-headers'], /www-authenticate/i);
        const { accessToken: token } = await obtainToken(world, 'echo', world.persona(0));
        const answer = await rpc(world.gateway.mcpUrl('echo'), 'tools/list', {}, { token, headers: { Origin: HOSTED } });
        assert.equal(answer.status, 200);
        assert.equal(answer.headers['access-control-allow-origin'], HOSTED);
        const registered = await request(`${world.gateway.publicUrl}/oauth/register`, {
          method: 'POST', headers: { 'Content-Type': 'application/json', Origin: HOSTED },
          body: JSON.stringify({ redirect_uris: ['https://claude.ai/api/mcp/auth_callback'], client_name: 'Claude' }),
        });
        assert.equal(registered.status, 201);
        assert.equal(registered.headers['access-control-allow-origin'], HOSTED);
      });

      it('may not call a server that verifies nobody, nor any page', async () => {
        for (const path of ['/mcp/nightly', '/mcp/through', '/login', '/oauth/authorize', '/authorize']) {
          const before = await preflight(path);
          assert.equal(before.status, 403, path);
          assert.equal(before.headers['access-control-allow-origin'], undefined, path);
        }
        const refused = await rpc(world.gateway.mcpUrl('nightly'), 'tools/list', {}, { headers: { Origin: HOSTED } });
        assert.equal(refused.status, 403);
        assert.match(refused.body, /https:\/\/claude\.ai/);
        assert.match(refused.body, /deployment\.allowedOrigins/);
      });

      it('unknown, null and empty origins stay outside, and are told why', async () => {
        for (const origin of ['https://evil.example', 'null', '']) {
          assert.equal((await preflight('/mcp/echo', origin)).status, 403, origin);
          const refused = await rpc(world.gateway.mcpUrl('echo'), 'tools/list', {}, { headers: { Origin: origin } });
          assert.equal(refused.status, 403, origin);
        }
        const { body } = await rpc(world.gateway.mcpUrl('echo'), 'tools/list', {}, { headers: { Origin: 'https://evil.example' } });
        assert.match(body, /https:\/\/evil\.example/);
        assert.match(body, /deployment\.allowedOrigins/);
      });

      it('of any origin may read the public documents', async () => {
        for (const path of ['/.well-known/oauth-protected-resource/mcp/echo', '/.well-known/oauth-authorization-server', '/oauth/jwks']) {
          const answer = await request(world.gateway.publicUrl + path, { headers: { Origin: 'https://anybody.example' } });
          assert.equal(answer.status, 200, path);
          assert.equal(answer.headers['access-control-allow-origin'], '*', path);
        }
      });
    });

    it('gives a program that registers as another did no code without a click', async () => {
      const browser = new Browser();
      const { clientId } = await obtainToken(world, 'echo', world.persona(0), { browser });
      const impostor = JSON.parse((await registerClient(world)).body).client_id;
      assert.equal(impostor, clientId, 'equal registrations are one client');
      const { url } = authorizationRequest(world, 'echo', impostor);
      const redirect = new URL(url).searchParams.get('redirect_uri');
      const stop = (at) => at.origin + at.pathname === redirect;
      const { callback, page } = await browser.open(url, { stop });
      assert.equal(callback, undefined, 'a code went out without a click');
      const [form] = page.forms;
      assert.deepEqual(form.buttons.map(({ text }) => text.replace(/ as .*/, ' as …')), ['Don’t allow', 'Continue as …']);
      // The one click.
      const gone = await browser.submit(page, form, { button: form.buttons[1], stop });
      assert.ok(gone.callback.searchParams.get('code'));
    });

    it('shows users of a platform that the administrator approved no page of ours', async () => {
      const browser = new Browser();
      const stop = (at) => at.origin + at.pathname === PLATFORM;
      const asks = (slug) => {
        const { url, verifier } = authorizationRequest(world, slug, 'chatbot');
        const target = new URL(url);
        target.searchParams.set('redirect_uri', PLATFORM);
        return { url: target.href, verifier, clientId: 'chatbot', redirect: PLATFORM };
      };
      const flow = asks('echo');
      const { callback } = await browser.act(flow.url, world.persona(3), { stop });
      assert.ok(callback?.searchParams.get('code'));
      assert.ok(!browser.visited.some((url) => new URL(url).pathname === '/oauth/consent'), browser.visited.join('\n'));
      const without = await redeem(world, callback, flow);
      assert.equal(without.status, 401, 'a code is worth nothing without the secret');
      const answer = await redeem(world, callback, flow, { client_secret: platformSecret });
      assert.equal(answer.status, 200, answer.body);
      await opensOnly(world, answer.json.access_token, 'echo');
      // Signed in, for a server it is not approved for.
      const other = await browser.open(asks('supplied').url, { stop });
      assert.equal(other.callback, undefined);
      assert.match(other.page.html, /registered by your administrator/);
      const event = await waitFor(async () => (await world.gateway.auditEvents())
        .find(({ type, clientId }) => type === 'code.issued' && clientId === 'chatbot'), 'the record of the code');
      assert.equal(event.rule, 'client.approved');
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });

  describe(`one Interactive server, ${topology}`, () => {
    let world;
    before(async () => {
      world = await startWorld(topology, {
        users: 1,
        resources: ({ echo, secrets }) => ({
          mcpServers: [
            {
              slug: 'only', upstreamUrl: echo.url, agentAuth: { interactive: { allow: { everyone: true } } },
              appAuth: { apiKey: { name: 'X-API-Key', value: { value: secrets.apiKey } } },
            },
            { slug: 'open', upstreamUrl: echo.url, agentAuth: { passthrough: {} }, appAuth: { passthrough: {} } },
          ],
        }),
      });
    });
    after(() => world?.close());

    it('is the one a client means that names none', async () => {
      const clientId = JSON.parse((await registerClient(world)).body).client_id;
      for (const resource of [undefined, world.gateway.publicUrl, `${world.gateway.publicUrl}/`]) {
        const flow = { clientId, ...withoutResource(authorizationRequest(world, 'only', clientId)) };
        const url = new URL(flow.url);
        if (resource) url.searchParams.set('resource', resource);
        const { callback } = await new Browser().act(url.href, world.persona(0), { stop: flow.stop });
        const answer = await redeem(world, callback, flow, resource ? { resource } : {});
        assert.equal(answer.status, 200, answer.body);
        assert.equal(audience(answer.json.access_token), world.gateway.mcpUrl('only'));
        const called = await rpc(world.gateway.mcpUrl('only'), 'tools/list', {}, { token: answer.json.access_token });
        assert.equal(called.status, 200);
      }
    });

    it('takes an SDK of that age there without a question of which', async () => {
      const { client, oauth, asked, close } = await connectClient('sdk1', world.gateway.mcpUrl('only'), {
        blind: true, openUrl: person(new Browser(), world.persona(0)),
      });
      assert.ok(asked.includes('/token'), asked.join());
      world.tokens.add(oauth.tokens().access_token).add(oauth.tokens().refresh_token);
      assert.ok((await client.listTools()).tools.length > 0);
      await close();
    });
  });
}

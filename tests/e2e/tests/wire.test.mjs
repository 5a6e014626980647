// SPDX-License-Identifier: Apache-2.0
// What goes over the wire: header rules, sessions, upstream refusals, streaming, disconnects.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, initialize, request, rpc, toolText } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';

const TRACE = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
const seen = (answer) => JSON.parse(toolText(answer)).headers;

for (const topology of TOPOLOGIES) {
  describe(`wire, ${topology}`, () => {
    let world;
    let tokens;
    before(async () => {
      world = await startWorld(topology, { users: 2 });
      tokens = {};
      for (const slug of ['echo', 'supplied', 'idp-token', 'trick', 'trick-supplied']) {
        tokens[slug] = (await obtainToken(world, slug, world.persona(0))).accessToken;
      }
      tokens.other = (await obtainToken(world, 'echo', world.persona(1))).accessToken;
    });
    after(() => world?.close());
    const call = (slug, tool, args = {}, options = {}) => callTool(world.gateway.mcpUrl(slug), tool, args, { token: tokens[slug], ...options });

    // Calls the echo server; resolves with (name) => the values it got under that name, one a line of the request's head. A name counts
    // in any spelling: many servers take an underscore for a hyphen.
    const onWire = async (slug, headers) => {
      const answer = await call(slug, 'headers', {}, { headers });
      assert.equal(answer.status, 200, answer.body);
      const { rawHeaders } = world.echo.requests.at(-1);
      return (name) => rawHeaders.filter((_value, i) => i % 2 === 1 && rawHeaders[i - 1].toLowerCase().replaceAll('_', '-') === name);
    };

    describe('requests upstream', () => {
      it('lose what a caller may not send, whatever its spelling', async () => {
        const values = await onWire('echo', {
          Cookie: 'a=b', Forwarded: 'for=1.2.3.4', 'X-Forwarded-For': '1.2.3.4', 'X-Forwarded-Proto': 'https', X_Forwarded_Host: 'evil',
          'X-Real-IP': '1.2.3.4', 'X-Original-URL': '/admin', 'X-Rewrite-URL': '/admin', 'X-HTTP-Method-Override': 'DELETE',
          Referer: 'http://x/', 'Proxy-Authorization': 'Basic eDp5', 'Sec-Fetch-Site': 'cross-site', 'X-Sallyport-User': 'root',
          X_Sallyport_User: 'root', Connection: 'keep-alive, X-Hop', 'X-Hop': 'gone', TE: 'trailers', 'X-Internal-Role': 'admin',
          X_Internal_Other: 'admin', 'X-Fine': 'yes', Traceparent: TRACE, 'Remote-User': 'root', X_Forwarded_User: 'root',
          'Impersonate-User': 'root', 'X-WebAuth-User': 'root', 'Cf-Access-Jwt-Assertion': 'root', Proxy: 'http://evil.example.com',
        });
        assert.deepEqual(values('x-fine'), ['yes']);
        assert.deepEqual(values('traceparent'), [TRACE]);
        for (const gone of ['cookie', 'forwarded', 'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-real-ip', 'x-original-url',
          'x-rewrite-url', 'x-http-method-override', 'referer', 'proxy-authorization', 'sec-fetch-site', 'x-sallyport-user', 'x-hop', 'te',
          'x-internal-role', 'x-internal-other', 'authorization', 'origin', 'remote-user', 'x-forwarded-user', 'impersonate-user',
          'x-webauth-user', 'cf-access-jwt-assertion', 'proxy']) {
          assert.deepEqual(values(gone), [], gone);
        }
      });

      it('carry what the server\'s configuration sets, once, whatever the caller sends under these names', async () => {
        const values = await onWire('echo', {
          'X-API-Key': 'mine', X_API_Key: 'mine', 'x-api_key': 'mine', 'X-USER': 'someone else', x_user: 'someone else', 'X-Email': 'x@example.com',
          X_EMAIL: 'x@example.com', 'x-team': 'others', X_Team: 'others', 'X-LITERAL-SECRET': 'mine', 'x-literal_secret': 'mine',
        });
        const configured = {
          'x-api-key': world.secrets.apiKey, 'x-user': world.subject(0), 'x-email': world.idp.users[0].email, 'x-team': 'platform',
          'x-literal-secret': world.secrets.literal, host: new URL(world.echo.url).host,
        };
        for (const [name, value] of Object.entries(configured)) assert.deepEqual(values(name), [value], name);
      });

      it('keep the caller\'s own authorization on Passthrough in and out, and a copy where asked', async () => {
        const headers = await seen(await call('through', 'headers', {}, { headers: { Authorization: 'Bearer mine' } }));
        assert.equal(headers.authorization, 'Bearer mine');
        assert.match(headers['x-caller-token'], /mine$/);
      });

      it('carry X-Sallyport-Authorization as Authorization where the agent brings its own credential', async () => {
        const headers = await seen(await call('supplied', 'headers', {}, { headers: { 'X-Sallyport-Authorization': 'Bearer upstream-token' } }));
        assert.equal(headers.authorization, 'Bearer upstream-token');
        assert.equal(headers['x-sallyport-authorization'], undefined);
        assert.equal((await seen(await call('supplied', 'headers'))).authorization, undefined);
      });

      it('carry the identity provider\'s token of the sign-in, never ours', async () => {
        const value = (await seen(await call('idp-token', 'headers')))['x-idp-token'];
        assert.match(value, /^Bearer \S+$/);
        assert.ok(world.idp.secrets.has(value.slice(7)), 'a token the identity provider gave out');
        assert.ok(!world.echo.requests.some((entry) => JSON.stringify(entry.headers).includes(tokens['idp-token'])));
      });

      it('never carry our own token through a Passthrough server', async () => {
        assert.equal((await call('through', 'headers', {}, { headers: { Authorization: `Bearer ${tokens.echo}` } })).status, 401);
      });

      it('replace a query key the caller sent, and keep the rest of the query', async () => {
        const url = `${world.gateway.mcpUrl('query')}?api_key=mine&api%5Fkey=mine&API_KEY=mine&page=2;api.key=mine`;
        await callTool(url, 'headers');
        const last = new URL(world.echo.requests.at(-1).url, 'http://echo').searchParams;
        assert.deepEqual(last.getAll('api_key'), [world.secrets.query]);
        assert.ok(!world.echo.requests.at(-1).url.includes('mine'));
        assert.equal(last.get('page'), '2');
      });
    });

    describe('the front door', () => {
      it('refuses a foreign Host and a foreign Origin with 403', async () => {
        const url = world.gateway.mcpUrl('nightly');
        assert.equal((await callTool(url, 'echo', {}, { headers: { Host: 'evil.example.com' } })).status, 403);
        assert.equal((await callTool(url, 'echo', {}, { headers: { Origin: 'http://evil.example.com' } })).status, 403);
        assert.equal((await callTool(url, 'echo', {}, { headers: { Origin: world.gateway.publicUrl } })).status, 200);
      });

      it('answers a preflight without authentication', async () => {
        const response = await request(world.gateway.mcpUrl('echo'), {
          method: 'OPTIONS', headers: { Origin: world.gateway.publicUrl, 'Access-Control-Request-Method': 'POST' },
        });
        assert.ok([200, 204].includes(response.status), String(response.status));
        assert.match(response.headers['access-control-allow-headers'].toLowerCase(), /mcp-session-id/);
      });

      it('answers an unknown server with 404 and a duplicate JSON key with 400', async () => {
        assert.equal((await rpc(world.gateway.mcpUrl('no-such'), 'tools/list')).status, 404);
        const response = await request(world.gateway.mcpUrl('nightly'), {
          method: 'POST', headers: { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' },
          body: '{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}',
        });
        assert.equal(response.status, 400);
      });
    });

    describe('answers', () => {
      it('lose what only the gateway may say', async () => {
        const headers = {
          'Set-Cookie': 'a=b', Server: 'secret/1', 'Clear-Site-Data': '"*"', 'Strict-Transport-Security': 'max-age=1', 'Alt-Svc': 'h3=":1"',
          Refresh: '0;url=http://evil/', 'Content-Security-Policy': "default-src 'none'", Link: '<x>; rel=preload', NEL: '{}', 'Report-To': '{}',
          'Service-Worker-Allowed': '/', 'Access-Control-Allow-Origin': '*', 'X-Fine': 'yes', Location: 'http://evil/',
          'Content-Disposition': 'attachment', 'X-Accel-Redirect': '/secret', 'CDN-Cache-Control': 'max-age=60', 'Cache-Control': 'public',
          'X-Content-Type-Options': 'sniff', 'Cross-Origin-Resource-Policy': 'cross-origin',
        };
        const answer = await call('trick', 'x', { status: 200, headers });
        assert.equal(answer.headers['x-fine'], 'yes');
        for (const gone of ['set-cookie', 'clear-site-data', 'strict-transport-security', 'alt-svc', 'refresh', 'link', 'nel', 'report-to',
          'service-worker-allowed', 'access-control-allow-origin', 'location', 'content-disposition', 'x-accel-redirect', 'cdn-cache-control']) {
          assert.equal(answer.headers[gone], undefined, gone);
        }
        assert.equal(answer.headers['content-security-policy'], "sandbox; default-src 'none'; frame-ancestors 'none'");
        assert.equal(answer.headers['cache-control'], 'no-store, no-transform');
        assert.equal(answer.headers['x-content-type-options'], 'nosniff');
        assert.equal(answer.headers['cross-origin-resource-policy'], 'same-origin');
        assert.notEqual(answer.headers.server, 'secret/1');
      });

      it('relay a 401 on Passthrough in and out, and turn it into 502 elsewhere', async () => {
        const refusal = { status: 401, headers: { 'WWW-Authenticate': 'Bearer realm="upstream"' }, body: '{"error":"no"}' };
        const relayed = await call('trick-open', 'x', refusal);
        assert.equal(relayed.status, 401);
        assert.equal(relayed.headers['www-authenticate'], 'Bearer realm="upstream"');
        const shared = await call('trick', 'x', refusal);
        assert.equal(shared.status, 502);
        assert.equal(shared.headers['www-authenticate'], undefined);
        const supplied = await call('trick-supplied', 'x', refusal, { headers: { 'X-Sallyport-Authorization': 'Bearer bad' } });
        assert.equal(supplied.status, 502);
        assert.match(supplied.body, /agent_credential_refused/);
      });

      it('say 502 when the upstream cuts before the answer, and break when it cuts within', async () => {
        assert.equal((await call('trick', 'x', { reset: 'before' })).status, 502);
        await assert.rejects(call('trick', 'x', { reset: 'after' }));
      });

      it('stream event by event', async () => {
        const at = [];
        await call('trick', 'x', { events: 5, everyMs: 100 }, { onResponse: (res) => res.on('data', () => at.push(Date.now())) });
        assert.ok(at.length >= 5 && at.at(-1) - at[0] >= 350, `chunks at ${at.map((time) => time - at[0])}`);
      });

      it('reach the upstream\'s notice when the client goes', async () => {
        const gone = new AbortController();
        const before = world.trickster.disconnects.length;
        await assert.rejects(call('trick', 'x', { hang: true }, { signal: gone.signal, onResponse: () => setTimeout(() => gone.abort(), 50) }));
        await waitFor(() => world.trickster.disconnects.length > before, 'the upstream to notice', 3000);
        const late = new AbortController();
        const slow = call('trick', 'x', { delayMs: 3000 }, { signal: late.signal });
        setTimeout(() => late.abort(), 200);
        await assert.rejects(slow);
        await waitFor(() => world.trickster.disconnects.length > before + 1, 'the upstream to notice while it thinks', 2000);
      });
    });

    describe('sessions of 2025-11-25', () => {
      it('belong to their user', async () => {
        const url = world.gateway.mcpUrl('echo');
        const { session } = await initialize(url, { token: tokens.echo });
        assert.ok(session);
        const list = (options) => rpc(url, 'tools/list', {}, { era: 'legacy', session, ...options });
        assert.equal((await list({ token: tokens.echo })).status, 200);
        assert.equal((await list({ token: tokens.other })).status, 404);
        const last = session.at(-1) === 'A' ? 'B' : 'A';
        assert.equal((await list({ token: tokens.echo, session: session.slice(0, -1) + last })).status, 404);
        assert.equal((await list({ token: tokens.echo, session: 'made-up' })).status, 404);
        const upstream = world.echo.requests.at(-1).headers['mcp-session-id'];
        assert.ok(upstream && upstream !== session && session.startsWith(upstream), 'the upstream sees its own id');
      });

      it('hold a stream open and end with DELETE', async () => {
        const url = world.gateway.mcpUrl('echo');
        const { session } = await initialize(url, { token: tokens.echo });
        const headers = { Authorization: `Bearer ${tokens.echo}`, 'Mcp-Session-Id': session, 'MCP-Protocol-Version': '2025-11-25' };
        const gone = new AbortController();
        let first;
        const stream = request(url, {
          headers: { ...headers, Accept: 'text/event-stream' }, signal: gone.signal,
          onResponse: (res) => res.once('data', (chunk) => { first = chunk; gone.abort(); }),
        });
        await assert.rejects(stream);
        assert.ok(first);
        const ended = await request(url, { method: 'DELETE', headers });
        assert.ok([200, 204].includes(ended.status), String(ended.status));
        assert.equal((await rpc(url, 'tools/list', {}, { era: 'legacy', session, token: tokens.echo })).status, 404);
      });
    });

    it('an admin\'s revocation ends the user\'s tokens within a second', async () => {
      const { accessToken } = await obtainToken(world, 'echo', world.persona(1));
      const list = () => rpc(world.gateway.mcpUrl('echo'), 'tools/list', {}, { token: accessToken });
      assert.equal((await list()).status, 200);
      await world.gateway.api('sallyport.authn.v1.Authn/RevokeUser', { subject: world.subject(1) });
      await sleep(1100);
      assert.equal((await list()).status, 401);
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

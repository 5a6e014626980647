// SPDX-License-Identifier: Apache-2.0
// The test world tests itself, without a gateway.
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import * as oidc from 'openid-client';
import { createHash, randomBytes } from 'node:crypto';
import { Browser, parseForms } from './browser.mjs';
import { actInChromium, openChromium } from './chromium.mjs';
import { createEchoListener } from '../../../tools/demo/echo-server.mjs';
import { CALLBACK, connectClient, connectMcpRemote, person, personToTheEnd } from './clients.mjs';
import { callTool, initialize, request, rpc, toolText } from './http-client.mjs';
import { HARMLESS_ALONE, startHostile } from './hostile.mjs';
import { freePort, listen, sendJson, waitFor } from './http.mjs';
import { makeUsers, startIdp } from './idp.mjs';
import { startProvider } from './provider.mjs';
import { startEcho, startTrickster } from './upstream.mjs';

const redirectUri = CALLBACK;
const stop = (url) => url.origin + url.pathname === CALLBACK;

describe('identity provider', async () => {
  const client = { client_id: 'probe', client_secret: randomBytes(16).toString('hex'), redirect_uris: [redirectUri] };
  const idp = await startIdp({ users: makeUsers(2), clients: [client] });
  after(() => idp.close());
  const config = await oidc.discovery(new URL(idp.issuer), client.client_id, client.client_secret, undefined,
    { execute: [oidc.allowInsecureRequests] });

  const signIn = async (play) => {
    const verifier = oidc.randomPKCECodeVerifier();
    const state = oidc.randomState();
    const nonce = oidc.randomNonce();
    const url = oidc.buildAuthorizationUrl(config, {
      redirect_uri: redirectUri, scope: 'openid email profile', state, nonce, code_challenge_method: 'S256',
      code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
    });
    const { callback } = await play(url.href);
    return oidc.authorizationCodeGrant(config, callback, { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce });
  };
  const personaOf = (user) => ({ accounts: { [idp.issuer]: user } });

  it('signs each user in with the claims of that user, and refreshes', async () => {
    for (const user of idp.users) {
      const tokens = await signIn((url) => new Browser().act(url, personaOf(user), { stop }));
      const claims = tokens.claims();
      assert.equal(claims.sub, user.sub);
      // The claims of the scopes email and profile come from UserInfo alone (OpenID Connect Core 5.4).
      assert.equal(claims.email, undefined);
      const info = await oidc.fetchUserInfo(config, tokens.access_token, user.sub);
      assert.equal(info.email, user.email);
      assert.deepEqual(info.groups, user.groups);
      for (const name of ['access_token', 'id_token', 'refresh_token']) assert.equal(idp.owners.get(tokens[name]), user.sub, name);
      const renewed = await oidc.refreshTokenGrant(config, tokens.refresh_token);
      assert.equal(renewed.claims().sub, user.sub);
      assert.notEqual(renewed.access_token, tokens.access_token);
    }
  });

  it('refuses a wrong password', async () => {
    const { page } = await new Browser().act(
      `${idp.issuer}/auth?client_id=probe&response_type=code&scope=openid&redirect_uri=${encodeURIComponent(redirectUri)}` +
      '&code_challenge_method=S256&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
      personaOf({ ...idp.users[0], password: 'wrong' }), { stop });
    assert.equal(page.status, 403);
  });

  it('works in Chromium', async () => {
    const tokens = await signIn((url) => actInChromium(url, personaOf(idp.users[1]), { stop }));
    assert.equal(tokens.claims().sub, idp.users[1].sub);
  });
});

describe('hostile server', () => {
  it('has its script run by a browser that is shown its pages', async () => {
    const hostile = await startHostile();
    const { page, close } = await openChromium();
    try {
      for (const name of hostile.names.filter((disguise) => !HARMLESS_ALONE.includes(disguise))) {
        hostile.reports.length = 0;
        await page.goto(hostile.url(name));
        await waitFor(() => hostile.reports.some(({ what }) => what === 'ran'), `the script of ${name}`);
      }
    } finally {
      await close();
      await hostile.close();
    }
  });
});

describe('provider', async () => {
  const client = { client_id: 'gateway', client_secret: 'a secret & more', redirect_uris: [redirectUri] };
  const users = makeUsers(2, 'dev');
  const provider = await startProvider({ users, clients: [client] });
  after(() => provider.close());

  const post = async (path, fields) => {
    const response = await request(provider.url + path, {
      method: 'POST', headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({ client_id: client.client_id, client_secret: client.client_secret, ...fields }).toString(),
    });
    return { ...response, json: response.body.startsWith('{') ? JSON.parse(response.body) : undefined };
  };
  const link = async (user) => {
    const verifier = randomBytes(32).toString('base64url');
    const url = new URL(provider.authorizationUrl);
    url.search = new URLSearchParams({
      client_id: client.client_id, redirect_uri: redirectUri, response_type: 'code', scope: 'repo', state: 's',
      code_challenge: createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256',
    });
    const { callback } = await new Browser().act(url.href, { accounts: { [provider.url]: user } }, { stop });
    const { json } = await post('/token', {
      grant_type: 'authorization_code', code: callback.searchParams.get('code'), redirect_uri: redirectUri, code_verifier: verifier,
    });
    return json;
  };
  const refresh = (token) => post('/token', { grant_type: 'refresh_token', refresh_token: token });

  it('answers its tools in the name of the token\'s user, in both eras', async () => {
    for (const user of users) {
      const { access_token: token } = await link(user);
      assert.equal(toolText(await callTool(provider.mcpUrl, 'whoami', {}, { token })), user.username);
      const { session } = await initialize(provider.mcpUrl, { token });
      const answer = await callTool(provider.mcpUrl, 'list_pull_requests', {}, { token, era: 'legacy', session });
      assert.equal(JSON.parse(toolText(answer))[0].author, user.username);
    }
    assert.equal((await callTool(provider.mcpUrl, 'whoami', {}, { token: 'nonsense' })).status, 401);
  });

  it('revokes the family when a rotated refresh token comes again', async () => {
    const { refresh_token: first } = await link(users[0]);
    const second = (await refresh(first)).json;
    assert.equal((await refresh(first)).json.error, 'invalid_grant');
    assert.equal((await refresh(second.refresh_token)).json.error, 'invalid_grant');
    assert.equal((await callTool(provider.mcpUrl, 'whoami', {}, { token: second.access_token })).status, 401);
  });

  it('answers the same successor within the grace', async () => {
    provider.settings.rotation = 'grace';
    const { refresh_token: first } = await link(users[0]);
    const second = (await refresh(first)).json;
    const again = (await refresh(first)).json;
    assert.equal(again.refresh_token, second.refresh_token);
    assert.notEqual(again.access_token, second.access_token);
    assert.equal((await refresh(second.refresh_token)).status, 200);
    provider.settings.rotation = 'strict';
  });

  it('keeps a static refresh token', async () => {
    provider.settings.rotation = 'static';
    const { refresh_token: first } = await link(users[0]);
    assert.equal((await refresh(first)).json.refresh_token, first);
    assert.equal((await refresh(first)).json.refresh_token, first);
    provider.settings.rotation = 'strict';
  });

  it('fails as it is told to, and forgets nobody over it', async () => {
    const { refresh_token: token } = await link(users[0]);
    for (const [kind, status] of [['429', 429], ['500', 500], ['invalid_client', 401], ['html', 200]]) {
      provider.failNext(kind);
      assert.equal((await refresh(token)).status, status);
    }
    assert.ok((await refresh(token)).json.access_token);
  });

  it('judges no refresh before it is decided', async () => {
    const { refresh_token: token } = await link(users[0]);
    provider.stallRefresh(users[0].username, { thinkMs: 100 });
    const before = provider.refreshes().length;
    const answer = refresh(token);
    await waitFor(() => provider.refreshes().length > before, 'the refresh to come');
    assert.equal(provider.refreshes().at(-1).outcome, 'pending');
    assert.equal((await provider.decidedRefreshes()).at(-1).outcome, 'ok');
    assert.equal((await answer).status, 200);
  });

  it('lets access tokens expire', async () => {
    const { access_token: token } = await link(users[0]);
    provider.expireAccessTokens();
    assert.equal((await callTool(provider.mcpUrl, 'whoami', {}, { token })).status, 401);
  });

  it('revokes', async () => {
    const tokens = await link(users[1]);
    assert.equal((await post('/revoke', { token: tokens.refresh_token })).status, 200);
    assert.equal((await refresh(tokens.refresh_token)).json.error, 'invalid_grant');
    assert.equal(provider.records.revocations.at(-1).user, users[1].username);
  });
});

describe('echo server', async () => {
  const echo = await startEcho();
  after(() => echo.close());

  for (const kind of ['sdk1', 'client2', 'client2-auto']) {
    it(`serves ${kind}`, async () => {
      const { client, close } = await connectClient(kind, echo.url, { headers: { 'X-Probe': kind } });
      assert.deepEqual((await client.listTools()).tools.map((tool) => tool.name), ['echo', 'headers']);
      const echoed = await client.callTool({ name: 'echo', arguments: { message: 'hello' } });
      assert.deepEqual(JSON.parse(echoed.content[0].text), { message: 'hello' });
      const seen = await client.callTool({ name: 'headers', arguments: {} });
      assert.equal(JSON.parse(seen.content[0].text).headers['x-probe'], kind);
      await close();
    });
  }

  it('answers an unknown session with 404 and an unknown method with -32601', async () => {
    assert.equal((await rpc(echo.url, 'tools/list', {}, { era: 'legacy', session: 'nobody' })).status, 404);
    const answer = await rpc(echo.url, 'no/such');
    assert.equal(answer.status, 404);
    assert.equal(answer.message.error.code, -32601);
  });

  it('refuses headers that contradict the body', async () => {
    const answer = await rpc(echo.url, 'tools/list', {}, { headers: { 'mcp-method': 'tools/call' } });
    assert.equal(answer.message.error.code, -32020);
  });
});

describe('client drivers', async () => {
  const port = await freePort();
  const resource = `http://127.0.0.1:${port}/mcp`;
  const as = await startIdp({ users: makeUsers(1), resources: [resource] });
  const echo = createEchoListener({ mask: false });
  const site = await listen((req, res) => {
    if (req.url.startsWith('/.well-known/oauth-protected-resource')) {
      return sendJson(res, 200, { resource, authorization_servers: [as.issuer], scopes_supported: ['mcp'] });
    }
    if (!req.headers.authorization) {
      res.writeHead(401, {
        'WWW-Authenticate': `Bearer resource_metadata="http://127.0.0.1:${port}/.well-known/oauth-protected-resource/mcp", scope="mcp"`,
      });
      return res.end();
    }
    return echo(req, res);
  }, port);
  after(async () => {
    await site.close();
    await as.close();
  });
  const persona = { accounts: { [as.issuer]: as.users[0] } };
  const whole = async (client) => {
    assert.equal((await client.listTools()).tools.length, 2);
    const { content } = await client.callTool({ name: 'headers', arguments: {} });
    assert.match(JSON.parse(content[0].text).headers.authorization, /^Bearer ey/);
  };

  for (const kind of ['sdk1', 'client2', 'client2-auto']) {
    it(`take ${kind} through a browser sign-in`, async () => {
      const { client, oauth, close } = await connectClient(kind, resource, { openUrl: person(new Browser(), persona) });
      await whole(client);
      assert.equal(oauth.authorizations, 1);
      await close();
    });
  }

  it('take mcp-remote through a browser sign-in', async () => {
    const { client, close } = await connectMcpRemote(resource, { openUrl: personToTheEnd(new Browser(), persona) });
    await whole(client).finally(close);
  });
});

describe('trickster', async () => {
  const upstream = await startTrickster();
  after(() => upstream.close());

  it('streams event by event', async () => {
    const at = [];
    await callTool(upstream.url, 'x', { events: 3, everyMs: 50 }, { onResponse: (res) => res.on('data', () => at.push(Date.now())) });
    assert.ok(at.length >= 3 && at.at(-1) - at[0] >= 80, `chunks at ${at}`);
  });

  it('notices that the client is gone', async () => {
    const gone = new AbortController();
    await assert.rejects(callTool(upstream.url, 'x', { hang: true }, { signal: gone.signal, onResponse: () => gone.abort() }));
    await waitFor(() => upstream.disconnects.length === 1, 'the disconnect');
  });

  it('cuts the connection', async () => {
    await assert.rejects(callTool(upstream.url, 'x', { reset: 'before' }));
    await assert.rejects(callTool(upstream.url, 'x', { reset: 'after' }));
  });
});

describe('waitFor', () => {
  it('tries again after an error, and gives up at once when an assertion fails', async () => {
    let tries = 0;
    assert.equal(await waitFor(() => {
      if (tries++ < 2) throw new Error('not yet');
      return 'done';
    }, 'the third try', 1000, 1), 'done');
    const began = Date.now();
    await assert.rejects(waitFor(() => assert.fail('never'), 'nothing', 1000, 1), { name: 'AssertionError', message: 'never' });
    assert.ok(Date.now() - began < 500);
  });
});

describe('browser', () => {
  it('reads forms as a browser does', () => {
    const [form] = parseForms('<form method=post action="/go?a=1&amp;b=2"><input type=hidden name=t value="a&quot;b">' +
        "<input name='u'><button name=d value=yes>Al<b>low</b></button></form>", 'http://h/x');
    assert.equal(form.action, 'http://h/go?a=1&b=2');
    assert.deepEqual(form.fields, { t: 'a"b', u: '' });
    assert.deepEqual(form.buttons, [{ name: 'd', value: 'yes', text: 'Al low' }]);
  });
});

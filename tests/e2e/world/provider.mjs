// SPDX-License-Identifier: Apache-2.0
// An OAuth-protected product in the manner of a code host: an authorization server of its own users, an MCP server that demands
// its access tokens, and a record of everything that happened, so that a test can prove how often a token was refreshed.
import { createHash, randomBytes } from 'node:crypto';
import { escapeHtml, inTrouble, listen, readBody, sendHtml, sendJson, sleep, waitFor, webHandler } from './http.mjs';
import { dualEraEndpoint } from './mcp-endpoint.mjs';
import { McpServer, z } from './mcp-server-sdk.mjs';
import { rememberFields } from './secrets.mjs';

const random = (prefix) => `${prefix}_${randomBytes(18).toString('base64url')}`;

// Options, all changeable later through `settings`:
//   rotation        'strict' (a refresh token works once; using it again revokes the whole family), 'grace' (the former token works
//                   graceMs longer and yields the same successor again), 'static' (the refresh token stays)
//   accessSeconds   life of an access token, or a function that gives the next one's; expires_in is sent unless sendExpiresIn is false
//   answerDelayMs   between handling a token request and answering it
//   issuerInCallback  RFC 9207 `iss`
//   tokenType       'bearer', or what else token answers say
//   clientAuth      'basic' or 'post': clients that authenticate otherwise are refused; both are taken by default
//   trouble         of the token endpoint (inTrouble)
//   revocationTrouble  of the revocation endpoint (inTrouble); what it is asked meanwhile is on record with `refused`
//   revocationDelayMs  between taking a request at the revocation endpoint and answering it
//   userinfo        what /userinfo says of the user of an access token, as a function of { user, family }; 404 by default
//   metadata        members of a metadata document (RFC 8414) beside issuer and endpoints; there is none by default
// stallRefresh(username, { thinkMs, dropIfGone, answerMs }): this user's next refresh is handled thinkMs after it came (not at all if
// its sender is gone by then and dropIfGone is set), and answered answerMs after that.
// failNext(kind, count): the next token requests are answered '429', '500', 'invalid_client', 'invalid_grant', 'html' or 'reset'.
// refuseCalls(count): the MCP server answers the next calls 401, whatever token they carry.
// refuseRefresh(username, { status, body }): every refresh of this user is answered so, until it is called without an answer.
// A record of a token request has `auth`, how the client authenticated ('basic', 'post' or 'none'), `answeredAt` once it was answered, and with a token `endsAt`, the end of that token's life.
export async function startProvider({ users = [], clients = [], ...options } = {}) {
  const settings = {
    rotation: 'strict', graceMs: 5000, accessSeconds: 3600, sendExpiresIn: true, answerDelayMs: 0, revocationDelayMs: 0, issuerInCallback: false,
    tokenType: 'bearer', ...options,
  };
  const state = {
    codes: new Map(), access: new Map(), refresh: new Map(), families: new Map(), sessions: new Map(), failures: [],
    stalls: new Map(), refusals: new Map(), refusedCalls: 0,
  };
  const records = { tokenRequests: [], revocations: [], authorizations: [], mcpRequests: [] };
  const secrets = new Set([...users.map((user) => user.password), ...clients.map((client) => client.client_secret).filter(Boolean)]);
  let site;

  const mintAccess = (family) => {
    const accessToken = random('pat');
    secrets.add(accessToken);
    const { accessSeconds } = settings;
    const seconds = typeof accessSeconds === 'function' ? accessSeconds() : accessSeconds;
    state.access.set(accessToken, { family, expiresAt: Date.now() + seconds * 1000 });
    return {
      access_token: accessToken, token_type: settings.tokenType, scope: family.scope, ...(settings.sendExpiresIn ? { expires_in: seconds } : {}),
    };
  };
  const mintTokens = (family) => {
    const refreshToken = settings.rotation === 'static' && family.current ? family.current : random('prt');
    secrets.add(refreshToken);
    state.refresh.set(refreshToken, family);
    family.current = refreshToken;
    return { ...mintAccess(family), refresh_token: refreshToken };
  };

  const authOf = (req, fields) => /^Basic /i.test(req.headers.authorization ?? '') ? 'basic' : fields.has('client_secret') ? 'post' : 'none';
  const clientOf = (req, fields) => {
    if (settings.clientAuth && authOf(req, fields) !== settings.clientAuth) return undefined;
    let id = fields.get('client_id');
    let secret = fields.get('client_secret');
    const basic = /^Basic (.+)$/i.exec(req.headers.authorization ?? '')?.[1];
    if (basic) {
      const [rawId, rawSecret] = Buffer.from(basic, 'base64').toString('utf8').split(':');
      id = decodeURIComponent(rawId);
      secret = decodeURIComponent(rawSecret ?? '');
    }
    const client = clients.find((candidate) => candidate.client_id === id);
    return client && (client.client_secret ?? null) === (secret || null) ? client : undefined;
  };

  const exchangeCode = (fields, client) => {
    const code = state.codes.get(fields.get('code'));
    state.codes.delete(fields.get('code'));
    const challenge = createHash('sha256').update(fields.get('code_verifier') ?? '').digest('base64url');
    if (!code || code.expiresAt < Date.now() || code.client !== client || code.redirectUri !== fields.get('redirect_uri') ||
        (code.challenge && code.challenge !== challenge)) {
      return { error: 'invalid_grant' };
    }
    const family = { id: state.families.size + 1, user: code.user, scope: code.scope, client, revoked: false };
    state.families.set(family.id, family);
    return { family, answer: mintTokens(family) };
  };

  const refresh = (fields, client) => {
    const token = fields.get('refresh_token');
    const family = state.refresh.get(token);
    if (!family || family.revoked || family.client !== client) return { family, error: 'invalid_grant' };
    if (settings.rotation === 'static' || family.current === token) {
      family.previous = { token, at: Date.now() };
      return { family, answer: mintTokens(family) };
    }
    if (settings.rotation === 'grace' && family.previous?.token === token && Date.now() - family.previous.at < settings.graceMs) {
      return { family, answer: { ...mintAccess(family), refresh_token: family.current } };
    }
    if (settings.rotation === 'strict') family.revoked = true;
    return { family, error: 'invalid_grant', reused: true };
  };

  const token = async (req, res) => {
    if (inTrouble(settings.trouble, res)) return undefined;
    const fields = new URLSearchParams((await readBody(req)).toString('utf8'));
    rememberFields(fields);
    const record = { at: Date.now(), grant: fields.get('grant_type'), auth: authOf(req, fields), outcome: 'pending' };
    records.tokenRequests.push(record);
    res.on('finish', () => { record.answeredAt = Date.now(); });
    const owner = record.grant === 'refresh_token' && state.refresh.get(fields.get('refresh_token'))?.user.username;
    if (owner) record.user = owner;
    const failure = state.failures.shift();
    const client = clientOf(req, fields);
    let status = 200;
    let body;
    if (failure) {
      record.outcome = `injected ${failure}`;
      await sleep(settings.answerDelayMs);
      if (failure === 'reset') return req.socket.destroy();
      if (failure === 'html') return sendHtml(res, 200, '<h1>We are down for maintenance</h1>');
      status = { 429: 429, 500: 500, invalid_client: 401 }[failure] ?? 400;
      body = { error: { 429: 'slow_down', 500: 'server_error' }[failure] ?? failure };
      return sendJson(res, status, body, failure === '429' ? { 'Retry-After': '1' } : {});
    }
    if (!client) {
      record.outcome = 'invalid_client';
      return sendJson(res, 401, { error: 'invalid_client' });
    }
    const refusal = state.refusals.get(owner);
    if (refusal) {
      record.outcome = 'refused';
      return sendJson(res, refusal.status, refusal.body);
    }
    const stall = state.stalls.get(owner) ?? {};
    state.stalls.delete(owner);
    await sleep(stall.thinkMs ?? 0);
    if (stall.dropIfGone && req.socket.destroyed) {
      record.outcome = 'dropped';
      return undefined;
    }
    const result = record.grant === 'authorization_code' ? exchangeCode(fields, client)
      : record.grant === 'refresh_token' ? refresh(fields, client) : { error: 'unsupported_grant_type' };
    record.family = result.family?.id;
    record.user = result.family?.user.username;
    record.reused = result.reused ?? false;
    record.outcome = result.error ?? 'ok';
    record.endsAt = state.access.get(result.answer?.access_token)?.expiresAt;
    await sleep(settings.answerDelayMs + (stall.answerMs ?? 0));
    if (result.error) return sendJson(res, 400, { error: result.error });
    return sendJson(res, 200, result.answer, { 'Cache-Control': 'no-store' });
  };

  const revoke = async (req, res) => {
    const fields = new URLSearchParams((await readBody(req)).toString('utf8'));
    const client = clientOf(req, fields);
    const value = fields.get('token');
    const family = state.refresh.get(value) ?? state.access.get(value)?.family;
    const refused = settings.revocationTrouble !== undefined;
    records.revocations.push({
      at: Date.now(), client: client?.client_id, kind: state.refresh.has(value) ? 'refresh' : family ? 'access' : 'unknown',
      user: family?.user.username, family: family?.id, refused,
    });
    await sleep(settings.revocationDelayMs);
    if (inTrouble(settings.revocationTrouble, res)) return undefined;
    if (!client) return sendJson(res, 401, { error: 'invalid_client' });
    if (family) family.revoked = true;
    res.writeHead(200).end();
  };

  const cookieOf = (req, name) => req.headers.cookie?.match(new RegExp(`(?:^|; )${name}=([^;]*)`))?.[1];

  const authorize = async (req, res, url) => {
    const query = url.searchParams;
    const client = clients.find((candidate) => candidate.client_id === query.get('client_id'));
    if (!client || !client.redirect_uris.includes(query.get('redirect_uri'))) return sendHtml(res, 400, 'unknown client or redirect URI');
    const fields = req.method === 'POST' ? new URLSearchParams((await readBody(req)).toString('utf8')) : undefined;
    let user = state.sessions.get(cookieOf(req, 'provider_session'));
    const headers = {};
    if (fields?.has('username')) {
      user = users.find((candidate) => candidate.username === fields.get('username') && candidate.password === fields.get('password'));
      if (!user) return sendHtml(res, 403, 'wrong user name or password');
      const session = random('ses');
      state.sessions.set(session, user);
      headers['Set-Cookie'] = `provider_session=${session}; HttpOnly; Path=/`;
    }
    if (!user) {
      return sendHtml(res, 200, '<h1>Sign in to the code host</h1><form method="post"><input name="username">' +
          '<input name="password" type="password"><button type="submit">Sign in</button></form>');
    }
    const decision = fields?.get('decision');
    if (!decision) {
      return sendHtml(res, 200, `<h1>Allow ${escapeHtml(client.client_id)} to act as ${escapeHtml(user.username)}?</h1>` +
          '<form method="post"><button type="submit" name="decision" value="allow">Authorize</button>' +
          '<button type="submit" name="decision" value="deny">Deny</button></form>', headers);
    }
    const back = new URL(query.get('redirect_uri'));
    records.authorizations.push({ user: user.username, scope: query.get('scope'), pkce: query.get('code_challenge_method'), decision });
    if (decision === 'deny') {
      back.searchParams.set('error', 'access_denied');
    } else {
      const code = random('cod');
      secrets.add(code);
      state.codes.set(code, {
        client, user, redirectUri: query.get('redirect_uri'), scope: query.get('scope') ?? '', challenge: query.get('code_challenge'),
        expiresAt: Date.now() + 60000,
      });
      back.searchParams.set('code', code);
    }
    if (query.has('state')) back.searchParams.set('state', query.get('state'));
    if (settings.issuerInCallback) back.searchParams.set('iss', site.url);
    res.writeHead(302, { Location: back.href, ...headers }).end();
  };

  // The family of a living access token.
  const holder = (authorization) => {
    const value = /^Bearer (.+)$/i.exec(authorization ?? '')?.[1];
    const entry = state.access.get(value);
    return entry && entry.expiresAt > Date.now() && !entry.family.revoked ? entry.family : undefined;
  };

  const buildServer = (_era, authInfo) => {
    const server = new McpServer({ name: 'code-host', version: '1.0.0' });
    server.registerTool('whoami', { description: 'Who the token belongs to', inputSchema: z.object({}) },
      (_args, ctx) => ({ content: [{ type: 'text', text: (ctx.http?.authInfo ?? authInfo).extra.username }] }));
    server.registerTool('list_pull_requests', { description: 'Open pull requests of the user', inputSchema: z.object({}) },
      (_args, ctx) => {
        const { username } = (ctx.http?.authInfo ?? authInfo).extra;
        return { content: [{ type: 'text', text: JSON.stringify([{ number: 1, title: `Fix by ${username}`, author: username }]) }] };
      });
    return server;
  };
  const endpoint = dualEraEndpoint(buildServer);
  const mcp = webHandler((request) => {
    const authorization = request.headers.get('authorization');
    const family = holder(authorization);
    records.mcpRequests.push({ at: Date.now(), headers: Object.fromEntries(request.headers), user: family?.user.username });
    const stumbles = state.refusedCalls > 0;
    if (stumbles) state.refusedCalls -= 1;
    if (!family || stumbles) {
      return Response.json({ error: 'bad credentials' }, {
        status: 401, headers: { 'WWW-Authenticate': `Bearer realm="code host", resource_metadata="${site.url}/prm"` },
      });
    }
    const authInfo = {
      token: authorization.slice(7), clientId: family.client.client_id, scopes: family.scope.split(' '),
      extra: { username: family.user.username },
    };
    return endpoint.fetch(request, { authInfo });
  });

  const userinfo = (req, res) => {
    if (!settings.userinfo) return sendJson(res, 404, { error: 'not found' });
    const family = holder(req.headers.authorization);
    return family ? sendJson(res, 200, settings.userinfo({ user: family.user, family })) : sendJson(res, 401, { error: 'invalid_token' });
  };

  const metadata = (_req, res) => {
    if (!settings.metadata) return sendJson(res, 404, { error: 'not found' });
    return sendJson(res, 200, {
      issuer: site.url, authorization_endpoint: `${site.url}/authorize`, token_endpoint: `${site.url}/token`,
      revocation_endpoint: `${site.url}/revoke`, ...settings.metadata,
    });
  };

  site = await listen((req, res) => {
    const url = new URL(req.url, 'http://provider');
    const route = {
      '/authorize': authorize, '/token': token, '/revoke': revoke, '/mcp': mcp, '/userinfo': userinfo,
      '/.well-known/oauth-authorization-server': metadata,
    }[url.pathname];
    if (!route) return sendJson(res, 404, { error: 'not found' });
    return Promise.resolve(route(req, res, url)).catch((error) => res.headersSent ? res.destroy() : sendJson(res, 500, { error: String(error) }));
  });

  return {
    url: site.url, port: site.port, authorizationUrl: `${site.url}/authorize`, tokenUrl: `${site.url}/token`,
    revocationUrl: `${site.url}/revoke`, userinfoUrl: `${site.url}/userinfo`, mcpUrl: `${site.url}/mcp`, users, settings, records, secrets,
    addClient: (client) => {
      clients.push(client);
      if (client.client_secret) secrets.add(client.client_secret);
    },
    stallRefresh: (username, stall) => state.stalls.set(username, stall),
    refuseCalls: (count) => { state.refusedCalls = count; },
    refuseRefresh: (username, answer) => answer ? state.refusals.set(username, answer) : state.refusals.delete(username),
    failNext: (kind, count = 1) => state.failures.push(...Array(count).fill(kind)),
    clearFailures: () => { state.failures.length = 0; },
    refreshes: (user) => records.tokenRequests.filter((r) => r.grant === 'refresh_token' && (!user || r.user === user)),
    // The same, once every refresh that has come is decided: one that goes on in the background may still be under way when the call
    // it was begun for has long been answered.
    decidedRefreshes: () => waitFor(() => {
      const all = records.tokenRequests.filter((r) => r.grant === 'refresh_token');
      return all.every((r) => r.outcome !== 'pending') && all;
    }, 'the refreshes under way to be decided'),
    // Whose an access token is, or was.
    ownerOf: (token) => state.access.get(token)?.family.user.username,
    // The revocations that were carried out, of a user or of all.
    revoked: (user) => records.revocations.filter((entry) => !entry.refused && (!user || entry.user === user)),
    // Every access token stops working now, as if its life were over; refresh tokens stay good.
    expireAccessTokens: () => { for (const entry of state.access.values()) entry.expiresAt = 0; },
    // The user revokes the application in their account settings.
    revokeFamilies: (username) => {
      for (const family of state.families.values()) if (family.user.username === username) family.revoked = true;
    },
    close: async () => {
      await endpoint.close();
      await site.close();
    },
  };
}

// SPDX-License-Identifier: Apache-2.0
// A real authorization server (npm oidc-provider) for machines: service tokens by client credentials, and users' tokens by exchange, in
// the form of RFC 8693 and in that of Microsoft Entra. Beside it an MCP server that takes nothing but its tokens.
import { createHash, randomBytes } from 'node:crypto';
import { createEchoListener } from '../../../tools/demo/echo-server.mjs';
import { SignJWT, generateKeyPair } from 'jose';
import Provider, { errors } from 'oidc-provider';
import { freePort, inTrouble, listen, sendJson, sleep } from './http.mjs';
import { remember } from './secrets.mjs';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
export const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

// `subjectOf(token)` says whose token of the users' provider it is; undefined for any other. `seconds`: how long tokens live.
// `clients` are metadata; each may use all three grants, with `scopes`. What is changed in `settings` holds for what comes next:
//   seconds     life of a token
//   refuse      { error, status } in place of the next exchanges or service tokens
//   judge       (subjectToken) => the error object that an exchange of it is answered with, or undefined
//   delayMs     between a request and its answer
//   trouble     of the token endpoint (inTrouble)
export async function startTokenService({ clients, subjectOf = () => undefined, seconds = 3600, scopes = ['read', 'write'] }) {
  const port = await freePort();
  const issuer = `http://127.0.0.1:${port}`;
  const settings = { seconds, refuse: undefined, judge: undefined, delayMs: 0, trouble: undefined };
  const records = [];  // { grant, client, params, token, subject, at, endsAt }
  const live = new Map();  // token -> record
  const { privateKey } = await generateKeyPair('ES256');

  const provider = new Provider(issuer, {
    clients: clients.map((client) => ({
      redirect_uris: [], response_types: [], scope: scopes.join(' '), ...client, grant_types: ['client_credentials', TOKEN_EXCHANGE, JWT_BEARER],
    })),
    cookies: { keys: [randomBytes(16).toString('hex')] },
    scopes,
    features: { devInteractions: { enabled: false }, clientCredentials: { enabled: true } },
    ttl: { ClientCredentials: () => settings.seconds },
    enabledJWA: { clientAuthSigningAlgValues: ['ES256', 'RS256'] },
  });
  const note = (ctx, fields) => {
    const record = {
      grant: ctx.oidc.params.grant_type, client: ctx.oidc.client.clientId, params: { ...ctx.oidc.params }, at: Date.now(),
      endsAt: Date.now() + settings.seconds * 1000, ...fields,
    };
    records.push(record);
    live.set(record.token, record);
    remember('token of the token service', record.token);
    return record;
  };
  // One person has another name in every application, as at Entra; `oid` is theirs everywhere.
  const pairwise = (sub, client) => createHash('sha256').update(`${sub} ${client}`).digest('base64url');
  const exchange = async (ctx, subjectToken, next) => {
    const subject = subjectOf(subjectToken);
    if (!subject) throw new errors.InvalidGrant('the subject is not known here');
    const verdict = settings.judge?.(subjectToken);
    if (verdict) {
      ctx.status = 400;
      ctx.body = verdict;
      return;
    }
    const { client, params } = ctx.oidc;
    const token = await new SignJWT({ oid: subject, scope: params.scope, actor: params.actor_token ? live.get(params.actor_token)?.client : undefined })
      .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt' }).setIssuer(issuer).setSubject(pairwise(subject, client.clientId))
      .setAudience(params.audience ?? 'api').setIssuedAt().setExpirationTime(`${settings.seconds}s`).setJti(randomBytes(8).toString('hex'))
      .sign(privateKey);
    note(ctx, { token, subject });
    ctx.body = { access_token: token, token_type: 'Bearer', expires_in: settings.seconds, ...next };
  };
  provider.registerGrantType(TOKEN_EXCHANGE, (ctx) => exchange(ctx, ctx.oidc.params.subject_token,
    { issued_token_type: ctx.oidc.params.requested_token_type ?? 'urn:ietf:params:oauth:token-type:access_token' }),
  ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'requested_token_type', 'audience', 'resource', 'scope']);
  provider.registerGrantType(JWT_BEARER, (ctx) => {
    if (ctx.oidc.params.requested_token_use !== 'on_behalf_of') throw new errors.InvalidRequest('requested_token_use');
    return exchange(ctx, ctx.oidc.params.assertion, {});
  }, ['assertion', 'requested_token_use', 'scope']);
  provider.use(async (ctx, next) => {
    const service = ctx.path === '/token' && ctx.method === 'POST';
    await next();
    if (service && ctx.status === 200 && ctx.oidc?.params?.grant_type === 'client_credentials') note(ctx, { token: ctx.body.access_token });
  });
  const callback = provider.callback();
  const site = await listen(async (req, res) => {
    if (req.url === '/token' && inTrouble(settings.trouble, res)) return undefined;
    if (req.url === '/token' && settings.delayMs) await sleep(settings.delayMs);
    if (req.url === '/token' && settings.refuse) return sendJson(res, settings.refuse.status ?? 400, { error: settings.refuse.error });
    return callback(req, res);
  }, port);

  const seen = [];  // Headers of the calls that were let in.
  let refused = 0;
  const inside = createEchoListener({ mask: false, onRequest: (req) => seen.push(req.headers) });
  const guarded = await listen((req, res) => {
    const token = /^Bearer (.+)$/.exec(req.headers.authorization ?? req.headers['x-downstream'] ?? '')?.[1];
    const record = live.get(token);
    if (record && record.endsAt > Date.now()) return inside(req, res);
    refused++;
    return sendJson(res, 401, { error: 'no' }, { 'WWW-Authenticate': 'Bearer realm="guarded"' });
  });

  return {
    issuer, tokenUrl: `${issuer}/token`, settings, records, seen,
    // Where only its tokens get in.
    mcpUrl: `${guarded.url}/mcp`, mcpOrigin: guarded.url,
    refused: () => refused,
    of: (grant) => records.filter((record) => record.grant === grant),
    // Tokens that were given out are not taken any more, though they have not ended.
    revokeAll: () => live.clear(),
    close: async () => {
      await guarded.close();
      await site.close();
    },
  };
}

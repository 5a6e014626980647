// SPDX-License-Identifier: Apache-2.0
// A real OpenID Connect provider (npm oidc-provider) with scripted users. Its login and consent pages are plain HTML forms.
import { createHash, randomBytes } from 'node:crypto';
import { SignJWT, exportJWK, generateKeyPair } from 'jose';
import Provider, { errors } from 'oidc-provider';
import { escapeHtml, freePort, inTrouble, listen, readBody, sendHtml } from './http.mjs';
import { rememberFields } from './secrets.mjs';

// `count` people with distinct subjects, passwords, addresses and groups.
export function makeUsers(count, prefix = 'user') {
  return Array.from({ length: count }, (_, i) => ({
    sub: `${prefix}-${i}-${createHash('sha256').update(`${prefix}${i}`).digest('hex').slice(0, 8)}`,
    username: `${prefix}${i}`,
    password: randomBytes(9).toString('base64url'),
    email: `${prefix}${i}@example.com`,
    name: `${prefix} number ${i}`,
    groups: i === 0 ? ['engineering', 'admins'] : ['engineering'],
  }));
}

async function form(req) {
  return new URLSearchParams((await readBody(req)).toString('utf8'));
}

// Starts the provider. `clients` are client metadata in the vocabulary of OpenID Connect registration (a public client has
// token_endpoint_auth_method none). Everything secret the provider hands out is collected in `secrets`; `owners` tells whose a token is.
// For clients of `ownClients` nobody is asked to agree, as a company's own applications.
// A refresh token can be used for access tokens (JWTs) of `audiences` (URLs), with scope down.read.
// What is changed in `settings` holds for what comes next: accessSeconds, and `trouble` of the token endpoint (inTrouble).
// With `resources` (URLs) it is an authorization server for those, with dynamic client registration, as MCP clients want one.
export async function startIdp({ users = makeUsers(2), clients = [], accessTokenSeconds = 3600, port, resources = [], audiences = [], ownClients = [] } = {}) {
  const at = port ?? await freePort();
  const issuer = `http://127.0.0.1:${at}`;
  const { privateKey, publicKey } = await generateKeyPair('RS256', { extractable: true });
  const kid = randomBytes(6).toString('hex');
  const jwk = { ...await exportJWK(privateKey), kid, alg: 'RS256', use: 'sig' };
  const publicJwk = { ...await exportJWK(publicKey), kid, alg: 'RS256', use: 'sig' };
  const bySub = new Map(users.map((user) => [user.sub, user]));
  const secrets = new Set(users.map((user) => user.password));
  const owners = new Map();  // token -> sub
  const granted = new Map();  // access token -> its scopes
  const kinds = new Map();  // token -> access_token, refresh_token, id_token, minted
  const settings = { accessSeconds: accessTokenSeconds, trouble: undefined };
  const handOut = (token, sub, kind) => {
    secrets.add(token);
    owners.set(token, sub);
    kinds.set(token, kind);
  };

  const provider = new Provider(issuer, {
    clients: clients.map((client) => ({ grant_types: ['authorization_code', 'refresh_token'], ...client })),
    jwks: { keys: [jwk] },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'groups', 'preferred_username'] },
    features: { devInteractions: { enabled: false }, revocation: { enabled: true }, introspection: { enabled: true },
      registration: { enabled: resources.length > 0 },
      resourceIndicators: {
        enabled: resources.length + audiences.length > 0,
        defaultResource: (_ctx, _client, oneOf) => oneOf ?? (audiences.length > 0 ? audiences : undefined),
        getResourceServerInfo: (_ctx, resource) => {
          if (![...resources, ...audiences].includes(resource)) throw new errors.InvalidTarget();
          return { scope: audiences.includes(resource) ? 'down.read' : 'mcp', accessTokenFormat: 'jwt', audience: resource };
        },
        useGrantedResource: () => audiences.length === 0,
      },
    },
    clientDefaults: resources.length > 0 ? { token_endpoint_auth_method: 'none' } : {},
    scopes: ['openid', 'offline_access', 'mcp', 'down.read'],
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    issueRefreshToken: () => true,
    rotateRefreshToken: () => true,
    pkce: { required: () => true },
    ...(ownClients.length > 0 && {
      loadExistingGrant: async (ctx) => {
        const { client, session, params } = ctx.oidc;
        const id = session.grantIdFor(client.clientId);
        if (id) return ctx.oidc.provider.Grant.find(id);
        if (!ownClients.includes(client.clientId)) return undefined;
        const grant = new ctx.oidc.provider.Grant({ accountId: session.accountId, clientId: client.clientId });
        grant.addOIDCScope(params.scope);
        await grant.save();
        return grant;
      },
    }),
    ttl: {
      AccessToken: () => settings.accessSeconds, AuthorizationCode: 60, IdToken: 3600, RefreshToken: 86400, Interaction: 600, Session: 86400,
      Grant: 86400,
    },
    findAccount: (_ctx, sub) => {
      const user = bySub.get(sub);
      return user && {
        accountId: sub,
        claims: () => ({
          sub, email: user.email, email_verified: user.email_verified ?? true, name: user.name, groups: user.groups,
          preferred_username: user.username,
        }),
      };
    },
  });
  // What the relying party brings: code and verifier.
  for (const event of ['grant.success', 'grant.error']) provider.on(event, (ctx) => rememberFields(ctx.oidc?.params));
  provider.on('grant.success', (ctx) => {
    for (const name of ['access_token', 'refresh_token', 'id_token']) {
      if (ctx.body?.[name]) handOut(ctx.body[name], ctx.oidc.account?.accountId, name);
    }
    if (ctx.body?.access_token) granted.set(ctx.body.access_token, (ctx.body.scope ?? '').split(' '));
  });

  // What the provider keeps of a person's sign-ins, newest last: its session, grants and refresh tokens.
  const kept = new Map();  // sub -> Set of models
  for (const kind of ['session', 'grant', 'refresh_token']) {
    provider.on(`${kind}.saved`, (model) => {
      if (!model.accountId) return;
      if (!kept.has(model.accountId)) kept.set(model.accountId, new Set());
      kept.get(model.accountId).add(model);
    });
  }
  const logins = new Map();  // sub -> how often they have typed their password

  const interaction = async (req, res, action) => {
    const details = await provider.interactionDetails(req, res);
    const base = `/interaction/${details.uid}`;
    if (req.method === 'GET') {
      if (details.prompt.name === 'login') {
        sendHtml(res, 200, `<h1>Sign in</h1><form method="post" action="${base}/login">` +
            '<input name="username" autocomplete="username"><input name="password" type="password">' +
            '<button type="submit">Sign in</button></form>');
      } else {
        sendHtml(res, 200, `<h1>Allow ${escapeHtml(details.params.client_id)}?</h1><form method="post" action="${base}/confirm">` +
            '<button type="submit" name="decision" value="allow">Allow</button>' +
            '<button type="submit" name="decision" value="deny">Deny</button></form>');
      }
      return;
    }
    const fields = await form(req);
    if (action === 'login') {
      const user = users.find((candidate) => candidate.username === fields.get('username'));
      if (!user || user.password !== fields.get('password')) {
        sendHtml(res, 403, '<h1>Wrong user name or password</h1>');
        return;
      }
      if (user.disabled) {
        await provider.interactionFinished(req, res, { error: 'access_denied', error_description: 'this account is disabled' });
        return;
      }
      logins.set(user.sub, (logins.get(user.sub) ?? 0) + 1);
      await provider.interactionFinished(req, res, { login: { accountId: user.sub } });
      return;
    }
    if (fields.get('decision') === 'deny') {
      await provider.interactionFinished(req, res, { error: 'access_denied', error_description: 'the user said no' });
      return;
    }
    const { session, params, prompt } = details;
    const grant = details.grantId ? await provider.Grant.find(details.grantId)
      : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
    for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) grant.addResourceScope(resource, scopes.join(' '));
    if (prompt.details.missingOIDCClaims) grant.addOIDCClaims(prompt.details.missingOIDCClaims);
    await provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
  };

  const callback = provider.callback();
  const site = await listen((req, res) => {
    if (req.url === '/token' && inTrouble(settings.trouble, res)) return undefined;
    const match = req.url.match(/^\/interaction\/[^/?]+(?:\/(login|confirm))?$/);
    if (!match) return callback(req, res);
    return interaction(req, res, match[1]).catch((error) => sendHtml(res, 400, escapeHtml(error.message)));
  }, at);

  return {
    issuer, users, secrets, owners, granted, kinds, settings, port: at,
    // An access token or ID token of this issuer for `user`, without any flow.
    mint: async (user, { audience, expiresIn = '1h', claims = {}, typ = 'at+jwt' } = {}) => {
      const token = await new SignJWT({
        email: user.email, email_verified: true, name: user.name, groups: user.groups, client_id: 'minted', ...claims,
      }).setProtectedHeader({ alg: 'RS256', kid, typ }).setIssuer(issuer).setSubject(user.sub).setAudience(audience)
        .setIssuedAt().setExpirationTime(expiresIn).setJti(randomBytes(8).toString('hex')).sign(privateKey);
      handOut(token, user.sub, 'minted');
      return token;
    },
    // How often the person has typed their password here.
    logins: (user) => logins.get(user.sub) ?? 0,
    // As when an administrator ends all sessions of a person, or they have been idle for too long: nothing is renewed any more, and the
    // browser is asked for the password again. Access tokens that were handed out live on until they end.
    endSession: async (user) => {
      for (const model of kept.get(user.sub) ?? []) await model.destroy();
      kept.delete(user.sub);
    },
    jwks: { keys: [publicJwk] },
    close: () => site.close(),
  };
}

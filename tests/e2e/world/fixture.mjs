// SPDX-License-Identifier: Apache-2.0
// The world most tests live in: an identity provider, a code host behind OAuth, upstream servers, and a gateway between them.
import { createHash, randomBytes, scryptSync } from 'node:crypto';
import assert from 'node:assert/strict';
import { Browser } from './browser.mjs';
import { reserveGateway, startGateway } from './gateway.mjs';
import { waitFor } from './http.mjs';
import { request } from './http-client.mjs';
import { makeUsers, startIdp } from './idp.mjs';
import { startProvider } from './provider.mjs';
import { assertNoSecretLeaked } from './sweep.mjs';
import { startEcho, startTrickster } from './upstream.mjs';

export { assertNoSecretLeaked };

const CALLBACK = 'http://127.0.0.1:33998/callback';

function scryptHash(password) {
  const salt = randomBytes(16);
  const hash = scryptSync(password, salt, 32, { N: 32768, r: 8, p: 1, maxmem: 1 << 27 });
  const text = (bytes) => bytes.toString('base64').replace(/=+$/, '');
  return `$scrypt$ln=15,r=8,p=1$${text(salt)}$${text(hash)}`;
}

const canary = (name) => `canary-${name}-${randomBytes(12).toString('base64url')}`;

// options: users (how many, or as makeUsers makes them), idp, provider, gateway (settings of startGateway), tls (of the public port),
// idpClients (clients of the identity provider beside the gateway), corp (settings of the connector corp).
// resources(world) gives what to apply; defaultResources by default. connectors({ publicUrl }) gives connectors beside corp and local.
export async function startWorld(topology,
  { users = 3, idp: idpOptions, provider: providerOptions, gateway: settings = {}, tls = false, resources, connectors, idpClients = [], corp = {} } = {}) {
  const closers = [];
  try {
    const reserved = await reserveGateway(topology, { tls });
    const people = Array.isArray(users) ? users : makeUsers(users);
    const clientSecret = canary('idp-client');
    const idp = await startIdp({
      users: people,
      clients: [{ client_id: 'gateway', client_secret: clientSecret, redirect_uris: [`${reserved.publicUrl}/oauth/callback/corp`] }, ...idpClients],
      ...idpOptions,
    });
    closers.push(idp);
    const appSecret = canary('app-client');
    const accounts = people.map((user) => ({ username: `${user.username}-at-code`, password: canary('code-password') }));
    const provider = await startProvider({
      users: accounts,
      clients: [{ client_id: 'gateway-app', client_secret: appSecret, redirect_uris: [`${reserved.publicUrl}/callback/codehost`] }],
      ...providerOptions,
    });
    closers.push(provider);
    const echo = await startEcho();
    closers.push(echo);
    const trickster = await startTrickster();
    closers.push(trickster);
    const localPassword = canary('local-password');
    const gateway = await startGateway(reserved, {
      connectors: [
        {
          id: 'corp', displayName: 'Corporate login',
          oidc: {
            issuer: idp.issuer, clientId: 'gateway', clientSecret, scopes: ['openid', 'email', 'profile', 'offline_access'],
            authoritativeDomains: ['example.com'], ...corp,
          },
        },
        {
          id: 'local', displayName: 'Local account',
          local: { users: [{ username: 'lena', passwordHash: scryptHash(localPassword), email: 'lena@example.com', name: 'Lena', groups: ['engineering'] }] },
        },
        ...await connectors?.(reserved) ?? [],
      ],
      ...settings,
    });
    closers.push(gateway);
    const world = {
      topology, gateway, idp, provider, echo, trickster,
      secrets: {
        apiKey: `${canary('api-key')}/+&=`, bearer: canary('bearer'), basic: `${canary('basic')}:%`, query: `${canary('query')}&+`,
        literal: canary('literal'), appSecret, clientSecret, localPassword,
      },
      tokens: new Set(),
      persona: (i, more = {}) => ({
        connector: 'corp', accounts: { [idp.issuer]: people[i], [provider.url]: accounts[i] }, ...more,
      }),
      localPersona: (more = {}) => ({
        connector: 'local', accounts: { [gateway.publicUrl]: { username: 'lena', password: localPassword } }, ...more,
      }),
      subject: (i) => `corp:${people[i].sub}`,
      account: (i) => accounts[i].username,
      // What the gateway writes while it stops, and leaves when it has, holds no secret either.
      close: async ({ sweep = true } = {}) => {
        try {
          await gateway.stop();
          if (sweep) await assertNoSecretLeaked(world, { stopped: true });
          await gateway.assertLogsAreJson();
        } finally {
          for (const closer of closers.reverse()) await closer.close();
        }
      },
    };
    world.resources = (resources ?? defaultResources)(world);
    // A service that found another one not up yet waits a moment before it tries again; a person would repeat the command.
    if (world.resources) {
      await waitFor(() => gateway.apply(world.resources).then(() => true, (error) => {
        throw Object.assign(error, { fatal: !/failed to connect/.test(error.message) });
      }), 'sallyport apply', 10000, 250);
    }
    return world;
  } catch (error) {
    for (const closer of closers.reverse()) await closer.close().catch(() => {});
    throw error;
  }
}

const everyone = { interactive: { allow: { everyone: true } } };
const open = { passthrough: {} };

export function codehostApp(world) {
  return {
    slug: 'codehost', displayName: 'Code Host', authorizationUrl: world.provider.authorizationUrl, tokenUrl: world.provider.tokenUrl,
    revocationUrl: world.provider.revocationUrl, clientId: 'gateway-app', clientSecret: { value: world.secrets.appSecret },
    defaultScopes: ['repo'], allowedUpstreamOrigins: [world.provider.url],
  };
}

export function defaultResources(world) {
  const { echo, trickster, provider, secrets } = world;
  const server = (slug, upstreamUrl, agentAuth, appAuth, more = {}) => ({ slug, upstreamUrl, agentAuth, appAuth, ...more });
  const key = { apiKey: { name: 'X-API-Key', value: { value: secrets.apiKey } } };
  return {
    apps: [codehostApp(world)],
    mcpServers: [
      server('github', provider.mcpUrl, { interactive: { allow: { groups: ['corp:engineering', 'local:engineering'] } } }, { oauthAuthorization: { app: 'codehost' } }),
      server('echo', echo.url, everyone, key, {
        restrictedInboundHeaders: ['x-internal-*'],
        outboundHeaders: [
          { name: 'X-User', callerIdentity: { claim: 'sub' } },
          { name: 'X-Email', callerIdentity: { claim: 'email' } },
          { name: 'X-Team', literal: { value: 'platform' } },
          { name: 'X-Literal-Secret', literal: { secretValue: { value: secrets.literal } } },
        ],
      }),
      server('nightly', echo.url, open, key),
      server('query', echo.url, open, { apiKey: { name: 'api_key', location: 'QUERY', value: { value: secrets.query } } }),
      server('bearer', echo.url, open, { bearer: { token: { value: secrets.bearer } } }),
      server('basic', echo.url, open, { basic: { username: 'robot', password: { value: secrets.basic } } }),
      server('through', echo.url, open, { passthrough: {} }, {
        outboundHeaders: [{ name: 'X-Caller-Token', forwardCallerToken: {} }],
      }),
      server('supplied', echo.url, everyone, { passthrough: {} }),
      server('idp-token', echo.url, everyone, { passthrough: {} }, {
        outboundHeaders: [{ name: 'X-Idp-Token', prefix: 'Bearer ', forwardCallerToken: { token: 'ACCESS' } }],
      }),
      server('admins-only', echo.url, { interactive: { allow: { groups: ['corp:admins'] } } }, { passthrough: {} }),
      server('trick', trickster.url, everyone, key),
      server('trick-open', trickster.url, open, { passthrough: {} }),
      server('trick-supplied', trickster.url, everyone, { passthrough: {} }),
    ],
  };
}

// Registers a public client; resolves with the HTTP answer.
export function registerClient(world, name = 'e2e raw') {
  return request(`${world.gateway.publicUrl}/oauth/register`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ client_name: name, redirect_uris: [CALLBACK], grant_types: ['authorization_code', 'refresh_token'], token_endpoint_auth_method: 'none' }),
  });
}

// Where a client sends its user. Resolves with { url, verifier, state }.
export function authorizationRequest(world, slug, clientId, resource = world.gateway.mcpUrl(slug)) {
  const verifier = randomBytes(32).toString('base64url');
  const state = randomBytes(8).toString('hex');
  const url = new URL(`${world.gateway.publicUrl}/oauth/authorize`);
  url.search = new URLSearchParams({
    response_type: 'code', client_id: clientId, redirect_uri: CALLBACK, state, resource, scope: 'mcp',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256',
  });
  return { url: url.href, verifier, state };
}

// A public client's whole way to a token for one server, without any SDK, as far as it goes. Resolves with { accessToken, refreshToken,
// clientId, browser, response }, or with { failed } where it ended: { step, url, status, retryAfter, body }.
// With clientId that client is used, which must take any loopback address; with resource the token is for that instead of the server.
// Clients that register the same are one client: clientName makes one of its own.
export async function tryToken(
  world, slug, persona, { browser = new Browser(), clientId: known, clientName, resource = world.gateway.mcpUrl(slug) } = {}) {
  const failed = (step, { url, status, headers, body, html }) =>
    ({ failed: { step, url, status, retryAfter: headers['retry-after'], body: body ?? html } });
  const registration = known ? undefined : await registerClient(world, clientName);
  if (registration && registration.status !== 201) return failed('register', registration);
  const clientId = known ?? JSON.parse(registration.body).client_id;
  const { url, verifier, state } = authorizationRequest(world, slug, clientId, resource);
  const result = await browser.act(url, persona, { stop: (target) => target.origin + target.pathname === CALLBACK });
  if (!result.callback) return failed('browser', result.page);
  const { searchParams } = result.callback;
  assert.equal(searchParams.get('error'), null, result.callback.href);
  assert.equal(searchParams.get('state'), state);
  assert.equal(searchParams.get('iss'), world.gateway.publicUrl);
  const response = await tokenRequest(world, {
    grant_type: 'authorization_code', code: searchParams.get('code'), redirect_uri: CALLBACK, code_verifier: verifier, client_id: clientId,
    resource,
  });
  if (response.status !== 200) return failed('token', response);
  return {
    accessToken: response.json.access_token, refreshToken: response.json.refresh_token, clientId, browser, response: response.json,
  };
}

// The same, which must succeed.
export async function obtainToken(world, slug, persona, options) {
  const { failed, ...obtained } = await tryToken(world, slug, persona, options);
  assert.ok(!failed, `no token: ended at ${failed?.step} ${failed?.url ?? ''} (HTTP ${failed?.status}): ${failed?.body?.slice(0, 3000)}`);
  return obtained;
}

export async function tokenRequest(world, fields) {
  const response = await request(`${world.gateway.publicUrl}/oauth/token`, {
    method: 'POST', headers: { 'Content-Type': 'application/x-www-form-urlencoded', Accept: 'application/json' },
    body: new URLSearchParams(fields).toString(),
  });
  const json = response.body.startsWith('{') ? JSON.parse(response.body) : {};
  for (const name of ['access_token', 'refresh_token']) if (json[name]) world.tokens.add(json[name]);
  return { ...response, json };
}

// SPDX-License-Identifier: Apache-2.0
// Every app authentication with every header source behind every agent authentication: a server each, whose secrets are its own, and an
// upstream that keeps what came. So each credential that reaches it can be told from all others.
import { randomBytes } from 'node:crypto';
import { createEchoListener } from '../../../tools/demo/echo-server.mjs';
import { callTool, toolText } from './http-client.mjs';
import { listen, sendJson } from './http.mjs';
import { disguises, remember, remembered, Search } from './secrets.mjs';
import { TOKEN_EXCHANGE } from './token-service.mjs';

export const TRUSTED = 'api://trusted';
export const VALIDATED = 'api://validated';
export const OWN_KEY = 'own-key';
const TEAM_KEY = 'team-key';

export const canary = (name) => {
  const value = `canary-${name}-${randomBytes(12).toString('base64url')}`;
  remember(name, value);
  return value;
};

// How a caller comes, by agent authentication. `token`: they bring one that somebody verifies.
export const AGENTS = {
  signed: { auth: { interactive: { allow: { everyone: true } } }, token: true, interactive: true },
  trusted: {
    auth: { interactive: { allow: { everyone: true }, trustedConnectors: [{ connector: 'corp', audiences: [TRUSTED] }] } },
    token: true, interactive: true,
  },
  validated: { auth: { passthrough: { jwtValidation: { connector: 'corp', audience: VALIDATED } } }, token: true },
  open: { auth: { passthrough: {} } },
};
const presents = (agent) => agent === 'trusted' || agent === 'validated';

const client = (cell, tokens, url = 'tokenUrl') => ({
  [url]: tokens.tokenUrl, clientId: cell.slug, clientSecret: { value: cell.clientSecret }, scopes: cell.scopes,
});
const ofClient = (grant) => ({ cell, tokens, person }, bytes) => tokens.records.some((record) => record.token === bytes &&
  record.grant === grant && record.client === cell.slug && (grant !== TOKEN_EXCHANGE || record.subject === person.user.sub));
const isBearer = (is) => (all, bytes) => bytes.startsWith('Bearer ') && is(all, bytes.slice(7));
const equals = (value) => (all, bytes) => bytes === value(all);
const isStatic = { organization: true, broker: () => true };

// One kind of credential each: `config(cell, parties)` of a server; where it goes; `is(all, bytes)`, whether these bytes are this very
// credential, of this server and this person; `broker(agent)`, whether the broker gives it; `organization`, whether it is for every caller.
// `verified`: it needs to be known who calls.
export const APPS = {
  apikey: {
    ...isStatic, config: ({ secret }) => ({ apiKey: { name: 'X-API-Key', value: { value: secret } } }), header: 'x-api-key',
    is: equals(({ cell }) => cell.secret),
  },
  query: {
    ...isStatic, config: ({ secret }) => ({ apiKey: { name: 'key', location: 'QUERY', value: { value: secret } } }), query: 'key',
    is: equals(({ cell }) => cell.secret),
  },
  bearer: {
    ...isStatic, config: ({ secret }) => ({ bearer: { token: { value: secret } } }), header: 'authorization',
    is: equals(({ cell }) => `Bearer ${cell.secret}`),
  },
  basic: {
    ...isStatic, config: ({ secret }) => ({ basic: { username: 'robot', password: { value: secret } } }), header: 'authorization',
    is: equals(({ cell }) => `Basic ${Buffer.from(`robot:${cell.secret}`).toString('base64')}`),
  },
  client: {
    ...isStatic, config: (cell, { tokens }) => ({ clientCredentials: client(cell, tokens) }), header: 'authorization',
    is: isBearer(ofClient('client_credentials')),
  },
  oauth: {
    broker: () => true, verified: true, config: () => ({ oauthAuthorization: { app: 'codehost' } }), header: 'authorization',
    is: isBearer(({ world, person }, bytes) => world.provider.ownerOf(bytes) === person.account.username),
  },
  // The agent brings the upstream's credential.
  agents: {
    broker: () => false, config: () => ({ passthrough: {} }), header: 'authorization',
    is: ({ cell, person }, bytes) => bytes === `Bearer ${cell.agent === 'validated' ? person.minted.validated : person.brought}`,
  },
  // It brings none. (One that is validated always does.)
  nothing: { broker: () => false, config: () => ({ passthrough: {} }) },
};

export const HEADERS = {
  none: undefined,
  literal: { ...isStatic, config: ({ headerSecret }) => ({ literal: { secretValue: { value: headerSecret } } }), is: equals(({ cell }) => cell.headerSecret) },
  stored: { ...isStatic, config: () => ({ storedCredential: { credential: TEAM_KEY } }), is: equals(({ teamKey }) => teamKey) },
  service: { ...isStatic, config: (cell, { tokens }) => ({ oauth2ServiceToken: client(cell, tokens) }), is: ofClient('client_credentials') },
  own: {
    broker: () => true, verified: true, config: () => ({ storedCredential: { credential: OWN_KEY } }), is: equals(({ person }) => person.ownKey),
  },
  forward: {
    broker: (agent) => agent === 'signed', config: () => ({ forwardCallerToken: {} }),
    is: ({ cell, world, person }, bytes) => {
      if (presents(cell.agent)) return bytes === person.minted[cell.agent];
      if (cell.agent === 'open') return bytes === person.brought;
      return world.idp.kinds.get(bytes) === 'access_token' && world.idp.owners.get(bytes) === person.user.sub;
    },
  },
  behalf: {
    broker: () => true, verified: true, config: (cell, { tokens }) => ({ onBehalfOf: client(cell, tokens, 'exchangeUrl') }), is: ofClient(TOKEN_EXCHANGE),
  },
  identity: { broker: () => false, verified: true, config: () => ({ callerIdentity: { claim: 'sub' } }), is: equals(({ person }) => person.subject) },
};

// All combinations; `refused` are those that fit nowhere, with the field that is at fault.
export function combinations() {
  const cells = [];
  const refused = [];
  for (const agent of Object.keys(AGENTS)) {
    for (const app of Object.keys(APPS)) {
      if (agent === 'validated' && app === 'nothing') continue;
      for (const header of Object.keys(HEADERS)) {
        const slug = `${agent}-${app}-${header}`;
        const cell = {
          agent, app, header, slug, secret: canary(`${slug}-secret`), headerSecret: canary(`${slug}-header`), clientSecret: canary(`${slug}-client`),
        };
        const wrong = [];
        if (APPS[app].verified && !AGENTS[agent].token) wrong.push('appAuth.oauthAuthorization');
        if (HEADERS[header]?.verified && !AGENTS[agent].token) wrong.push('outboundHeaders[0]');
        if (wrong.length > 0) refused.push({ ...cell, wrong });
        else cells.push(cell);
      }
    }
  }
  return { cells, refused };
}

export function serverOf(cell, parties, { agentAuth = AGENTS[cell.agent].auth } = {}) {
  const source = HEADERS[cell.header];
  return {
    slug: cell.slug, upstreamUrl: parties.upstream.url, agentAuth, appAuth: APPS[cell.app].config(cell, parties),
    outboundHeaders: source ? [{ name: 'X-T', ...source.config(cell, parties) }] : [],
  };
}

export function credentialsOf({ upstream, teamKey }) {
  return [
    { slug: TEAM_KEY, kind: 'API_KEY', value: { value: teamKey }, allowedUpstreamOrigins: [upstream.origin] },
    { slug: OWN_KEY, kind: 'API_KEY', owner: 'USER', allowedUpstreamOrigins: [upstream.origin] },
  ];
}

// The same with every secret of the organization taken out.
export const cleared = (resource) => JSON.parse(JSON.stringify(resource), (key, value) =>
  ['value', 'token', 'password', 'secretValue', 'clientSecret'].includes(key) && typeof value?.value === 'string' ? { clear: true } : value);

// The pieces of a server: { id, kind, where, value(arrival) }.
export function piecesOf(cell) {
  const app = APPS[cell.app];
  const of = ({ header, query }) => ({ headers, url }) => query ? new URL(url, 'http://up').searchParams.get(query) : headers[header];
  const pieces = app.header || app.query ? [{ id: 'app_auth', name: cell.app, kind: app, value: of(app) }] : [];
  const source = HEADERS[cell.header];
  return source ? [...pieces, { id: 'outbound_headers[x-t]', name: cell.header, kind: source, value: of({ header: 'x-t' }) }] : pieces;
}

// Where the requests of all servers end: { arrivals(call), refuse }. `refuse(values)` says which requests are answered 401.
export async function startUpstream() {
  const arrivals = new Map();  // x-call -> [{ headers, url }]
  const upstream = { refuse: () => false };
  const echo = createEchoListener({ mask: false });
  const site = await listen((req, res) => {
    const call = req.headers['x-call'];
    if (!arrivals.has(call)) arrivals.set(call, []);
    const arrival = { headers: req.headers, url: req.url };
    arrivals.get(call).push(arrival);
    if (upstream.refuse(arrival)) return sendJson(res, 401, { error: 'no' }, { 'WWW-Authenticate': 'Bearer realm="upstream"' });
    return echo(req, res);
  });
  return Object.assign(upstream, { url: `${site.url}/mcp`, origin: site.url, all: arrivals, arrivals: (call) => arrivals.get(call) ?? [], close: () => site.close() });
}

// What stands in an arrival beside the places of its server's own credentials.
function rest({ headers, url }, cell) {
  const { header, query } = APPS[cell.app];
  const address = new URL(url, 'http://up');
  if (query) address.searchParams.delete(query);
  const others = Object.entries(headers).filter(([name]) => name !== header && !(name === 'x-t' && HEADERS[cell.header]));
  return `${address.href}\n${others.map(([name, value]) => `${name}: ${value}`).join('\n')}`;
}

// Secrets that came to the upstream with these arrivals ([{ arrival, cell }]) where none of the server's own belongs.
export function strays(all) {
  const search = new Search();
  for (const [secret, what] of remembered()) for (const form of disguises(Buffer.from(secret, 'latin1'))) search.add(form, what);
  return all.flatMap(({ arrival, cell, trouble }) =>
    search.in(Buffer.from(rest(arrival, cell), 'latin1')).map(({ what }) => `${cell.slug}, ${trouble}: ${what}`));
}

// One call of a person's, which brings all that could be taken for a credential: resolves with the answer and `id`, by which upstream and audit
// know it.
export async function ask(gateway, cell, who, { minted = who.minted } = {}) {
  const id = randomBytes(16).toString('hex');
  const token = { signed: who.tokens.get(cell.slug), open: cell.app === 'nothing' ? undefined : who.brought }[cell.agent] ?? minted[cell.agent];
  const headers = { traceparent: `00-${id}-00000000000000aa-01`, 'X-Call': id, 'X-Cell': cell.slug };
  if (AGENTS[cell.agent].interactive && cell.app !== 'nothing') headers['X-Sallyport-Authorization'] = `Bearer ${who.brought}`;
  return { id, ...await callTool(gateway.mcpUrl(cell.slug), 'headers', {}, { token, headers }) };
}

// In short: "goes", "link", "<status> <reason>", or "401 as it came".
export function answerOf({ status, headers, message, body }) {
  if (status === 401 && /realm="upstream"/.test(headers['www-authenticate'] ?? '')) return '401 as it came';
  if (status !== 200) return `${status} ${message?.error?.data?.reason ?? body}`;
  if (!message?.result?.isError) return 'goes';
  return /\/connect\/\S+/.test(toolText({ message })) ? 'link' : `200 ${body}`;
}

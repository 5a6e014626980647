// SPDX-License-Identifier: Apache-2.0
// One HTTP/1.1 request with full control over what is on the wire (Host, Origin, duplicate headers); fetch would not allow that.
import http from 'node:http';
import https from 'node:https';
import tls from 'node:tls';
import { rememberRequest, rememberResponse } from './secrets.mjs';

// For the search for secrets, { origin, kind, text }: head and body of every answer that is an error ('error': 400 and above, and
// JSON-RPC errors and failed tool calls of any status) or a page ('page').
export const keptAnswers = [];

function keep(origin, { statusCode, headers }, body) {
  const page = (headers['content-type'] ?? '').startsWith('text/html');
  if (statusCode < 400 && !page && !/"error"\s*:|"isError"\s*:\s*true/.test(body)) return;
  // A cookie is where it belongs there.
  const { 'set-cookie': _cookies, ...rest } = headers;
  keptAnswers.push({ origin, kind: page ? 'page' : 'error', text: `${JSON.stringify(rest)}\n${body}` });
}

// fetch for the SDKs, whose answers are kept like our own; event streams pass unread.
export async function watchedFetch(input, init) {
  const response = await fetch(input, init);
  const headers = Object.fromEntries(response.headers);
  if (!(headers['content-type'] ?? '').startsWith('text/event-stream')) {
    keep(new URL(response.url).origin, { statusCode: response.status, headers }, await response.clone().text());
  }
  return response;
}

// More than any test has in flight at once: a request that waits here for a socket would not be concurrent to the others.
const MAX_SOCKETS = 2048;
const agent = new http.Agent({ keepAlive: true, maxSockets: MAX_SOCKETS, maxFreeSockets: MAX_SOCKETS });

// Authorities that https servers are verified against, beside node's own. PEM.
const authorities = [...tls.rootCertificates];
const secureAgent = new https.Agent({ keepAlive: true, maxSockets: MAX_SOCKETS, maxFreeSockets: MAX_SOCKETS, ca: authorities });
export const trust = (pem) => { authorities.push(pem); };

// `headers` is an object or a flat list [name, value, …] (which may repeat names). `onResponse` gets the raw response as soon as its
// head is there. Resolves with { status, headers, rawHeaders, body } when the body has ended.
export function request(url, { method = 'GET', headers = {}, body, onResponse, signal, timeoutMs = 60000 } = {}) {
  const target = new URL(url);
  const list = Array.isArray(headers) ? [...headers] : Object.entries(headers).flat();
  const has = (name) => list.some((item, i) => i % 2 === 0 && item.toLowerCase() === name);
  if (!has('host')) list.unshift('Host', target.host);
  if (body !== undefined && !has('content-length')) list.push('Content-Length', String(Buffer.byteLength(body)));
  rememberRequest(target, list, body);
  return new Promise((resolve, reject) => {
    const secure = target.protocol === 'https:';
    const out = (secure ? https : http).request({
      host: target.hostname, port: target.port, path: target.pathname + target.search, method, headers: list, setHost: false,
      agent: secure ? secureAgent : agent, signal,
    }, (res) => {
      onResponse?.(res, out);
      const chunks = [];
      res.on('data', (chunk) => chunks.push(chunk));
      res.on('error', reject);
      res.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        rememberResponse(target, res, text);
        keep(target.origin, res, text);
        resolve({ status: res.statusCode, headers: res.headers, rawHeaders: res.rawHeaders, body: text });
      });
    });
    out.setTimeout(timeoutMs, () => out.destroy(new Error(`no answer from ${target.host} within ${timeoutMs} ms`)));
    out.on('error', reject);
    out.end(body);
  });
}

const MODERN = '2026-07-28';

// The messages of an answer, whether it came as JSON or as an event stream.
export function parseMessages(response) {
  if (!response.body) return [];
  if (!(response.headers['content-type'] ?? '').startsWith('text/event-stream')) {
    try {
      return [JSON.parse(response.body)];
    } catch {
      return [];
    }
  }
  return response.body.split('\n\n').map((event) => event.split('\n').filter((line) => line.startsWith('data:'))
    .map((line) => line.slice(5).trimStart()).join('\n')).filter((data) => data.length > 0).map((data) => JSON.parse(data));
}

let nextId = 1;

// One MCP request without any SDK: era 'modern' (2026-07-28, stateless) or 'legacy' (2025-11-25). Resolves with the HTTP answer plus
// `message`, the JSON-RPC response in it. `id` is the JSON-RPC id; without it no two requests have the same.
export async function rpc(url, method, params = {},
  { era = 'modern', token, headers = {}, capabilities = {}, session, id = nextId++, ...rest } = {}) {
  const all = { Accept: 'application/json, text/event-stream', 'Content-Type': 'application/json' };
  let sent = params;
  if (era === 'modern') {
    all['MCP-Protocol-Version'] = MODERN;
    all['Mcp-Method'] = method;
    const name = params.name ?? params.uri;
    if (name) all['Mcp-Name'] = name;
    sent = {
      ...params,
      _meta: {
        'io.modelcontextprotocol/protocolVersion': MODERN,
        'io.modelcontextprotocol/clientInfo': { name: 'e2e', version: '1' },
        'io.modelcontextprotocol/clientCapabilities': capabilities,
        ...params._meta,
      },
    };
  } else if (method !== 'initialize') {
    all['MCP-Protocol-Version'] = '2025-11-25';
  }
  if (session) all['Mcp-Session-Id'] = session;
  if (token) all.Authorization = `Bearer ${token}`;
  const body = JSON.stringify({ jsonrpc: '2.0', id, method, params: sent });
  const list = [...Object.entries(all).flat(), ...(Array.isArray(headers) ? headers : Object.entries(headers).flat())];
  const response = await request(url, { method: 'POST', headers: list, body, ...rest });
  const message = parseMessages(response).find((candidate) => candidate.id === id || candidate.id === null);
  return { ...response, message };
}

export const callTool = (url, name, args = {}, options = {}) => rpc(url, 'tools/call', { name, arguments: args }, options);

// initialize + notifications/initialized of a legacy client; resolves with the session id (undefined if the server gave none).
export async function initialize(url, { capabilities = {}, ...options } = {}) {
  const params = { protocolVersion: '2025-11-25', capabilities, clientInfo: { name: 'e2e', version: '1' } };
  const response = await rpc(url, 'initialize', params, { ...options, era: 'legacy' });
  if (response.status !== 200) throw new Error(`initialize: HTTP ${response.status} ${response.body}`);
  const session = response.headers['mcp-session-id'];
  const headers = {
    Accept: 'application/json, text/event-stream', 'Content-Type': 'application/json', 'MCP-Protocol-Version': '2025-11-25',
    ...(session ? { 'Mcp-Session-Id': session } : {}), ...(options.token ? { Authorization: `Bearer ${options.token}` } : {}),
  };
  await request(url, { method: 'POST', headers, body: JSON.stringify({ jsonrpc: '2.0', method: 'notifications/initialized' }) });
  return { session, result: response.message?.result, response };
}

// The text of a tool result.
export const toolText = (response) => response.message?.result?.content?.find((item) => item.type === 'text')?.text;

// SPDX-License-Identifier: Apache-2.0
// A small MCP server (streamable HTTP, no dependencies) that shows what reaches it: tool `echo` returns its arguments, tool
// `headers` the headers of the request. It speaks 2026-07-28 without state and 2025-11-25 and older with sessions.
//
//   node echo-server.mjs [--port N] [--no-mask]      prints "listening on http://127.0.0.1:N/mcp"
//
// Values of headers that carry credentials are shortened unless --no-mask is given.
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import { pathToFileURL } from 'node:url';

const MODERN = '2026-07-28';
const LEGACY = ['2025-11-25', '2025-06-18', '2025-03-26'];
const META = 'io.modelcontextprotocol/';
const BODY_LIMIT = 4 * 1024 * 1024;
const SENSITIVE = /authorization|cookie|key|token|secret|password/i;
const TOOLS = [
  {
    name: 'echo',
    description: 'Returns its arguments.',
    inputSchema: { type: 'object', properties: { message: { type: 'string' } }, additionalProperties: true },
  },
  {
    name: 'headers',
    description: 'Returns the HTTP headers and the query string of the request that reached this server.',
    inputSchema: { type: 'object', properties: {}, additionalProperties: false },
  },
];

class RpcError extends Error {
  constructor(code, message, status = 200, data = undefined) {
    super(message);
    Object.assign(this, { code, status, data });
  }
}

const masked = (value) => value.length <= 8 ? '***' : `${value.slice(0, 4)}***${value.slice(-2)} (${value.length} bytes)`;

function shownHeaders(req, mask) {
  const shown = {};
  for (const [name, value] of Object.entries(req.headers)) {
    const text = Array.isArray(value) ? value.join(', ') : value;
    shown[name] = mask && SENSITIVE.test(name) ? masked(text) : text;
  }
  return shown;
}

function callTool(params, req, mask) {
  const text = (value) => ({ content: [{ type: 'text', text: JSON.stringify(value, null, 2) }] });
  if (params?.name === 'echo') return text(params.arguments ?? {});
  if (params?.name === 'headers') {
    const query = Object.fromEntries([...new URL(req.url, 'http://echo').searchParams]
      .map(([name, value]) => [name, mask && SENSITIVE.test(name) ? masked(value) : value]));
    return text({ headers: shownHeaders(req, mask), query });
  }
  throw new RpcError(-32602, `unknown tool: ${params?.name}`);
}

const identity = { name: 'echo', version: '1.0.0' };

// The result of a method both eras have, or undefined.
function common(message, req, mask) {
  if (message.method === 'tools/list') return { tools: TOOLS };
  if (message.method === 'tools/call') return callTool(message.params, req, mask);
  return undefined;
}

function headerValue(req, name) {
  const raw = (req.headers[name] ?? '').trim();
  const encoded = /^=\?base64\?(.*)\?=$/.exec(raw);
  return encoded ? Buffer.from(encoded[1], 'base64').toString('utf8') : raw;
}

function serveModern(message, req, mask) {
  const meta = message.params._meta;
  const requested = meta[`${META}protocolVersion`];
  if (requested !== MODERN) {
    throw new RpcError(-32022, 'unsupported protocol version', 400, { supported: [MODERN], requested });
  }
  if (typeof meta[`${META}clientCapabilities`] !== 'object') {
    throw new RpcError(-32602, `missing _meta["${META}clientCapabilities"]`, 400);
  }
  const expected = { 'mcp-protocol-version': MODERN, 'mcp-method': message.method };
  if (message.method === 'tools/call') expected['mcp-name'] = message.params.name;
  for (const [name, value] of Object.entries(expected)) {
    if (headerValue(req, name) !== value) throw new RpcError(-32020, `header ${name} does not match the body`, 400);
  }
  const complete = (result, cached) => ({
    resultType: 'complete', ...result, ...(cached ? { ttlMs: 60000, cacheScope: 'public' } : {}),
    _meta: { [`${META}serverInfo`]: identity },
  });
  if (message.method === 'server/discover') {
    return complete({ supportedVersions: [MODERN], capabilities: { tools: {} }, instructions: 'Shows what reaches it.' }, true);
  }
  const result = common(message, req, mask);
  if (result === undefined) throw new RpcError(-32601, `method not found: ${message.method}`, 404);
  return complete(result, message.method === 'tools/list');
}

function serveLegacy(message, req, mask, sessions, headers) {
  if (message.method === 'initialize') {
    const wanted = message.params?.protocolVersion;
    headers['Mcp-Session-Id'] = randomUUID();
    sessions.add(headers['Mcp-Session-Id']);
    return {
      protocolVersion: LEGACY.includes(wanted) ? wanted : LEGACY[0], capabilities: { tools: {} }, serverInfo: identity,
    };
  }
  if (message.method === 'ping') return {};
  const result = common(message, req, mask);
  if (result === undefined) throw new RpcError(-32601, `method not found: ${message.method}`);
  return result;
}

async function bodyOf(req) {
  const chunks = [];
  let size = 0;
  for await (const chunk of req) {
    size += chunk.length;
    if (size > BODY_LIMIT) throw new RpcError(-32600, 'body too large', 413);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new RpcError(-32700, 'parse error', 400);
  }
}

// A legacy session is checked where one is named; a request without one is served all the same, so that a plain `curl` works.
function checkSession(req, sessions) {
  const session = req.headers['mcp-session-id'];
  if (session !== undefined && !sessions.has(session)) throw new RpcError(-32001, 'session not found', 404);
  return session;
}

async function post(req, res, { mask, sessions }) {
  const headers = {};
  let message;
  try {
    message = await bodyOf(req);
    const modern = message?.params?._meta?.[`${META}protocolVersion`] !== undefined;
    if (typeof message !== 'object' || message === null || Array.isArray(message)) throw new RpcError(-32600, 'not a message', 400);
    if (!modern) checkSession(req, sessions);
    if (message.id === undefined || message.method === undefined) {
      res.writeHead(202).end();
      return;
    }
    const result = modern ? serveModern(message, req, mask) : serveLegacy(message, req, mask, sessions, headers);
    res.writeHead(200, { 'Content-Type': 'application/json', ...headers });
    res.end(JSON.stringify({ jsonrpc: '2.0', id: message.id, result }));
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    const body = { jsonrpc: '2.0', id: message?.id ?? null, error: { code: error.code, message: error.message, data: error.data } };
    res.writeHead(error.status, { 'Content-Type': 'application/json' });
    res.end(JSON.stringify(body));
  }
}

// The stream a legacy client listens on: this server has nothing to say, so only comments keep it open.
function stream(req, res, { sessions }) {
  if (!sessions.has(req.headers['mcp-session-id'])) {
    res.writeHead(405, { Allow: 'POST' }).end();
    return;
  }
  res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
  res.write(': listening\n\n');
  const timer = setInterval(() => res.write(': keepalive\n\n'), 15000);
  res.on('close', () => clearInterval(timer));
}

// A request listener for node:http. `onRequest` sees every request before it is answered.
export function createEchoListener({ mask = true, onRequest = () => {} } = {}) {
  const context = { mask, sessions: new Set() };
  return (req, res) => {
    onRequest(req);
    if (req.method === 'POST') {
      post(req, res, context).catch(() => res.destroy());
    } else if (req.method === 'GET') {
      stream(req, res, context);
    } else if (req.method === 'DELETE') {
      res.writeHead(context.sessions.delete(req.headers['mcp-session-id']) ? 204 : 404).end();
    } else {
      res.writeHead(405, { Allow: 'GET, POST, DELETE' }).end();
    }
  };
}

function main(args) {
  const portAt = args.indexOf('--port');
  const port = portAt >= 0 ? Number(args[portAt + 1]) : 0;
  if (args.includes('--help') || !Number.isInteger(port)) {
    console.log('usage: node echo-server.mjs [--port N] [--no-mask]');
    process.exit(args.includes('--help') ? 0 : 2);
  }
  const server = http.createServer(createEchoListener({ mask: !args.includes('--no-mask') }));
  server.on('error', (error) => {
    console.error(`cannot listen on 127.0.0.1:${port}: ${error.message}`);
    process.exit(1);
  });
  server.listen(port, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}/mcp`));
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.on(signal, () => {
      server.close();
      server.closeAllConnections();
    });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) main(process.argv.slice(2));

// SPDX-License-Identifier: Apache-2.0
// Upstream servers that are under the test's thumb: one that echoes and records, one that streams, stalls, resets and answers oddly.
import { createEchoListener } from '../../../tools/demo/echo-server.mjs';
import { listen, readBody, sleep } from './http.mjs';

// The demo echo server, unmasked, with a record of every request: { method, url, headers, rawHeaders, at }.
export async function startEcho() {
  const requests = [];
  const site = await listen(createEchoListener({
    mask: false,
    onRequest: (req) => requests.push({ at: Date.now(), method: req.method, url: req.url, headers: req.headers, rawHeaders: req.rawHeaders }),
  }));
  return { url: `${site.url}/mcp`, origin: site.url, requests, close: () => site.close() };
}

// Behaves as the tool call's arguments say (params.arguments), whatever the tool's name:
//   { delayMs }                       answers after that time
//   { events, everyMs }               an event stream: that many notifications, then the result
//   { hang: true }                    an event stream that never ends; `disconnects` records when the client was gone
//   { reset: 'before' | 'after' }     cuts the connection before or in the middle of the answer
//   { status, headers, body }         that answer
export async function startTrickster() {
  const requests = [];
  const disconnects = [];
  const site = await listen(async (req, res) => {
    const body = await readBody(req);
    let message = {};
    try {
      message = JSON.parse(body.toString('utf8'));
    } catch { /* not JSON: treated as an empty message */ }
    const args = message.params?.arguments ?? {};
    requests.push({ at: Date.now(), method: req.method, url: req.url, headers: req.headers, rawHeaders: req.rawHeaders, args, body });
    let finished = false;
    res.on('close', () => {
      if (!finished) disconnects.push({ at: Date.now(), args });
    });
    const result = { content: [{ type: 'text', text: JSON.stringify(args) }], resultType: 'complete' };
    const answer = JSON.stringify({ jsonrpc: '2.0', id: message.id ?? null, result });
    const end = (...rest) => {
      finished = true;
      res.end(...rest);
    };
    if (message.id === undefined && req.method === 'POST') return end(res.writeHead(202) && undefined);
    if (args.reset === 'before') return req.socket.destroy();
    if (args.delayMs) await sleep(args.delayMs);
    if (args.status) {
      res.writeHead(args.status, { 'Content-Type': 'application/json', ...args.headers });
      return end(args.body ?? answer);
    }
    if (args.events || args.hang || args.reset) {
      res.writeHead(200, { 'Content-Type': 'text/event-stream', ...args.headers });
      const event = (value) => res.write(`event: message\ndata: ${JSON.stringify(value)}\n\n`);
      for (let i = 0; i < (args.events ?? 1); i++) {
        event({ jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data: { n: i, at: Date.now() } } });
        if (args.everyMs) await sleep(args.everyMs);
      }
      if (args.reset === 'after') {
        await sleep(100);  // the head and the event are to arrive before the reset
        return req.socket.resetAndDestroy();
      }
      if (args.hang) return undefined;
      return end(`event: message\ndata: ${answer}\n\n`);
    }
    res.writeHead(200, { 'Content-Type': 'application/json', ...args.headers });
    return end(answer);
  });
  return { url: `${site.url}/mcp`, origin: site.url, requests, disconnects, close: () => site.close() };
}

// Answers as the servers of the SDKs do, but in plain text wherever a body need not be JSON: 405 for GET and DELETE, 404 for a session it
// has forgotten (or a method of 2026-07-28), 202 for a notification. Without the slash at the end of its address it redirects.
export async function startPlain() {
  const sessions = new Set();
  const text = (res, status, words, headers = {}) => res.writeHead(status, { 'Content-Type': 'text/plain', ...headers }).end(words);
  const site = await listen(async (req, res) => {
    const body = await readBody(req);
    if (req.url === '/mcp') return res.writeHead(307, { Location: `http://${req.headers.host}/mcp/?key=hidden` }).end('moved');
    if (req.method !== 'POST') return text(res, 405, 'no stream, and no end of a session', { Allow: 'POST' });
    const message = JSON.parse(body);
    const opens = message.method === 'initialize';
    if (!opens && !sessions.has(req.headers['mcp-session-id'])) return text(res, 404, 'Session not found');
    if (message.id === undefined) return text(res, 202, 'Accepted');
    const id = `session-${sessions.size}`;
    if (opens) sessions.add(id);
    const result = opens ? { protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo: { name: 'plain', version: '1' } } : { tools: [] };
    res.writeHead(200, { 'Content-Type': 'application/json; charset=utf-8', ...(opens ? { 'Mcp-Session-Id': id } : {}) });
    return res.end(JSON.stringify({ jsonrpc: '2.0', id: message.id, result }));
  });
  return { url: `${site.url}/mcp/`, unslashed: `${site.url}/mcp`, forget: () => sessions.clear(), close: () => site.close() };
}

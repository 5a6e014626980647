// SPDX-License-Identifier: Apache-2.0
// Small helpers over node:http for the servers of the test world.
import { AssertionError } from 'node:assert/strict';
import http from 'node:http';
import { Readable } from 'node:stream';

// Longer than node's own 5 s: these servers share one thread with the clients, and a thousand calls at once hold it up for a second or two.
// Node looks at its clock before it looks at its sockets, so it would close a connection whose next request has long been there.
const KEEP_ALIVE_MS = 30000;

// Starts `listener` on a free loopback port (or on `port`). close() ends idle and busy connections alike.
export async function listen(listener, port = 0) {
  const server = http.createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, listener);
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  const actual = server.address().port;
  return {
    server,
    port: actual,
    url: `http://127.0.0.1:${actual}`,
    close: () => new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    }),
  };
}

const handedOut = new Set();

// A port nobody listens on at this moment, below the range the kernel takes outgoing ports from. Never the same twice: whoever got it may
// not listen yet.
export async function freePort() {
  for (;;) {
    const port = 20000 + Math.floor(Math.random() * 12000);
    if (handedOut.has(port)) continue;
    try {
      handedOut.add(port);
      await (await listen(() => {}, port)).close();
      return port;
    } catch (error) {
      if (error.code !== 'EADDRINUSE') throw error;
    }
  }
}

export async function readBody(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export function sendJson(res, status, body, headers = {}) {
  res.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  res.end(JSON.stringify(body));
}

// For an endpoint that a test can bring into trouble: 'down' answers an error, 'silent' takes the request and never answers it. Says whether it did.
export function inTrouble(trouble, res) {
  if (trouble === 'down') sendJson(res, 503, { error: 'temporarily_unavailable' });
  return trouble !== undefined;
}

export function sendHtml(res, status, html, headers = {}) {
  res.writeHead(status, { 'Content-Type': 'text/html; charset=utf-8', ...headers });
  res.end(`<!doctype html><html lang="en"><head><title>test</title></head><body>${html}</body></html>`);
}

export function escapeHtml(text) {
  return String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

// Adapts a web-standard handler (Request) => Promise<Response> to node:http. The Request's signal aborts when the client goes.
export function webHandler(handle) {
  return async (req, res) => {
    const gone = new AbortController();
    res.on('close', () => gone.abort());
    const headers = new Headers();
    for (let i = 0; i < req.rawHeaders.length; i += 2) headers.append(req.rawHeaders[i], req.rawHeaders[i + 1]);
    const hasBody = req.method !== 'GET' && req.method !== 'HEAD';
    const body = hasBody ? await readBody(req) : undefined;
    const request = new Request(new URL(req.url, `http://${req.headers.host ?? 'localhost'}`), {
      method: req.method, headers, body: body?.length ? body : undefined, signal: gone.signal,
    });
    let response;
    try {
      response = await handle(request);
    } catch (error) {
      if (!gone.signal.aborted) {
        res.writeHead(500);
        res.end(String(error));
      }
      return;
    }
    res.writeHead(response.status, Object.fromEntries(response.headers));
    if (!response.body) {
      res.end();
      return;
    }
    res.flushHeaders();
    const stream = Readable.fromWeb(response.body);
    stream.on('error', () => res.destroy());
    res.on('close', () => stream.destroy());
    stream.pipe(res);
  };
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Polls `probe` until it returns something truthy; throws with `what` when `ms` have passed. A failed assertion in the probe, or an
// error marked `fatal`, ends it at once: what must never be seen must not be waited away. Other errors mean "not yet".
export async function waitFor(probe, what, ms = 10000, every = 25) {
  const end = Date.now() + ms;
  let last;
  for (;;) {
    try {
      const value = await probe();
      if (value) return value;
    } catch (error) {
      if (error.fatal || error instanceof AssertionError) throw error;
      last = error;
    }
    if (Date.now() > end) throw new Error(`timed out after ${ms} ms waiting for ${what}${last ? `: ${last}` : ''}`);
    await sleep(every);
  }
}

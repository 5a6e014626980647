#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// What a load of the bench must not have done: leave a call out of the audit, stop its shipping, make an RPC at the doors, refuse.
//   check-round.mjs --baseline TOKENS SINCE    after the warm-up, which began at SINCE (seconds since 1970): was every caller introduced?
//   check-round.mjs ANSWERED                   after a load that got ANSWERED answers
// Environment: BENCH_ADMIN_URL, the gateway's admin listener; BENCH_DATA, its data directory; BENCH_STATE, a file between the calls.
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, readSync, readdirSync, fstatSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const { BENCH_ADMIN_URL: admin, BENCH_DATA: data, BENCH_STATE: stateFile } = process.env;
// What the edge learned at the doors lives five minutes; it is asked for again in the background after four.
const RENEWED_AFTER_SECONDS = 240;
const CONNECTIONS = 32;
const SERVERS = 2;  // bench and service: each has a credential of its own that is renewed.

const failures = [];
const expect = (condition, text) => { if (!condition) failures.push(text); };

async function readMetrics() {
  const lines = (await (await fetch(`${admin}/metrics`)).text()).split('\n').filter((line) => !line.startsWith('#'));
  const sum = (name, ...labels) => lines.filter((line) => line.startsWith(name) && labels.every((label) => line.includes(label)))
    .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' '))), 0);
  const requests = (...labels) => sum('sallyport_mcp_requests_total{', 'server="bench"', ...labels);
  const rpcs = (method, ...labels) => sum('sallyport_rpc_requests_total{', `method="${method}"`, ...labels);
  return {
    served: requests(), good: requests('code="2xx"'), left: requests('code="none"'),
    shipped: sum('sallyport_audit_shipped_total'), lost: sum('sallyport_audit_lost_total'),
    authenticate: rpcs('Authenticate'), resolve: rpcs('ResolveCredentials'),
    authenticated: rpcs('Authenticate', 'code="OK"'), resolved: rpcs('ResolveCredentials', 'code="OK"'),
  };
}

// ---- audit records: in segments until they are shipped, in the registry's table then -----------------------------------------

const registry = (query) => execFileSync('sqlite3', ['-readonly', '-cmd', '.timeout 5000', registryFile(), query], { encoding: 'utf8' }).trim();
const files = (name) => readdirSync(data, { recursive: true }).filter(name).map((file) => path.join(data, file));
function registryFile() {
  const [file] = files((name) => /registry[^/]*\.(db|sqlite)$/.test(name));
  if (!file) throw new Error(`no registry database below ${data}`);
  return file;
}

function varint(bytes, at) {
  let value = 0;
  let scale = 1;
  for (;;) {
    const byte = bytes[at++];
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return [value, at];
    scale *= 128;
  }
}

// { sequence, type, slug } of a serialized sallyport.audit.v1.Event.
function parseEvent(bytes) {
  const event = { sequence: 0, type: '', slug: '' };
  for (let at = 0; at < bytes.length;) {
    let key;
    let value;
    [key, at] = varint(bytes, at);
    if ((key & 7) === 0) {
      [value, at] = varint(bytes, at);
      if (key >> 3 === 3) event.sequence = value;
    } else if ((key & 7) === 2) {
      [value, at] = varint(bytes, at);
      if (key >> 3 === 5) event.type = bytes.toString('latin1', at, at + value);
      if (key >> 3 === 12) event.slug = bytes.toString('latin1', at, at + value);
      at += value;
    } else {
      throw new Error(`an audit event with wire type ${key & 7}`);
    }
  }
  return event;
}

const isCall = ({ type, slug }) => slug === 'bench' && type.startsWith('mcp.');

// Reads what a segment file gained since `known` = { boot, source, offset }; see common/audit/segment_format.h. Calls `onEvent`.
function readSegment(file, known, onEvent) {
  const fd = openSync(file, 'r');
  const size = fstatSync(fd).size;
  const bytes = Buffer.alloc(size - known.offset);
  readSync(fd, bytes, 0, bytes.length, known.offset);
  closeSync(fd);
  let at = 0;
  if (known.offset === 0) {
    if (bytes.toString('latin1', 0, 8) !== 'SPAUDIT1') throw new Error(`${file} is no audit segment`);
    at = 8;
    for (const part of ['source', 'boot']) {
      const length = bytes.readUInt16BE(at);
      known[part] = bytes.toString('utf8', at + 2, at + 2 + length);
      at += 2 + length;
    }
    at += 8 + 32;
  }
  for (;;) {
    if (at + 4 > bytes.length) break;
    const end = at + 4 + bytes.readUInt32BE(at) + 32;
    if (end > bytes.length) break;
    onEvent(parseEvent(bytes.subarray(at + 4, end - 32)));
    at = end;
  }
  known.offset += at;
}

// Adds to state.calls the audit records of calls to server bench that were written since the last time. Sequences have no gaps: those
// not seen in a file were shipped before it was read, and are in the registry.
function countCalls(state) {
  const segments = {};
  for (const file of files((name) => name.endsWith('.seg')).sort()) {
    const known = state.segments[file] ?? { offset: 0 };
    try {
      readSegment(file, known, (event) => {
        const writer = `${known.source}|${known.boot}`;
        state.through[writer] ??= 0;
        if (event.sequence > state.through[writer] + 1) {
          const range = `sequence > ${state.through[writer]} AND sequence < ${event.sequence}`;
          state.calls += Number(registry(`SELECT count(*) FROM audit_event WHERE source = '${known.source}' AND boot = '${known.boot}' AND
            ${range} AND server_slug = 'bench' AND type LIKE 'mcp.%'`));
        }
        state.through[writer] = Math.max(state.through[writer], event.sequence);
        if (isCall(event)) state.calls++;
      });
      segments[file] = known;
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;  // Shipped meanwhile.
    }
  }
  state.segments = segments;
}

// ---- the checks ---------------------------------------------------------------------------------------------------------------

const state = existsSync(stateFile) ? JSON.parse(readFileSync(stateFile, 'utf8')) : { segments: {}, through: {}, calls: 0 };

// Calls are counted when they are answered and written every 100 ms: until as many are on disk, or that takes too long.
async function settle() {
  for (let attempt = 0; ; ++attempt) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    const metrics = await readMetrics();
    countCalls(state);
    if (metrics.served === state.calls || attempt === 20) return metrics;
  }
}

const now = await settle();
expect(now.served === state.calls, `${now.served} requests to server bench, ${state.calls} audit records of them`);
expect(now.lost === 0, `${now.lost} audit records were lost`);

if (process.argv[2] === '--baseline') {
  const [tokens, since] = process.argv.slice(3).map(Number);
  Object.assign(state, { tokens, since });
  // Otherwise the counters watched from here on would be none that ever move.
  expect(now.authenticated >= tokens, `${tokens} callers were introduced with ${now.authenticated} Authenticate`);
  expect(now.resolved >= 1, 'no ResolveCredentials was made');
} else {
  const before = state.metrics;
  const answered = Number(process.argv[2]);
  const served = now.served - before.served;
  const left = now.left - before.left;
  const refused = served - (now.good - before.good) - left;
  expect(answered > 0, 'no request was answered');
  expect(served >= answered, `${answered} requests were answered, ${served} counted`);
  expect(refused === 0, `${refused} requests were refused`);
  // When the load ends, its connections leave what they just asked.
  expect(left <= CONNECTIONS, `${left} requests were given up by the client`);
  expect(now.shipped > before.shipped, 'no audit record was shipped');
  const renewals = Math.floor((Date.now() / 1000 - state.since) / RENEWED_AFTER_SECONDS);
  const authenticate = now.authenticate - state.baseline.authenticate;
  const resolve = now.resolve - state.baseline.resolve;
  expect(authenticate <= renewals * state.tokens, `${authenticate} Authenticate were made`);
  expect(resolve <= renewals * SERVERS, `${resolve} ResolveCredentials were made`);
}
state.metrics = now;
state.baseline ??= now;
writeFileSync(stateFile, JSON.stringify(state));
for (const failure of failures) console.error(`check-round: ${failure}`);
process.exitCode = failures.length > 0 ? 1 : 0;

// SPDX-License-Identifier: Apache-2.0
// Sends one request with each token, so that the measurement begins with every caller known.
//   node warm-up.mjs URL TOKENS_FILE UPSTREAM_PORT [--session]
// Is the upstream itself meanwhile. With --session the first caller's request is an `initialize`, and the session id that the gateway
// answers is printed.
import { readFileSync } from 'node:fs';
import http from 'node:http';

const [url, file, port, session] = process.argv.slice(2);
const tokens = readFileSync(file, 'utf8').trim().split('\n');

const upstream = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const { id, method } = JSON.parse(Buffer.concat(chunks).toString());
  const begins = method === 'initialize';
  const result = begins ? { protocolVersion: '2025-11-25', capabilities: {}, serverInfo: { name: 'bench', version: '1' } } : {};
  response.writeHead(200, { 'Content-Type': 'application/json', ...(begins ? { 'Mcp-Session-Id': 'bench-session' } : {}) });
  response.end(JSON.stringify({ jsonrpc: '2.0', id, result }));
});
await new Promise((resolve, reject) => upstream.on('error', reject).listen(Number(port), '127.0.0.1', resolve));

const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
function send(token, method, params) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method: 'POST', agent, headers: {
      'Content-Type': 'application/json', Accept: 'application/json, text/event-stream', Authorization: `Bearer ${token}`,
    } }, (response) => {
      response.resume();
      response.on('end', () => resolve(response));
    });
    request.on('error', reject);
    request.end(JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }));
  });
}
async function introduce(token, method = 'ping', params = undefined) {
  for (let attempt = 0; attempt < 50; ++attempt) {
    const response = await send(token, method, params);
    if (response.statusCode === 200) return response;
    if (response.statusCode !== 503) throw new Error(`warm-up: status ${response.statusCode}`);
    await new Promise((resolve) => setTimeout(resolve, 100)); // Asked to try again.
  }
  throw new Error('warm-up: still 503');
}

if (session === '--session') {
  const { headers } = await introduce(tokens[0], 'initialize', {
    protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'bench', version: '1' },
  });
  if (!headers['mcp-session-id']) throw new Error('warm-up: initialize brought no session id');
  console.log(headers['mcp-session-id']);
}
let next = 0;
await Promise.all(Array.from({ length: 16 }, async () => { while (next < tokens.length) await introduce(tokens[next++]); }));
agent.destroy();
upstream.close();
upstream.closeAllConnections();

// SPDX-License-Identifier: Apache-2.0
// Sends one request with each token, so that the measurement begins with every caller known.
//   node warm-up.mjs URL TOKENS_FILE
import { readFileSync } from 'node:fs';
import http from 'node:http';

const [url, file] = process.argv.slice(2);
const tokens = readFileSync(file, 'utf8').trim().split('\n');
const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' });
function send(token) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method: 'POST', agent, headers: {
      'Content-Type': 'application/json', Accept: 'application/json, text/event-stream', Authorization: `Bearer ${token}`,
    } }, (response) => {
      response.resume();
      // The upstream is not there yet: 502 comes from behind both doors.
      response.on('end', () => (response.statusCode === 502 || response.statusCode === 200
        ? resolve() : reject(new Error(`warm-up: status ${response.statusCode}`))));
    });
    request.on('error', reject);
    request.end(body);
  });
}
let next = 0;
await Promise.all(Array.from({ length: 32 }, async () => { while (next < tokens.length) await send(tokens[next++]); }));
agent.destroy();

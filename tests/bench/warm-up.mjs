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
      response.on('end', () => resolve(response.statusCode));
    });
    request.on('error', reject);
    request.end(body);
  });
}
async function introduce(token) {
  for (let attempt = 0; attempt < 50; ++attempt) {
    const status = await send(token);
    if (status === 200 || status === 502) return;
    if (status !== 503) throw new Error(`warm-up: status ${status}`);
    await new Promise((resolve) => setTimeout(resolve, 100)); // Asked to try again.
  }
  throw new Error('warm-up: still 503');
}
let next = 0;
await Promise.all(Array.from({ length: 16 }, async () => { while (next < tokens.length) await introduce(tokens[next++]); }));
agent.destroy();

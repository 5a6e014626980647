// SPDX-License-Identifier: Apache-2.0
// A token endpoint for the bench's gateway (RFC 6749 section 4.4): any client gets a token for two hours.
//   node token-endpoint.mjs     prints its URL and serves until it is ended
import { randomBytes } from 'node:crypto';
import http from 'node:http';

const server = http.createServer((request, response) => {
  request.resume();
  request.on('end', () => {
    response.writeHead(200, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' });
    response.end(JSON.stringify({ access_token: randomBytes(32).toString('base64url'), token_type: 'Bearer', expires_in: 7200 }));
  });
});
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}/token`));

// SPDX-License-Identifier: Apache-2.0
// A loopback proxy for clients that cannot send a bearer token themselves, such as the conformance suite in `server` mode. It adds
// the token and maps its own Host and Origin to the target's; foreign values of either pass as they came, so that the target's
// rules about them are what is measured.
import http from 'node:http';
import { listen } from '../e2e/world/http.mjs';

// `target` is the MCP endpoint; everything under the shim's /mcp goes there. Returns { url, close }.
export async function startShim({ target, token }) {
  const upstream = new URL(target);
  const agent = new http.Agent({ keepAlive: true });
  let own;
  const mapped = (name, value) => {
    const lower = name.toLowerCase();
    if (lower === 'host' && own.hosts.has(value)) return upstream.host;
    if (lower === 'origin' && own.origins.has(value)) return upstream.origin;
    return value;
  };
  const site = await listen((req, res) => {
    const headers = [];
    for (let i = 0; i < req.rawHeaders.length; i += 2) {
      const name = req.rawHeaders[i];
      if (name.toLowerCase() !== 'connection') headers.push(name, mapped(name, req.rawHeaders[i + 1]));
    }
    if (token) headers.push('Authorization', `Bearer ${token}`);
    const query = new URL(req.url, 'http://shim').search;
    const out = http.request({
      host: upstream.hostname, port: upstream.port, method: req.method, path: upstream.pathname + query, headers, agent,
      setHost: false,
    }, (answer) => {
      res.writeHead(answer.statusCode, answer.rawHeaders);
      res.flushHeaders();
      answer.pipe(res);
      answer.on('aborted', () => res.destroy());
    });
    out.on('error', () => (res.headersSent ? res.destroy() : res.writeHead(502).end()));
    res.on('close', () => out.destroy());
    req.pipe(out);
  });
  const names = ['127.0.0.1', 'localhost'].map((host) => `${host}:${site.port}`);
  own = { hosts: new Set(names), origins: new Set(names.map((host) => `http://${host}`)) };
  return {
    url: `${site.url}/mcp`,
    close: async () => {
      agent.destroy();
      await site.close();
    },
  };
}

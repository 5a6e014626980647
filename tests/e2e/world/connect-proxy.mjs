// SPDX-License-Identifier: Apache-2.0
// An HTTP proxy that opens tunnels (CONNECT) and knows names that nobody else does, and TLS in front of a server that has none.
import http from 'node:http';
import net from 'node:net';
import tls from 'node:tls';

const track = (sockets, socket) => {
  sockets.add(socket);
  socket.on('error', () => {}).on('close', () => sockets.delete(socket));
  return socket;
};

const listening = (server, port) => new Promise((resolve, reject) => {
  server.once('error', reject);
  server.listen(port, '127.0.0.1', () => resolve(server.address().port));
});

// hosts: name -> port on this host. What is changed in `settings` holds for what comes next:
//   credentials    "user:password" that it demands (Basic)
// `requests` are all that came: { target, headers, answer }.
export async function startConnectProxy({ hosts, credentials, port: wanted = 0 }) {
  const settings = { credentials };
  const requests = [];
  const sockets = new Set();
  const expected = () => `Basic ${Buffer.from(settings.credentials).toString('base64')}`;
  const server = http.createServer((req, res) => {
    requests.push({ target: req.url, headers: req.headers, answer: 405 });
    res.writeHead(405).end('this proxy opens tunnels only');
  });
  server.on('connection', (socket) => track(sockets, socket));
  server.on('connect', (req, socket, head) => {
    const { hostname } = new URL(`http://${req.url}`);
    const request = { target: req.url, headers: req.headers, early: head.length, answer: 200 };
    requests.push(request);
    const refuse = (status, more = '') => {
      request.answer = status;
      const body = '<h1>the proxy says no</h1>';
      socket.end(`HTTP/1.1 ${status} Refused\r\n${more}Content-Type: text/html\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    };
    if (settings.credentials && req.headers['proxy-authorization'] !== expected()) {
      return refuse(407, 'Proxy-Authenticate: Basic realm="egress"\r\n');
    }
    if (!(hostname in hosts)) return refuse(502);
    const upstream = track(sockets, net.connect(hosts[hostname], '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      socket.pipe(upstream).pipe(socket);
    }));
    upstream.on('close', () => socket.destroy());
    socket.on('close', () => upstream.destroy());
    return undefined;
  });
  const port = await listening(server, wanted);
  const cut = () => { for (const socket of sockets) socket.destroy(); };
  return {
    url: `http://127.0.0.1:${port}`, port, settings, requests,
    // Tunnels asked for a host.
    to: (host) => requests.filter(({ target }) => target === `${host}:443`),
    // Ends all tunnels.
    cut,
    close: () => new Promise((resolve) => {
      server.close(resolve);
      cut();
    }),
  };
}

// Passes what comes by TLS on to `port` of this host.
export async function startTlsFront(port, { key, cert }) {
  const sockets = new Set();
  let connections = 0;
  const server = tls.createServer({ key, cert }, (socket) => {
    connections++;
    track(sockets, socket);
    const inside = track(sockets, net.connect(port, '127.0.0.1'));
    socket.pipe(inside).pipe(socket);
    inside.on('close', () => socket.destroy());
    socket.on('close', () => inside.destroy());
  });
  server.on('tlsClientError', () => {});
  const own = await listening(server, 0);
  return {
    port: own, connections: () => connections,
    close: () => new Promise((resolve) => {
      server.close(resolve);
      for (const socket of sockets) socket.destroy();
    }),
  };
}

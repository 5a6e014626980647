// SPDX-License-Identifier: Apache-2.0
// Loaded before a demo server (node --import): it listens on 127.0.0.1, where it would have taken every address of this machine.
import net from 'node:net';

const { listen } = net.Server.prototype;
net.Server.prototype.listen = function listenOnLoopback(port, ...rest) {
  const portGiven = typeof port === 'number' || (typeof port === 'string' && /^\d+$/.test(port));
  return portGiven ? listen.call(this, { port: Number(port), host: '127.0.0.1' }, ...rest.filter((value) => typeof value === 'function'))
    : listen.call(this, port, ...rest);
};

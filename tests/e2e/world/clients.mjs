// SPDX-License-Identifier: Apache-2.0
// Real MCP clients, from the first 401 to a working connection, with a scripted person at the browser.
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { Client as LegacyClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as LegacyTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { UnauthorizedError as LegacyUnauthorized } from '@modelcontextprotocol/sdk/client/auth.js';
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';
import { waitFor } from './http.mjs';
import { watchedFetch } from './http-client.mjs';
import { remember, rememberFields, rememberJson } from './secrets.mjs';

const require = createRequire(import.meta.url);
// Nobody listens there: the browser is stopped before it would go.
const CALLBACK = 'http://127.0.0.1:33999/callback';
const isCallback = (url) => url.origin + url.pathname === CALLBACK;

// What a desktop application implements for the SDK: memory for registrations and tokens, and a browser.
export class MemoryOAuth {
  constructor({ name = 'e2e client', openUrl, clientMetadata = {} }) {
    this.openUrl = openUrl;
    this.authorizations = 0;
    this.memory = {};
    this.expectedState = undefined;
    this.clientMetadata = {
      client_name: name, redirect_uris: [CALLBACK], grant_types: ['authorization_code', 'refresh_token'], ...clientMetadata,
    };
  }

  get redirectUrl() { return CALLBACK; }
  state() { return (this.expectedState = crypto.randomUUID()); }
  clientInformation() { return this.memory.client; }
  saveClientInformation(value) { rememberFields(this.memory.client = value); }
  tokens() { return this.memory.tokens; }
  saveTokens(value) { rememberFields(this.memory.tokens = value); }
  saveCodeVerifier(value) { remember('code_verifier', this.memory.verifier = value); }
  codeVerifier() { return this.memory.verifier; }
  saveDiscoveryState(value) { this.memory.discovery = value; }
  discoveryState() { return this.memory.discovery; }

  invalidateCredentials(scope) {
    if (scope === 'all' || scope === 'client') delete this.memory.client;
    if (scope === 'all' || scope === 'tokens') delete this.memory.tokens;
    if (scope === 'all' || scope === 'verifier') delete this.memory.verifier;
    if (scope === 'all' || scope === 'discovery') delete this.memory.discovery;
  }

  async redirectToAuthorization(url) {
    this.authorizations++;
    this.callback = await this.openUrl(url.href);
    if (this.callback.searchParams.get('state') !== this.expectedState) throw new Error('the callback carries another state');
  }
}

// What mcp-remote leaves in its directory: tokens as JSON, code verifiers as they are.
async function rememberFiles(directory) {
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])) {
    if (!entry.isFile()) continue;
    const text = await readFile(path.join(entry.parentPath, entry.name), 'utf8');
    rememberJson(text);
    if (entry.name.includes('verifier')) remember('code_verifier', text.trim());
  }
}

// A function that plays `persona` in `browser` from an authorization URL to the client's callback.
export function person(browser, persona) {
  return async (url) => {
    const result = await browser.act(url, persona, { stop: isCallback });
    if (!result.callback) {
      throw new Error(`the browser ended at ${result.page.url} (HTTP ${result.page.status}): ${result.page.html.slice(0, 2000)}`);
    }
    return result.callback;
  };
}

async function connectTwice(make, finish, Unauthorized) {
  const first = make();
  try {
    await first.client.connect(first.transport);
    return first.client;
  } catch (error) {
    if (!(error instanceof Unauthorized)) throw error;
  }
  await finish(first.transport);
  const second = make();
  await second.client.connect(second.transport);
  return second.client;
}

const INFO = { name: 'sallyport-e2e', version: '1.0.0' };

// A fetch that keeps what comes back, one entry an answer: { head, body }, the body as far as it has come. `asked` gets the addresses.
// `blind`: like a client that finds no metadata.
function recordingFetch(received, asked, blind) {
  return async (...args) => {
    const { pathname } = new URL(args[0] instanceof Request ? args[0].url : args[0]);
    asked.push(pathname);
    if (blind && pathname.startsWith('/.well-known/')) return new Response('', { status: 404 });
    const response = await watchedFetch(...args);
    const entry = { head: JSON.stringify([...response.headers]), body: '' };
    received.push(entry);
    const body = response.clone().body;
    const read = async () => {
      const decoder = new TextDecoder();
      for await (const chunk of body) entry.body += decoder.decode(chunk, { stream: true });
    };
    if (body) read().catch(() => {});  // Cut off: what the client makes of that is its own affair.
    return response;
  };
}

// kind: 'sdk1' (@modelcontextprotocol/sdk), 'client2' (@modelcontextprotocol/client as it comes), 'client2-auto' (the same with
// versionNegotiation auto). Resolves with { client, oauth, received, asked, close }; the client is connected, `received` is all it was sent
// over HTTP so far, `asked` the paths it asked for. `blind`: it finds no metadata and falls back to the paths of MCP 2025-03-26.
export async function connectClient(kind, url,
  { openUrl, oauth = new MemoryOAuth({ openUrl }), capabilities = {}, headers, blind = false } = {}) {
  const received = [];
  const asked = [];
  const transportOptions = {
    authProvider: headers?.Authorization ? undefined : oauth, requestInit: headers ? { headers } : undefined, fetch: recordingFetch(received, asked, blind),
  };
  let client;
  if (kind === 'sdk1') {
    client = await connectTwice(
      () => ({ client: new LegacyClient(INFO, { capabilities }), transport: new LegacyTransport(new URL(url), transportOptions) }),
      (transport) => transport.finishAuth(oauth.callback.searchParams.get('code')), LegacyUnauthorized);
  } else {
    const options = { capabilities, ...(kind === 'client2-auto' ? { versionNegotiation: { mode: 'auto' } } : {}) };
    client = await connectTwice(
      () => ({ client: new Client(INFO, options), transport: new StreamableHTTPClientTransport(new URL(url), transportOptions) }),
      (transport) => transport.finishAuth(oauth.callback.searchParams), UnauthorizedError);
  }
  return { client, oauth, received, asked, close: () => client.close() };
}

// mcp-remote as a child process. Whatever it starts as a browser is a script that writes the URL to a file; `openUrl` then plays the
// person and must follow the redirect to mcp-remote's own callback port. `env` goes to it. Resolves with { client, log(), close }.
export async function connectMcpRemote(url, { openUrl, args = [], env = {} } = {}) {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'mcp-remote-'));
  const bin = path.join(directory, 'bin');
  const urlFile = path.join(directory, 'url');
  await mkdir(bin);
  const script = `#!/bin/sh\nprintf '%s' "$1" > ${urlFile}.new && mv ${urlFile}.new ${urlFile}\n`;
  for (const name of ['xdg-open', 'open', 'gio', 'x-www-browser', 'sensible-browser', 'browser']) {
    await writeFile(path.join(bin, name), script);
    await chmod(path.join(bin, name), 0o755);
  }
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [require.resolve('mcp-remote/dist/proxy.js'), url, '--allow-http', ...args],
    env: {
      PATH: `${bin}:${process.env.PATH}`, HOME: directory, MCP_REMOTE_CONFIG_DIR: path.join(directory, 'config'),
      BROWSER: path.join(bin, 'browser'), ...env,
    },
    stderr: 'pipe',
  });
  let log = '';
  transport.stderr?.on('data', (chunk) => { log += chunk; });
  const client = new LegacyClient(INFO, { capabilities: {} });
  let closed = false;
  const opened = waitFor(async () => closed || await readFile(urlFile, 'utf8').catch(() => undefined) ||
      log.match(/https?:\/\/\S+response_type=code\S*/)?.[0], 'mcp-remote to open a browser', 30000);
  const browsing = opened.then((found) => typeof found === 'string' ? openUrl(found) : undefined);
  const close = async () => {
    closed = true;
    await client.close();
    await rememberFiles(path.join(directory, 'config'));
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await Promise.all([client.connect(transport, { timeout: 60000 }), browsing]);
  } catch (error) {
    await close();
    throw new Error(`mcp-remote did not connect: ${error.message}\n${log}`);
  }
  return { client, log: () => log, close };
}

// For mcp-remote, which has a listener of its own: plays `persona` through to a page that mcp-remote serves.
export function personToTheEnd(browser, persona) {
  return async (url) => {
    const result = await browser.act(url, persona);
    if (result.page.status >= 400) throw new Error(`the browser ended at ${result.page.url} with HTTP ${result.page.status}`);
    return result;
  };
}

export { CALLBACK };

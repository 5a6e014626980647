// SPDX-License-Identifier: Apache-2.0
// What goes on while a test breaks something: a steady stream of calls, and a writer of every kind of thing the gateway stores.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { authorizationRequest, obtainToken, registerClient, tokenRequest, tryToken } from './fixture.mjs';
import { callTool, request, toolText } from './http-client.mjs';
import { sleep, waitFor } from './http.mjs';

// Sends `call(n)` `rate` times a second until stopped. A call resolves with an HTTP answer, `ok`, and a `tag` that says what it was;
// collects { at, ms, status, retryAfter, ok, tag, body (of one that failed) } of every call.
export function startLoad(call, rate) {
  const results = [];
  const pending = new Set();
  let n = 0;
  const began = Date.now();
  const note = (at, { status = 0, headers = {}, ok = false, tag, body }) => results.push({
    at, ms: Date.now() - at, status, retryAfter: headers['retry-after'], ok, tag, ...(ok ? {} : { body: body?.slice(0, 300) }),
  });
  const timer = setInterval(() => {
    // What is due by now, however late the timer is.
    for (const due = ((Date.now() - began) * rate) / 1000; n < due;) {
      const at = Date.now();
      const job = call(n++).then((answer) => note(at, answer), (error) => note(at, { body: String(error) }))
        .finally(() => pending.delete(job));
      pending.add(job);
    }
  }, 20);
  return {
    results,
    // Resolves with all results; throws if it was less than nine tenths of the rate that was sent.
    stop: async () => {
      clearInterval(timer);
      const seconds = (Date.now() - began) / 1000;
      await Promise.all(pending);
      assert.ok(results.length >= rate * (seconds - 0.5) * 0.9, `only ${results.length} calls in ${seconds} s`);
      return results;
    },
  };
}

export const summary = (failed) => JSON.stringify(failed.slice(0, 5));

// Several at a time; resolves when all are done.
export async function inParallel(items, width, work) {
  const queue = [...items];
  await Promise.all(Array.from({ length: width }, async () => {
    while (queue.length > 0) await work(queue.shift());
  }));
}

// Writes of every kind, one after the other of each kind, until stopped: clients that register, a client that renews its token, servers
// with a secret, users who sign in and link their account. Remembers what was acknowledged, to verify it later, and every refusal.
export class Writer {
  clients = [];   // ids
  servers = [];   // { slug, key }
  links = [];     // { i, token }
  cutOff = new Set();  // who was refused at least once before they were linked
  rotations = 0;  // of `chain`
  refused = [];   // { step, status, retryAfter, body }

  // `personas` are people who have not linked yet; the first is the one with the token.
  constructor(world, name, personas) {
    Object.assign(this, { world, name, personas });
  }

  async start() {
    const [owner, ...linkers] = this.personas;
    this.since = new Date().toISOString();
    this.owner = owner;
    this.chain = await obtainToken(this.world, 'echo', this.world.persona(owner));
    this.running = true;
    const loop = async (pause, step) => {
      for (let n = 0; this.running; n++) {
        if (await step(n) === false) return;
        await sleep(pause);
      }
    };
    this.loops = Promise.all([
      loop(500, (n) => this.#register(n)),  // authn records so many events of strangers a second.
      loop(300, () => this.#rotate()),
      loop(500, (n) => this.#createServer(n)),
      loop(600, () => this.#link(linkers[this.links.length])),
    ]);
  }

  // Whether something of every kind was acknowledged.
  get wrote() {
    return this.clients.length > 0 && this.servers.length > 0 && this.links.length > 0 && this.rotations > 0;
  }

  async stop() {
    this.running = false;
    await this.loops;
  }

  #refuse(step, { status, headers, body }) {
    this.refused.push({ step, status, retryAfter: headers['retry-after'], body: body.slice(0, 300) });
  }

  async #register(n) {
    const answer = await registerClient(this.world, `writer ${this.name} ${n}`);
    if (answer.status === 201) this.clients.push(JSON.parse(answer.body).client_id);
    else this.#refuse('register', answer);
  }

  // A client whose renewal failed tries again with the token it has.
  #renew() {
    const { refreshToken, clientId } = this.chain;
    return tokenRequest(this.world, {
      grant_type: 'refresh_token', refresh_token: refreshToken, client_id: clientId, resource: this.world.gateway.mcpUrl('echo'),
    });
  }

  async #rotate() {
    const answer = await this.#renew();
    if (answer.status !== 200) return this.#refuse('rotate', answer);
    this.chain.refreshToken = answer.json.refresh_token;
    this.rotations++;
    return undefined;
  }

  async #createServer(n) {
    const slug = `w-${this.name.replaceAll('_', '-')}-${n}`;
    const key = `canary-writer-${randomBytes(12).toString('base64url')}`;
    this.world.tokens.add(key);
    const answer = await this.world.gateway.apiRequest('sallyport.registry.v1.Registry/CreateMcpServer', {
      mcpServer: {
        slug, upstreamUrl: this.world.echo.url, agentAuth: { passthrough: {} }, appAuth: { apiKey: { name: 'X-API-Key', value: { value: key } } },
      },
    });
    if (answer.status === 200) this.servers.push({ slug, key });
    else this.#refuse('create server', answer);
  }

  async #link(i) {
    if (i === undefined) return false;
    const got = await tryToken(this.world, 'github', this.world.persona(i));
    if (got.failed) {
      this.refused.push({ ...got.failed, step: `link: ${got.failed.step}`, body: got.failed.body?.slice(0, 300) });
      this.cutOff.add(i);
    } else {
      this.links.push({ i, token: got.accessToken });
    }
    return undefined;
  }

  // A broker that dies between storing the link and recording it acknowledges nothing, and the user, coming again, is linked already: the
  // vault's record, made in the transaction that stored it, is then the only one.
  #linkRecorded(events, { i }) {
    const subject = this.world.subject(i);
    return events.some((event) => (event.type === 'link.completed' && event.subject === subject) ||
      (this.cutOff.has(i) && event.type === 'secret.write' && event.details.kind === 'connection' &&
        !event.details.name.startsWith('sso:') && event.details.owner === `user:${subject}`));
  }

  // Everything that was acknowledged is there, and so is the record of it.
  async verify() {
    const { world, owner } = this;
    for (const client of this.clients) {
      const page = await request(authorizationRequest(world, 'echo', client).url);
      assert.ok(page.status < 400, `client ${client}: HTTP ${page.status} ${page.body}`);
    }
    const renewed = await this.#renew();
    assert.equal(renewed.status, 200, `the last refresh token: ${renewed.body}`);
    for (const { slug, key } of this.servers) {
      const call = await waitFor(async () => {
        const answer = await callTool(world.gateway.mcpUrl(slug), 'headers');
        return ![404, 503].includes(answer.status) && answer;  // Not everywhere at once.
      }, `the server ${slug}`);
      assert.equal(JSON.parse(toolText(call) ?? '{}').headers?.['x-api-key'], key, `${slug}: HTTP ${call.status} ${call.body}`);
    }
    const authorizations = world.provider.records.authorizations.length;
    for (const { i, token } of this.links) {
      const answer = await callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token });
      assert.equal(toolText(answer), world.account(i), `the link of ${world.account(i)}: HTTP ${answer.status} ${answer.body}`);
    }
    assert.equal(world.provider.records.authorizations.length, authorizations, 'nobody had to link again');
    let missing;
    await waitFor(async () => {
      const events = await world.gateway.auditEvents({ since: this.since });
      const of = (type) => events.filter((event) => event.type === type);
      const without = (list, type, field) => list.filter((value) => !of(type).some((event) => event[field] === value));
      const renewals = of('token.refreshed').filter((event) => event.subject === world.subject(owner)).length;
      missing = [
        ...without(this.clients, 'client.registered', 'clientId'),
        ...without(this.servers.map(({ slug }) => slug), 'config.created', 'serverSlug'),
        ...this.links.filter((link) => !this.#linkRecorded(events, link))
          .map(({ i }) => `the link of ${world.subject(i)}${this.cutOff.has(i) ? ', refused before' : ''}`),
        ...(renewals < this.rotations ? [`${this.rotations - renewals} renewals`] : []),
      ];
      return missing.length === 0;
    }, 'the audit of every write', 10000, 250).catch((error) => assert.fail(`${error.message}: ${missing}`));
  }
}

// SPDX-License-Identifier: Apache-2.0
// What is sent, what is said, and what is written down, for every app authentication x agent authentication x header source in every kind of
// trouble: the table of docs/app-authentication.md, end to end. No credential ever stands in for another.
import assert from 'node:assert/strict';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, describe, it } from 'node:test';
import {
  AGENTS, OWN_KEY, TRUSTED, VALIDATED, answerOf, ask, canary, cleared, combinations, credentialsOf, piecesOf, serverOf, startUpstream, strays,
} from '../world/combinations.mjs';
import { codehostApp, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { sleep, waitFor } from '../world/http.mjs';
import { inParallel } from '../world/load.mjs';
import { remember } from '../world/secrets.mjs';
import { startTokenService } from '../world/token-service.mjs';

const LIFE = 5;  // seconds that tokens live once they are to end
const LONG = 3600;
const PATIENCE = 22000;  // ms: what a silent provider may cost a caller; the broker gives it 10 s, and lets a bounded number wait for it at a time
const BROKER = 'sallyport.token_broker.v1.TokenBroker';
const REGISTRY = 'sallyport.registry.v1.Registry';
const [MAIN, BYSTANDER, LEAVER, STRANGER] = [0, 1, 2, 3];

// For each kind of credential and each trouble: "goes", "same" (the bytes of the call before), "anew" (others), "link", or the status and the
// reason. What is not the same for all callers: { <agent>, else }.
const FIXED = {
  first: 'goes', again: 'same', 'vault down, known': 'same', refused: '502 credential_refused', 'refused again': '502 credential_refused',
  'provider down': 'same', ended: 'same', 'provider slow': 'same', unlinked: 'same', 'vault down': '503 try_again', missing: '502 credential_missing',
};
const FETCHED = {
  ...FIXED, refused: 'anew', 'provider down': '503 provider_unavailable', ended: 'anew', 'provider slow': '503 provider_unavailable', unlinked: 'goes',
};
const ACCOUNT = { ...FETCHED, 'refused again': '503 renewed_token_refused', unlinked: 'link', missing: 'link' };
const OWN = {
  ...FIXED, refused: 'link', 'refused again': 'link', 'provider down': 'goes', ended: 'goes', 'provider slow': 'goes', unlinked: 'link', missing: 'link',
};
const CALLERS = { ...FIXED, 'vault down': 'goes', missing: 'goes', unlinked: 'goes' };
const SIGN_IN = { ...FETCHED, unlinked: '401 invalid_token', missing: '502 no_caller_token' };
const TABLE = {
  apikey: FIXED, query: FIXED, bearer: FIXED, basic: FIXED, literal: FIXED, stored: FIXED,
  client: FETCHED, service: FETCHED, oauth: ACCOUNT, own: OWN, agents: CALLERS, identity: CALLERS,
  forward: { signed: SIGN_IN, else: CALLERS },
  behalf: { signed: SIGN_IN, else: FETCHED },
};
const FAILED = /^\d/;

// What is refused with all that came before: nothing of it stands in for the rest, and what can be had anew is tried first.
function whenRefused(cell, names, outcomes) {
  const passesThrough = ['agents', 'nothing'].includes(cell.app);
  if (names.length === 0 || names.every((name) => name === 'identity')) return 'goes';
  if (passesThrough && !AGENTS[cell.agent].interactive) return '401 as it came';
  if (cell.app === 'agents') return '502 agent_credential_refused';
  if (outcomes.includes('link')) return 'link';
  if (outcomes.every((outcome) => !FAILED.test(outcome))) return 'goes';
  if (names.includes('oauth')) return '503 renewed_token_refused';
  // The token that the agent itself came with.
  return cell.app === 'nothing' && cell.agent === 'trusted' && cell.header === 'forward' ? '502 agent_credential_refused' : '502 credential_refused';
}

// One answer for all pieces of a server, and of each piece what it is if it goes out.
function expected(cell, trouble) {
  const pieces = piecesOf(cell).map((piece) => {
    const row = TABLE[piece.name];
    return { ...piece, outcome: (row.else ? row[cell.agent] ?? row.else : row)[trouble] };
  });
  const bare = cell.agent === 'open' && cell.app === 'nothing' && cell.header === 'forward';
  if (bare) return { pieces, answer: '401 no_caller_token' };
  const names = pieces.map(({ name }) => name);
  const outcomes = pieces.filter(({ name }) => name !== 'identity').map(({ outcome }) => outcome);
  if (trouble.startsWith('refused')) return { pieces, answer: whenRefused(cell, names, outcomes) };
  // The organization's come first; a link is offered where nothing else fails.
  const inOrder = [...pieces.filter(({ kind }) => kind.organization), ...pieces.filter(({ kind }) => !kind.organization)];
  const failed = inOrder.find(({ outcome }) => FAILED.test(outcome));
  return { pieces, answer: failed?.outcome ?? (outcomes.includes('link') ? 'link' : 'goes') };
}

// type, decision and rule of the call's event.
function expectedEvent(cell, answer) {
  const admitted = { signed: 'interactive.allow.everyone', trusted: 'interactive.allow.everyone', validated: 'passthrough.jwt', open: 'passthrough' };
  const event = (type, decision, rule) => ({ type, decision: `DECISION_${decision}`, rule });
  if (answer === 'goes' || answer === '401 as it came') return event('mcp.call', 'ALLOWED', admitted[cell.agent]);
  if (answer === 'link') return event('mcp.call', 'ALLOWED', 'link_required');
  const [status, reason] = answer.split(' ');
  if (status !== '401') return event('mcp.call', 'FAILED', reason);
  return event('mcp.denied', 'DENIED', reason === 'invalid_token' ? 'sign_in_ended' : reason);
}

for (const topology of TOPOLOGIES) {
  describe(`the failure table, ${topology}`, () => {
    const { cells, refused } = combinations();
    let world;
    let parties;  // { world, tokens, upstream, teamKey }
    let healthy;  // A token service that is never in trouble.
    let since;
    const people = [];
    const made = [];  // every call: { cell, trouble, id, answer }
    const last = new Map();  // slug, person and piece -> the bytes that went out last
    const bystanders = [
      { agent: 'open', app: 'client', header: 'none', slug: 'bystander-client', clientSecret: canary('bystander') },
      { agent: 'signed', app: 'oauth', header: 'none', slug: 'bystander-oauth' },
    ];
    // Whose token comes from another provider, and has yet to be fetched.
    const newcomer = { agent: 'open', app: 'client', header: 'none', slug: 'newcomer', clientSecret: canary('newcomer') };

    const person = async (i, { local = false } = {}) => {
      const user = world.idp.users[i];
      const mint = (audience) => world.idp.mint(user, { audience });
      return {
        user, subject: local ? 'local:lena' : world.subject(i), account: { username: world.account(i) }, linked: !local, tokens: new Map(),
        persona: local ? world.localPersona({ skipLink: true }) : world.persona(i),
        brought: canary(`brought-${i}`), minted: { trusted: await mint(TRUSTED), validated: await mint(VALIDATED) },
      };
    };
    const api = (who, method, body) => who.browser.api(world.gateway.publicUrl, `${BROKER}/${method}`, body);
    // Signs in to each of the servers, which links the account, and enters a key.
    const signIn = async (who, servers) => {
      const obtain = async ({ slug }) => {
        const { accessToken, browser } = await obtainToken(world, slug, who.persona, { browser: who.browser });
        who.tokens.set(slug, accessToken);
        who.browser = browser;
      };
      const wanted = servers.filter(({ agent }) => agent === 'signed');
      const first = wanted.find(({ app, header }) => app === 'oauth' && header === 'none');
      await obtain(first);
      if (who.linked) await enterKey(who);
      await inParallel(wanted.filter((cell) => cell !== first), 4, obtain);
    };
    const enterKey = async (who) => {
      who.ownKey = canary('own-key');
      await api(who, 'SetCredential', { credential: OWN_KEY, value: { value: who.ownKey } });
    };

    const request = (cell, who, options) => ask(world.gateway, cell, who, options);

    // One cell; says what is not as in the table.
    const visit = async (cell, trouble, who, options) => {
      const { pieces, answer } = options?.expected ?? expected(cell, trouble);
      const wrong = [];
      const began = Date.now();
      let response = await request(cell, who, options);
      // On a busy machine the audit of a read may not be on disk in time, and the news that a sign-in has ended may come from another call of
      // its person's. Such a call is made again, as a client would; what it may never do is go out with something else.
      for (let tries = 3; tries > 0 && answer !== '503 try_again' && answerOf(response) === '503 try_again'; tries--) {
        await sleep(1000 * Number(response.headers['retry-after']));
        response = await request(cell, who, options);
      }
      const took = Date.now() - began;
      const got = answerOf(response);
      const arrivals = parties.upstream.arrivals(response.id);
      made.push({ cell, trouble, id: response.id, answer, event: options?.event, arrived: arrivals.length > 0, status: response.status });
      if (got !== answer) wrong.push(`${got} instead of ${answer}`);
      if (response.status === 503 && !(Number(response.headers['retry-after']) >= 1)) wrong.push('503 without Retry-After');
      if (took > (options?.within ?? PATIENCE)) wrong.push(`took ${took} ms`);
      // A call that lacks a credential has reached nobody.
      if (answer !== 'goes' && !trouble.startsWith('refused') && arrivals.length > 0) wrong.push('reached the upstream');
      if (answer === 'goes' && arrivals.length === 0) wrong.push('did not reach the upstream');
      for (const [n, arrival] of arrivals.entries()) {
        for (const { id, kind, value, outcome } of pieces) {
          const bytes = value(arrival);
          if (bytes === undefined || bytes === null || !kind.is({ ...parties, cell, person: who }, bytes)) wrong.push(`${id} is ${bytes}`);
          const key = `${cell.slug} ${who.user.sub} ${id}`;
          const before = last.get(key);
          if (answer === 'goes' && n === arrivals.length - 1) {
            if (outcome === 'same' && bytes !== before) wrong.push(`${id} is not the one of before`);
            if (outcome === 'anew' && bytes === before) wrong.push(`${id} is the one of before`);
          }
          last.set(key, bytes);
        }
      }
      return wrong.map((what) => `${cell.slug}: ${what}`);
    };
    const row = async (trouble, { all = cells, who = () => people[MAIN], width = 24, ...options } = {}) => {
      const wrong = [];
      await inParallel(all, width, async (cell) => wrong.push(...await visit(cell, trouble, who(cell), options)));
      assert.deepEqual(wrong, [], trouble);
    };

    const live = (seconds) => {
      parties.tokens.settings.seconds = world.provider.settings.accessSeconds = world.idp.settings.accessSeconds = seconds;
    };
    const providers = (trouble) => {
      parties.tokens.settings.trouble = world.provider.settings.trouble = world.idp.settings.trouble = trouble;
    };
    const values = (cell) => piecesOf(cell).filter(({ name }) => name !== 'identity');
    // Until what is fetched is fetched again: the gateway leaves a provider alone for a while after it failed.
    const recovered = async (who) => {
      const some = ['signed-client-behalf', 'signed-oauth-forward', 'trusted-agents-behalf'].map((slug) => cells.find((cell) => cell.slug === slug));
      for (const cell of some) await waitFor(async () => (await request(cell, who)).status === 200, `${cell.slug} to be served again`, 60000, 200);
    };

    before(async () => {
      let idp;
      const tokens = await startTokenService({
        clients: [...cells, bystanders[0]].map(({ slug, clientSecret }) => ({ client_id: slug, client_secret: clientSecret })),
        subjectOf: (token) => idp.owners.get(token), seconds: LONG,
      });
      healthy = await startTokenService({ clients: [{ client_id: newcomer.slug, client_secret: newcomer.clientSecret }] });
      parties = { tokens, upstream: await startUpstream(), teamKey: canary('team-key') };
      since = new Date().toISOString();
      world = await startWorld(topology, {
        users: 4,
        resources: (it) => {
          idp = it.idp;
          parties.world = it;
          return {
            apps: [{ ...codehostApp(it), allowedUpstreamOrigins: [parties.upstream.origin] }],
            credentials: credentialsOf(parties),
            mcpServers: [...[...cells, ...bystanders].map((cell) => serverOf(cell, parties)), serverOf(newcomer, { ...parties, tokens: healthy })],
          };
        },
      });
      for (const i of [MAIN, BYSTANDER, LEAVER, STRANGER]) people[i] = await person(i);
      await signIn(people[MAIN], cells);
      await signIn(people[BYSTANDER], bystanders);
      for (const cell of bystanders) assert.equal(answerOf(await request(cell, people[BYSTANDER])), 'goes', cell.slug);
    });
    after(async () => {
      if (parties) providers(undefined);
      await world?.close();
      await parties?.tokens.close();
      await healthy?.close();
      await parties?.upstream.close();
    });

    it('refuses when it is saved what fits no caller', async () => {
      const keys = { passthrough: { jwtValidation: { jwksJson: JSON.stringify(world.idp.jwks), audience: VALIDATED } } };
      const ofNobody = ['oauth-none', 'apikey-own'].map((name) => cells.find(({ slug }) => slug === `validated-${name}`));
      const wrong = [];
      for (const [cell, fields, options] of [
        ...refused.map((cell) => [cell, cell.wrong]),
        // A key set of its own makes callers that no browser session can be of.
        [ofNobody[0], ['appAuth.oauthAuthorization'], { agentAuth: keys }], [ofNobody[1], ['outboundHeaders[0]'], { agentAuth: keys }],
      ]) {
        const mcpServer = { ...serverOf(cell, parties, options), slug: 'refused' };
        const { status, body } = await world.gateway.apiRequest(`${REGISTRY}/CreateMcpServer`, { mcpServer });
        const named = (JSON.parse(body).violations ?? []).map(({ field }) => field);
        if (status !== 400 || !fields.every((field) => named.some((name) => name.startsWith(field)))) wrong.push(`${cell.slug}: ${status} ${body}`);
      }
      assert.deepEqual(wrong, []);
    });

    it('first call', () => row('first'));

    it('again: what there is goes out, and nobody is asked for another', async () => {
      const fetched = parties.tokens.records.length;
      await row('again');
      assert.equal(parties.tokens.records.length, fetched);
    });

    it('vault down, caller known', { skip: topology !== 'split' && 'one process' }, async () => {
      await world.gateway.kill('vault');
      try {
        await row('vault down, known');
      } finally {
        await world.gateway.restart('vault');
      }
    });

    it('the token that the caller came with has ended', async () => {
      const mint = (audience) => world.idp.mint(people[MAIN].user, { audience, expiresIn: '-10m' });
      const minted = { trusted: await mint(TRUSTED), validated: await mint(VALIDATED) };
      const event = { type: 'mcp.denied', decision: 'DECISION_DENIED', rule: 'expired' };
      await row('token ended', {
        all: cells.filter(({ agent }) => minted[agent]), minted, event, expected: { pieces: [], answer: '401 invalid_token' },
      });
    });

    // What the upstream refuses of a request: `refuses(bytes)` of each credential in it.
    const refusing = async (refuses, work) => {
      const bySlug = new Map(cells.map((cell) => [cell.slug, values(cell)]));
      parties.upstream.refuse = (arrival) => (bySlug.get(arrival.headers['x-cell']) ?? []).some(({ value }) => refuses(value(arrival)));
      try {
        await work();
      } finally {
        parties.upstream.refuse = () => false;
      }
    };

    it('refused by the upstream', async () => {
      live(LIFE);
      const known = new Set(last.values());
      await refusing((bytes) => known.has(bytes), () => row('refused'));
    });

    it('refused again', async () => {
      await refusing(() => true, () => row('refused again'));
    });

    it('provider down', async () => {
      // What was refused is entered anew.
      await enterKey(people[MAIN]);
      // Nor was fetched again what went beside a credential of the agent's: that is what was refused, as far as one knows.
      const beside = cells.filter(({ app }) => ['agents', 'nothing'].includes(app));
      for (const cell of beside) cell.scopes = ['read'];
      await world.gateway.apply({ mcpServers: beside.map((cell) => ({ ...serverOf(cell, parties), description: 'saved again' })) });
      await row('first', { all: beside });
      await sleep(LIFE * 1000);
      providers('down');
      await row('provider down');
    });

    it('ended', async () => {
      providers(undefined);
      await recovered(people[MAIN]);
      await row('ended');
    });

    it('provider slow: answered in time, and whose token is good notices nothing', async () => {
      await sleep(LIFE * 1000);
      providers('silent');
      const rest = [];
      let over = false;
      const watching = (async () => {
        await sleep(1000);
        while (!over) {
          for (const cell of [...bystanders, newcomer]) {
            const began = Date.now();
            const answer = answerOf(await request(cell, people[BYSTANDER]));
            if (answer !== 'goes' || Date.now() - began > 2000) rest.push(`${cell.slug}: ${answer} after ${Date.now() - began} ms`);
          }
          await sleep(100);
        }
      })();
      try {
        await row('provider slow', { width: cells.length });
      } finally {
        over = true;
        await watching;
        providers(undefined);
      }
      assert.deepEqual(rest, []);
    });

    it('user unlinked, and their sign-in ended', async () => {
      const who = people[LEAVER];
      await signIn(who, cells);
      await recovered(who);
      await row('first', { who: () => who });
      await api(who, 'Disconnect', { appSlug: 'codehost' });
      await api(who, 'ClearCredential', { credential: OWN_KEY });
      await world.idp.endSession(who.user);
      await sleep(LIFE * 1000);
      await row('unlinked', { who: () => who });
    });

    it('vault down, and nobody knows the caller', { skip: topology !== 'split' && 'one process' }, async () => {
      const { gateway } = world;
      const cold = ['edge', 'token_broker', 'token_broker_2'];
      for (const name of ['vault', ...cold]) await gateway.services.get(name).process.stop();
      for (const name of cold) gateway.startService(name);
      try {
        const plain = cells.find(({ slug }) => slug === 'trusted-nothing-identity');
        await waitFor(async () => (await request(plain, people[MAIN])).status === 200, 'the edge to serve', 20000, 100);
        await row('vault down');
      } finally {
        gateway.startService('vault');
        await gateway.ready();
      }
    });

    it('secret missing, and nothing of the caller\'s', async () => {
      const { gateway } = world;
      // Saving refuses to be without one.
      const names = ({ app, header, agent }) => agent === 'open' && [app, header].some((name) => TABLE[name]?.missing === '502 credential_missing');
      const kept = [];
      for (const cell of cells.filter(names)) {
        const { status, body } = await gateway.apiRequest(`${REGISTRY}/UpdateMcpServer`, { mcpServer: cleared(serverOf(cell, parties)) });
        if (status !== 400 || !/is required and cannot be cleared/.test(body)) kept.push(`${cell.slug}: ${status} ${body}`);
      }
      assert.deepEqual(kept.filter((what) => !/^open-\w+-stored/.test(what)), []);
      for (const { process } of gateway.services.values()) await process.stop();
      const gone = "DELETE FROM record WHERE kind IN ('server_secret', 'credential')";
      if (gateway.postgres) await gateway.postgres.psql('vault', gone);
      else new DatabaseSync(path.join(gateway.dataDirectory, 'vault.db')).exec(gone);
      // A token that was fetched before needs no secret while it lives.
      await sleep(LIFE * 1000);
      for (const name of gateway.services.keys()) gateway.startService(name);
      await gateway.ready();
      const local = await person(STRANGER, { local: true });
      await signIn(local, cells);
      await row('missing', { who: ({ agent }) => (agent === 'signed' ? local : people[STRANGER]) });
    });

    it('each call is in the audit once, with what went out and why', async () => {
      const byTrace = await waitFor(async () => {
        const found = new Map();
        for (const type of ['mcp.call', 'mcp.denied']) {
          const events = await world.gateway.auditEvents({ since, type });
          for (const event of events.filter(({ source }) => source !== 'authn')) found.set(event.traceId, [...found.get(event.traceId) ?? [], event]);
        }
        return made.every(({ id }) => found.has(id)) && found;
      }, 'the audit of all calls', 30000, 500);
      const wrong = new Map();
      for (const { cell, trouble, id, answer, event, arrived, status } of made) {
        const [{ type, decision, rule, status: recorded, credentials = [] }, ...more] = byTrace.get(id);
        const wanted = { ...(event ?? expectedEvent(cell, answer)), status };
        const got = { type, decision, ...(wanted.rule === undefined ? {} : { rule }), status: recorded };
        const pieces = arrived ? piecesOf(cell).filter(({ kind }) => kind.broker(cell.agent)).map(({ id: piece }) => piece) : [];
        const out = credentials.map(({ piece }) => piece).sort();
        if (more.length > 0 || JSON.stringify(out) !== JSON.stringify(pieces) || Object.entries(wanted).some(([key, value]) => got[key] !== value)) {
          const key = `${trouble}, ${answer}: ${JSON.stringify(got)} ${out} instead of ${JSON.stringify(wanted)} ${pieces} (${1 + more.length})`;
          wrong.set(key, [...wrong.get(key) ?? [], cell.slug]);
        }
      }
      assert.deepEqual([...wrong].map(([what, slugs]) => `${what}: ${slugs.length}, ${slugs.slice(0, 3)}`), []);
    });

    it('no other credential ever came to the upstream', () => {
      remember('secret of the identity provider', ...world.idp.secrets);
      remember('secret of the code host', ...world.provider.secrets);
      remember('token of ours', ...world.tokens);
      for (const [name, value] of Object.entries(world.secrets)) remember(name, value);
      const all = made.flatMap(({ cell, trouble, id }) => parties.upstream.arrivals(id).map((arrival) => ({ arrival, cell, trouble })));
      assert.ok(all.length > cells.length * 5, `${all.length} arrivals`);
      assert.deepEqual(strays(all), []);
      // And would have been seen: as if the server had no credential of its own.
      const seen = all.filter(({ cell }) => cell.app === 'basic').map((one) => ({ ...one, cell: { ...one.cell, app: 'nothing', header: 'none' } }));
      assert.ok(strays(seen).length >= seen.length);
    });
  });
}

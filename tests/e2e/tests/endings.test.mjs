// SPDX-License-Identifier: Apache-2.0
// What is ended short of a whole user: connections of an app, of a user, of one account; a server's tokens; a client.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { startApp } from '../world/apps.mjs';
import { Browser } from '../world/browser.mjs';
import { assertNoSecretLeaked, authorizationRequest, defaultResources, obtainToken, startWorld, tokenRequest } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, request, rpc, toolText } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';

const [ANN, BOB, CID] = [0, 1, 2];
const EVERYBODY = [ANN, BOB, CID];
const PENDING = 3;  // exit code
const [STREAMS, CLIENTS] = [300, 6];
const COMES_BACK_MS = 180000;

for (const topology of TOPOLOGIES) {
  describe(`what is ended, ${topology}`, () => {
    let world;
    let hub;
    let gone;
    const homes = [];
    const people = [];  // { browser, tokens by server }
    const split = topology === 'split';

    before(async () => {
      world = await startWorld(topology, { users: 4, gateway: { secondEdge: split } });
      hub = await startApp(world, 'hub', {
        users: 4, accounts: 2, more: (provider) => ({ allowedUpstreamOrigins: [provider.url, world.trickster.origin] }),
      });
      gone = await startApp(world, 'gone', { users: 4 });
      await world.gateway.apply({
        apps: [...defaultResources(world).apps, hub.app, gone.app],
        // With the same connections, an upstream whose answers never end.
        mcpServers: [...defaultResources(world).mcpServers, hub.server, gone.server, { ...hub.server, slug: 'hub-stream', upstreamUrl: world.trickster.url }],
      });
      for (const i of EVERYBODY) {
        const browser = new Browser();
        const tokens = {};
        for (const slug of ['hub', 'gone', 'echo']) tokens[slug] = await obtainToken(world, slug, persona(i), { browser, clientName: `e2e ${slug} of ${i}` });
        people[i] = { browser, tokens };
      }
    });
    after(async () => {
      await world?.close();
      for (const app of [hub, gone]) await app?.close();
      for (const home of homes) await rm(home, { recursive: true, force: true });
    });

    const persona = (i, { account = i, ...more } = {}) => world.persona(i, {
      accounts: { ...world.persona(i).accounts, [hub.provider.url]: hub.account(account), [gone.provider.url]: gone.account(i) }, ...more,
    });
    const cli = (args, code = 0) => world.gateway.cli(args, { ok: (exit) => exit === code });
    // The command line of a user, signed in as `sallyport login` leaves it.
    const cliOf = async (i) => {
      const url = world.gateway.publicUrl;
      const { accessToken } = await obtainToken(world, '', persona(i), { browser: people[i].browser, clientId: 'sallyport-cli', resource: `${url}/api` });
      const home = await mkdtemp(path.join(os.tmpdir(), 'sallyport-home-'));
      homes.push(home);
      await mkdir(path.join(home, 'sallyport'), { mode: 0o700 });
      const login = { accessToken, expiresAt: new Date(Date.now() + 300000).toISOString() };
      await writeFile(path.join(home, 'sallyport', 'credentials.json'), JSON.stringify({ url, logins: { [url]: login } }), { mode: 0o600 });
      return async (...args) => (await world.gateway.cli(args, { env: { HOME: home, XDG_CONFIG_HOME: home } })).stdout;
    };
    const broker = (browser, method, body) => browser.api(world.gateway.publicUrl, `sallyport.token_broker.v1.TokenBroker/${method}`, body);
    const clientsApi = (browser, method, body) => browser.api(world.gateway.publicUrl, `sallyport.authn.v1.Clients/${method}`, body);
    const states = async (i, slug = 'hub') => ((await broker(people[i].browser, 'ListConnections')).connections ?? [])
      .filter(({ appSlug }) => appSlug === slug).map(({ label = '', state }) => `${label}:${state}`).sort();
    // Both edges, each of which has a broker of its own.
    const origins = () => [world.gateway.publicUrl, ...(split ? [world.gateway.secondEdgeOrigin] : [])];
    const headers = () => ({ Host: new URL(world.gateway.publicUrl).host });
    const whoami = async (i, { origin = world.gateway.publicUrl, slug = 'hub', account } = {}) => callTool(`${origin}/mcp/${slug}`, 'whoami', {}, {
      token: people[i].tokens[slug].accessToken, headers: { ...headers(), ...(account ? { 'X-Sallyport-Account': account } : {}) },
    });
    const works = async (i, options) => toolText(await whoami(i, options)) === hub.account(options?.as ?? i).username;
    const mustConnect = async (i, options) => /\/connect\/hub/.test(toolText(await whoami(i, options)) ?? '');
    const status = async (i, slug, origin = world.gateway.publicUrl) =>
      (await rpc(`${origin}/mcp/${slug}`, 'tools/list', {}, { token: people[i].tokens[slug].accessToken, headers: headers() })).status;
    const connect = async (i, { account, as = i } = {}) => {
      hub.signOut(people[i].browser);
      const url = `${world.gateway.publicUrl}/connect/hub${account ? `?account=${account}` : ''}`;
      const { page } = await people[i].browser.act(url, persona(i, { account: as }));
      assert.equal(page.status, 200, `${page.url}: ${page.html.slice(0, 1500)}`);
    };
    // At every origin. How soon is measured once, below: here a command has returned, and may have waited for a provider.
    const everywhere = (probe, what) => waitFor(async () => (await Promise.all(origins().map(probe))).every(Boolean), what, 10000, 50);
    // An answer that never ends; `ended` resolves with the time when it did. Resolves when the first event is there.
    const openStream = (origin, token, slug = 'trick') => new Promise((resolve, reject) => {
      const gone = new AbortController();
      const stream = { close: () => gone.abort() };
      const options = { token, headers: headers(), signal: gone.signal, timeoutMs: 120000, onResponse: (res) => res.once('data', () => resolve(stream)) };
      stream.ended = callTool(`${origin}/mcp/${slug}`, 'x', { hang: true }, options)
        .then((answer) => (answer.status === 200 ? Date.now() : reject(new Error(`${answer.status} ${answer.body}`))), () => Date.now());
    });
    const audit = (type, wanted = {}) => waitFor(async () => {
      const rows = (await world.gateway.auditEvents({ type })).filter(({ details = {}, ...row }) =>
        Object.entries(wanted).every(([key, value]) => row[key] === value || details[key] === value));
      return rows.length > 0 && rows;
    }, `${type} ${JSON.stringify(wanted)} in the audit`, 15000, 250);

    describe('connections revoke', () => {
      it('ends one account of several of a user, and the others go on', async () => {
        await connect(ANN, { account: 'work', as: ANN + 4 });
        for (const origin of origins()) {
          assert.ok(await works(ANN, { origin }));
          assert.ok(await works(ANN, { origin, account: 'work', as: ANN + 4 }));
        }
        const { stdout } = await cli(['connections', 'revoke', '--app', 'hub', '--user', world.subject(ANN), '--account', 'work', '--yes']);
        assert.match(stdout, /^connections ended\s+1$/m);
        assert.match(stdout, new RegExp(`^${world.subject(ANN)}\\s+hub\\s+work\\s+revoked$`, 'm'));
        await everywhere((origin) => mustConnect(ANN, { origin, account: 'work' }), 'the account to have ended');
        for (const origin of origins()) assert.ok(await works(ANN, { origin }));
        assert.deepEqual(hub.provider.revoked().map(({ kind, user }) => `${kind} ${user}`), ['refresh', 'access'].map((kind) => `${kind} ${hub.account(ANN + 4).username}`));
        assert.deepEqual(await states(ANN), [':linked']);
      });

      it('ends the default account alone if that is said', async () => {
        await connect(ANN, { account: 'work', as: ANN + 4 });
        await cli(['connections', 'revoke', '--app', 'hub', '--user', world.subject(ANN), '--default-account', '--yes']);
        assert.deepEqual(await states(ANN), ['work:linked']);
        await waitFor(() => mustConnect(ANN), 'the default account to have ended', 10000, 50);
        assert.ok(await works(ANN, { account: 'work', as: ANN + 4 }));
        await connect(ANN);
        assert.ok(await works(ANN));
      });

      it('ends every account of a user, and nobody else\'s', async () => {
        const [ann, bob] = await Promise.all([ANN, BOB].map(async (i) => {
          const { accessToken } = await obtainToken(world, 'hub-stream', persona(i), { browser: people[i].browser });
          return openStream(world.gateway.publicUrl, accessToken, 'hub-stream');
        }));
        const [{ stdout }] = await Promise.all([cli(['connections', 'revoke', '--app', 'hub', '--user', world.subject(ANN), '--yes']), ann.ended]);
        assert.match(stdout, /^connections ended\s+2$/m);
        assert.equal(await Promise.race([bob.ended, sleep(200).then(() => 'open')]), 'open', 'nobody else\'s stream is cut');
        bob.close();
        await everywhere((origin) => mustConnect(ANN, { origin }), 'the accounts to have ended');
        assert.deepEqual(await states(ANN), []);
        assert.deepEqual(await states(ANN, 'gone'), [':linked'], 'at other apps all goes on');
        for (const i of [BOB, CID]) assert.ok(await works(i));
        await connect(ANN);
        assert.ok(await works(ANN), 'who comes back connects anew');
      });

      it('ends everybody\'s of an app; while the provider is down they are owed, shown as such, and carried out later', async () => {
        hub.provider.settings.revocationTrouble = 'down';
        const before = hub.provider.revoked().length;
        const { stdout } = await cli(['connections', 'revoke', '--app', 'hub', '--yes'], PENDING);
        assert.match(stdout, /^connections ended\s+3$/m);
        for (const i of EVERYBODY) assert.match(stdout, new RegExp(`^${world.subject(i)}\\s+hub\\s+-\\s+pending$`, 'm'));
        await everywhere(async (origin) => (await Promise.all(EVERYBODY.map((i) => mustConnect(i, { origin })))).every(Boolean), 'all to have ended');
        for (const i of EVERYBODY) assert.deepEqual(await states(i), [':revoke_pending']);
        await connect(BOB);
        hub.provider.settings.revocationTrouble = undefined;
        await waitFor(() => hub.provider.revoked().length >= before + 6, 'the revocations', COMES_BACK_MS, 250);
        await sleep(2000);
        const carried = hub.provider.revoked().slice(before);
        for (const i of EVERYBODY) {
          const kinds = carried.filter(({ user }) => user === hub.account(i).username).map(({ kind }) => kind);
          assert.deepEqual(kinds, ['refresh', 'access'], `once, whichever replica: ${JSON.stringify(carried)}`);
        }
        assert.ok(await works(BOB), 'what was connected meanwhile lives');
        assert.deepEqual(await states(BOB), [':linked']);
        await audit('link.revoked', { subject: world.subject(CID), rule: 'revoked', app: 'hub' });
      });

      it('refuses what it cannot mean', async () => {
        await cli(['connections', 'revoke', '--app', 'hub', '--account', 'work', '--yes'], 2);
        const { stderr } = await world.gateway.cli(['connections', 'revoke', '--app', 'no-such-app', '--yes'], { ok: (code) => code !== 0 });
        assert.match(stderr, /no app no-such-app/);
        for (const i of [ANN, BOB]) await connect(i);
        const { accessToken } = await obtainToken(world, '', persona(CID), { clientId: 'sallyport-cli', resource: `${world.gateway.publicUrl}/api` });
        for (const [method, body] of [
          ['Revocation/RevokeConnections', { app: 'hub' }], ['Revocation/RevokeServer', { server: 'echo' }], ['Authn/RevokeUser', { subject: world.subject(BOB) }],
          ['Clients/RemoveClient', { clientId: people[BOB].tokens.hub.clientId }], ['Clients/ListClients', {}],
        ]) {
          const answer = await request(`${world.gateway.publicUrl}/api/sallyport.authn.v1.${method}`, {
            method: 'POST', headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${accessToken}` }, body: JSON.stringify(body),
          });
          assert.equal(answer.status, 403, `${method}: ${answer.body}`);
        }
        assert.ok(await works(BOB));
      });

      it('is in the audit before it begins: who said so, and of what', async () => {
        const [row] = await audit('connections.revoked', { app: 'hub', user: world.subject(ANN), account: 'work' });
        assert.ok(row.subject && row.subject !== world.subject(ANN));
        await audit('connections.ended', { rule: 'connections', decision: 'DECISION_ALLOWED' });
        await audit('link.disconnected', { subject: world.subject(ANN), app: 'hub', account: 'work', by: row.subject });
      });
    });

    describe('servers revoke', () => {
      it('ends one user\'s tokens for a server, on every replica, and the browser is asked again', async () => {
        const { stdout } = await cli(['servers', 'revoke', 'echo', '--user', world.subject(ANN)]);
        assert.match(stdout, /^grants revoked\s+1$/m);
        await everywhere(async (origin) => (await status(ANN, 'echo', origin)) === 401, 'the token to be refused');
        for (const origin of origins()) {
          assert.equal(await status(ANN, 'hub', origin), 200, 'for other servers it goes on');
          assert.equal(await status(BOB, 'echo', origin), 200);
        }
        const { refreshToken, clientId } = people[ANN].tokens.echo;
        const refreshed = await tokenRequest(world, { grant_type: 'refresh_token', refresh_token: refreshToken, client_id: clientId, resource: world.gateway.mcpUrl('echo') });
        assert.equal(refreshed.json.error, 'invalid_grant');
        const { page } = await people[ANN].browser.open(authorizationRequest(world, 'echo', clientId).url);
        assert.match(page.html, />Allow<\/button>/, 'nothing is remembered of the former consent');
        people[ANN].tokens.echo = await obtainToken(world, 'echo', persona(ANN), { browser: people[ANN].browser, clientId });
        assert.equal(await status(ANN, 'echo'), 200);
      });

      it('cuts hundreds of open streams, and refuses their tokens, within a second of the audit of it', async () => {
        const bobs = await obtainToken(world, 'trick', persona(BOB), { browser: people[BOB].browser, clientName: 'e2e trick of bob' });
        // A machine under load has three tries.
        let took = Infinity;
        for (let attempt = 0; attempt < 3 && took > 1000; attempt++) {
          const bystander = await openStream(world.gateway.publicUrl, bobs.accessToken);
          const tokens = [];
          for (let n = 0; n < CLIENTS; n++) {
            tokens.push((await obtainToken(world, 'trick', persona(ANN), { browser: people[ANN].browser, clientName: `e2e trick ${n}` })).accessToken);
          }
          const streams = await Promise.all(tokens.flatMap((token) => Array.from({ length: STREAMS / CLIENTS },
            (_, n) => openStream(origins()[n % origins().length], token))));
          const before = await world.gateway.auditEvents({ type: 'server.revoked' });
          const [{ stdout }, ...ends] = await Promise.all([
            cli(['servers', 'revoke', 'trick', '--user', world.subject(ANN)]), ...streams.map(({ ended }) => ended),
          ]);
          assert.match(stdout, new RegExp(`^grants revoked\\s+${CLIENTS}$`, 'm'));
          const row = await waitFor(async () => (await world.gateway.auditEvents({ type: 'server.revoked' }))
            .find(({ at }) => !before.some((known) => known.at === at)), 'the audit of the command', 15000, 250);
          took = Math.max(...ends) - Date.parse(row.at);
          assert.ok(Math.min(...ends) >= Date.parse(row.at), 'no stream ended before');
          for (const origin of origins()) {
            const codes = await Promise.all(tokens.map(async (token) =>
              (await rpc(`${origin}/mcp/trick`, 'tools/list', {}, { token, headers: headers() })).status));
            assert.deepEqual(new Set(codes), new Set([401]));
          }
          assert.equal(await Promise.race([bystander.ended, sleep(200).then(() => 'open')]), 'open', 'nobody else\'s stream is cut');
          bystander.close();
        }
        assert.ok(took <= 1000, `streams were open for ${took} ms`);
      });

      it('ends everybody\'s', async () => {
        const { stdout } = await cli(['servers', 'revoke', 'echo', '--yes']);
        assert.match(stdout, /^grants revoked\s+3$/m);
        await everywhere(async (origin) => (await Promise.all(EVERYBODY.map((i) => status(i, 'echo', origin)))).every((code) => code === 401), 'the tokens to be refused');
        for (const i of EVERYBODY) assert.equal(await status(i, 'hub'), 200);
        await audit('server.revoked', { server: 'echo' });
      });
    });

    describe('clients', () => {
      it('are listed for their user alone, and removed by them: the tokens end, and the client must ask again', async () => {
        const { clientId } = people[ANN].tokens.hub;
        const own = async (i) => (await clientsApi(people[i].browser, 'ListOwnClients')).clients ?? [];
        const mine = (await own(ANN)).find((client) => client.clientId === clientId);
        assert.deepEqual(mine.servers.map(({ serverSlug }) => serverSlug), ['hub']);
        assert.equal(mine.clientName, `e2e hub of ${ANN}`);
        assert.ok(!(await own(BOB)).some((client) => client.clientId === clientId));
        await assert.rejects(clientsApi(people[BOB].browser, 'RemoveOwnClient', { clientId }), /HTTP 404/);
        assert.equal(await status(ANN, 'hub'), 200);
        assert.equal((await clientsApi(people[ANN].browser, 'RemoveOwnClient', { clientId })).grantsRevoked, 1);
        await everywhere(async (origin) => (await status(ANN, 'hub', origin)) === 401, 'the client\'s token to be refused');
        assert.equal(await status(ANN, 'gone'), 200, 'other clients\' go on');
        assert.ok(!(await own(ANN)).some((client) => client.clientId === clientId));
        await assert.rejects(clientsApi(people[ANN].browser, 'RemoveOwnClient', { clientId }), /HTTP 404/);
        // Its registration stays, but nothing is remembered of the former consent: who is known is only asked to continue.
        const { page } = await people[ANN].browser.open(authorizationRequest(world, 'hub', clientId).url);
        assert.match(page.html, />Allow<\/button>/);
        people[ANN].tokens.hub = await obtainToken(world, 'hub', persona(ANN), { browser: people[ANN].browser, clientId });
        assert.equal(await status(ANN, 'hub'), 200);
        await audit('client.removed', { rule: 'user', subject: world.subject(ANN), clientId });
      });

      it('are listed in full by the command, and removed for everybody', async () => {
        const { clientId } = people[ANN].tokens.hub;
        people[BOB].tokens.hub = await obtainToken(world, 'hub', persona(BOB), { browser: people[BOB].browser, clientId });
        const { stdout } = await cli(['clients', 'list', '--all']);
        assert.match(stdout, new RegExp(`^${clientId}\\s+calls itself "e2e hub of ${ANN}"\\s+\\S+\\s+2\\s`, 'm'));
        const { accessToken } = await obtainToken(world, 'trick', persona(BOB), { browser: people[BOB].browser, clientId });
        const stream = await openStream(world.gateway.publicUrl, accessToken);
        const others = await openStream(world.gateway.publicUrl, (await obtainToken(world, 'trick', persona(BOB), { browser: people[BOB].browser })).accessToken);
        const [{ stdout: removed }] = await Promise.all([cli(['clients', 'remove', clientId, '--all', '--yes']), stream.ended]);
        assert.match(removed, new RegExp(`^removed ${clientId}; grants revoked: 3$`, 'm'));
        assert.equal(await Promise.race([others.ended, sleep(200).then(() => 'open')]), 'open', 'another client\'s');
        others.close();
        await everywhere(async (origin) => (await Promise.all([ANN, BOB].map((i) => status(i, 'hub', origin)))).every((code) => code === 401), 'the client\'s tokens to be refused');
        assert.equal(await status(CID, 'hub'), 200, 'of another client');
        const { refreshToken } = people[BOB].tokens.hub;
        const answer = await tokenRequest(world, { grant_type: 'refresh_token', refresh_token: refreshToken, client_id: clientId, resource: world.gateway.mcpUrl('hub') });
        assert.deepEqual([answer.status, answer.json.error], [401, 'invalid_client']);
        assert.doesNotMatch((await cli(['clients', 'list', '--all'])).stdout, new RegExp(`^${clientId}`, 'm'));
        await audit('client.removed', { rule: 'admin', clientId });
      });
    });

    describe('the command line of a user', () => {
      it('lists and renames their connections, and lists and removes their clients', async () => {
        await connect(CID);
        await connect(CID, { account: 'work', as: CID + 4 });
        const mine = await cliOf(CID);
        assert.match(await mine('connections', 'list'), /^hub\s+-\s.*\slinked\s/m);
        assert.match(await mine('connections', 'list'), /^hub\s+work\s.*\slinked\s/m);
        assert.match(await mine('connections', 'rename', 'hub', '--account', 'work', 'office'), /office/);
        assert.match(await mine('connections', 'list'), /^hub\s+office\s/m);
        assert.doesNotMatch(await mine('connections', 'list'), /^hub\s+work\s/m);
        assert.deepEqual(await states(CID), [':linked', 'office:linked']);

        const { clientId } = people[CID].tokens.gone;
        assert.match(await mine('clients', 'list'), new RegExp(`^${clientId}\\s+calls itself "e2e gone of ${CID}"\\s+gone\\s`, 'm'));
        assert.match(await mine('clients', 'remove', clientId), new RegExp(`^removed ${clientId}: it must ask you again; grants revoked: 1$`, 'm'));
        await everywhere(async (origin) => (await status(CID, 'gone', origin)) === 401, 'the client\'s token to be refused');
        assert.doesNotMatch(await mine('clients', 'list'), new RegExp(`^${clientId}`, 'm'));
        assert.equal(await status(CID, 'hub'), 200);
      });
    });

    it('leaves no secret anywhere', async () => {
      for (const app of [hub, gone]) app.rememberSecrets();
      await assertNoSecretLeaked(world);
    });
  });
}

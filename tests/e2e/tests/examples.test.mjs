// SPDX-License-Identifier: Apache-2.0
// Examples 1 and 2 of the product: a team that uses an OAuth app, and a nightly script with an API key.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, it } from 'node:test';
import { Browser } from '../world/browser.mjs';
import { connectClient, person } from '../world/clients.mjs';
import { assertNoSecretLeaked, obtainToken, startWorld, tokenRequest } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, request, rpc, toolText } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';
import { disguises } from '../world/secrets.mjs';

// The text with every JWT in it also in clear: a token inside a token is no less given away.
const unsealed = (text) => [text, ...(text.match(/eyJ[\w-]+\.[\w-]+/g) ?? [])
  .map((jwt) => jwt.split('.').map((part) => Buffer.from(part, 'base64url').toString('latin1')).join('.'))].join('\n');

for (const topology of TOPOLOGIES) {
  describe(`examples, ${topology}`, () => {
    let world;
    before(async () => { world = await startWorld(topology, { users: 4, provider: { accessSeconds: 4 } }); });
    after(() => world?.close());

    describe('Example 1: a team uses an OAuth app', () => {
      const clients = [];
      after(() => Promise.all(clients.map((client) => client.close())));

      it('gives each user their own identity at the app, after one sign-in and one link', async () => {
        for (const i of [0, 1]) {
          const browser = new Browser();
          const connected = await connectClient('sdk1', world.gateway.mcpUrl('github'), { openUrl: person(browser, world.persona(i)) });
          clients.push(connected);
          assert.equal(connected.oauth.authorizations, 1);
          const { tools } = await connected.client.listTools();
          assert.deepEqual(tools.map((tool) => tool.name).sort(), ['list_pull_requests', 'whoami']);
          const who = await connected.client.callTool({ name: 'whoami', arguments: {} });
          assert.equal(who.content[0].text, world.account(i));
        }
      });

      it('never shows our token to the app, nor the app\'s token to the client', async () => {
        const ours = clients.map(({ oauth }) => oauth.tokens().access_token);
        ours.forEach((token) => world.tokens.add(token));
        for (const { headers } of world.provider.records.mcpRequests) {
          assert.ok(!ours.some((token) => JSON.stringify(headers).includes(token)));
        }
        for (const [i, { received, oauth }] of clients.entries()) {
          const all = unsealed([oauth.callback.href, ...received.flatMap(({ head, body }) => [head, body])].join('\n'));
          assert.ok(all.includes(oauth.tokens().access_token) && all.includes(world.subject(i)), 'what was received is there, in clear too');
          assert.doesNotMatch(all, /\b(pat|prt)_[\w-]{24}/);
          for (const secret of world.provider.secrets) assert.ok(!disguises(secret).some((form) => all.includes(form)));
        }
      });

      it('refreshes an expired access token without anybody noticing', async () => {
        const before = clients.map((_client, i) => world.provider.refreshes(world.account(i)).length);
        const requests = world.provider.records.mcpRequests.length;
        await sleep(world.provider.settings.accessSeconds * 1000 + 500);
        for (const [i, { client }] of clients.entries()) {
          const who = await client.callTool({ name: 'whoami', arguments: {} });
          assert.equal(who.content[0].text, world.account(i));
        }
        const refreshes = await world.provider.decidedRefreshes();
        for (const i of clients.keys()) {
          assert.ok(refreshes.filter(({ user }) => user === world.account(i)).length > before[i], `the token of user ${i} was refreshed`);
        }
        assert.deepEqual(refreshes.filter((refresh) => refresh.outcome !== 'ok' || refresh.reused), []);
        assert.ok(world.provider.records.mcpRequests.slice(requests).every((entry) => entry.user), 'no call reached the app with a dead token');
      });

      it('asks for no second link when another client of the same user comes', async () => {
        const links = world.provider.records.authorizations.length;
        const { accessToken } = await obtainToken(world, 'github', world.persona(0));
        assert.equal(toolText(await callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token: accessToken })), world.account(0));
        assert.equal(world.provider.records.authorizations.length, links);
      });

      it('rotates our refresh token, and answers a repeated one with the same successor', async () => {
        const { refreshToken, clientId } = await obtainToken(world, 'github', world.persona(0));
        const fields = { grant_type: 'refresh_token', refresh_token: refreshToken, client_id: clientId, resource: world.gateway.mcpUrl('github') };
        const [first, again] = [await tokenRequest(world, fields), await tokenRequest(world, fields)];
        assert.equal(first.status, 200, first.body);
        assert.notEqual(first.json.refresh_token, refreshToken);
        assert.equal(again.json.refresh_token, first.json.refresh_token);
        const url = world.gateway.mcpUrl('github');
        assert.equal(toolText(await callTool(url, 'whoami', {}, { token: first.json.access_token })), world.account(0));
      });

      it('admits only whom the server allows', async () => {
        const outsider = await obtainToken(world, 'admins-only', world.persona(0));
        assert.equal((await rpc(world.gateway.mcpUrl('admins-only'), 'tools/list', {}, { token: outsider.accessToken })).status, 200);
        await assert.rejects(obtainToken(world, 'admins-only', world.persona(1)));
      });

      it('works for a user who signs in with a local account', async () => {
        const { accessToken } = await obtainToken(world, 'echo', world.localPersona());
        const seen = JSON.parse(toolText(await callTool(world.gateway.mcpUrl('echo'), 'headers', {}, { token: accessToken }))).headers;
        assert.equal(seen['x-user'], 'local:lena');
      });

      it('takes a revocation at the app as a lost link, not as an error of the gateway', async () => {
        const { accessToken } = await obtainToken(world, 'github', world.persona(2));
        const url = world.gateway.mcpUrl('github');
        assert.equal(toolText(await callTool(url, 'whoami', {}, { token: accessToken })), world.account(2));
        world.provider.revokeFamilies(world.account(2));
        for (const which of ['first', 'second']) {
          const answer = await callTool(url, 'whoami', {}, { token: accessToken });
          assert.equal(answer.status, 200, `the ${which} call: ${answer.body}`);
          assert.equal(answer.message.result.isError, true, `the ${which} call: ${answer.body}`);
          assert.match(toolText(answer), /\/connect\/github/);
        }
      });

      it('revokes at the app when the user disconnects', async () => {
        const { browser } = await obtainToken(world, 'github', world.persona(3));
        const revocations = world.provider.records.revocations.length;
        const api = (method, body) => browser.api(world.gateway.publicUrl, `sallyport.token_broker.v1.TokenBroker/${method}`, body);
        const { connections } = await api('ListConnections');
        assert.deepEqual(connections.map(({ appSlug, state }) => ({ appSlug, state })), [{ appSlug: 'codehost', state: 'linked' }]);
        await api('Disconnect', { appSlug: 'codehost' });
        await waitFor(() => world.provider.records.revocations.length > revocations, 'the revocation at the provider');
        const first = world.provider.records.revocations[revocations];
        assert.equal(first.kind, 'refresh', 'the refresh token first');
        assert.equal(first.user, world.account(3));
        assert.deepEqual((await api('ListConnections')).connections?.filter(({ state }) => state === 'linked') ?? [], []);
      });
    });

    describe('Example 2: a nightly script', () => {
      it('sends no credential, and the API gets its key', async () => {
        const answer = await callTool(world.gateway.mcpUrl('nightly'), 'headers');
        assert.equal(answer.status, 200, answer.body);
        const { headers } = JSON.parse(toolText(answer));
        assert.equal(headers['x-api-key'], world.secrets.apiKey);
        assert.equal(headers.authorization, undefined);
      });

      it('is a plain curl: one POST without headers of MCP', async () => {
        const response = await request(world.gateway.mcpUrl('nightly'), {
          method: 'POST', headers: { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' },
          body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list' }),
        });
        assert.equal(response.status, 200, response.body);
        assert.equal(JSON.parse(response.body).result.tools.length, 2);
      });

      it('also gets along with a key in the query, a bearer token and basic authentication', async () => {
        const seen = async (slug) => JSON.parse(toolText(await callTool(world.gateway.mcpUrl(slug), 'headers')));
        assert.equal((await seen('query')).query.api_key, world.secrets.query);
        assert.equal((await seen('bearer')).headers.authorization, `Bearer ${world.secrets.bearer}`);
        const basic = Buffer.from(`robot:${world.secrets.basic}`).toString('base64');
        assert.equal((await seen('basic')).headers.authorization, `Basic ${basic}`);
      });
    });

    describe('administration', () => {
      it('changes nothing when the same file is applied again', async () => {
        const list = () => world.gateway.api('sallyport.registry.v1.Registry/ListMcpServers');
        const versions = (answer) => answer.mcpServers.map((server) => `${server.slug} ${server.version}`);
        const first = versions(await list());
        const output = await world.gateway.apply(world.resources);
        assert.match(output, /^= McpServer github/m);
        assert.doesNotMatch(output, /^[~+]/m);
        assert.deepEqual(versions(await list()), first);
        // A secret in the file can only be compared by applying it; nothing else differs.
        const { stdout } = await world.gateway.cli(['diff', '-f', world.gateway.appliedFile], { ok: () => true });
        assert.deepEqual(stdout.split('\n').filter((line) => line.includes(' -> ') && !line.includes('compared when applied')), []);
      });

      it('gives no secret back', async () => {
        const all = JSON.stringify([
          await world.gateway.api('sallyport.registry.v1.Registry/ListMcpServers'),
          await world.gateway.api('sallyport.registry.v1.Registry/ListApps'),
        ]);
        for (const secret of Object.values(world.secrets)) assert.ok(!all.includes(JSON.stringify(secret).slice(1, -1)));
      });

      describe('a change takes effect within a second', () => {
        const live = () => world.resources.mcpServers.find((candidate) => candidate.slug === 'nightly');
        const call = () => callTool(world.gateway.mcpUrl('nightly'), 'headers');
        // Applies nightly with `change`; from a second after that on, `expected` holds for every call.
        const change = async (fields, expected) => {
          assert.equal((await call()).status, 200, 'the server is alive');
          await world.gateway.apply({ mcpServers: [{ ...live(), ...fields }] });
          const applied = Date.now();
          await waitFor(async () => expected(await call()), 'the change to take effect', 5000);
          assert.ok(Date.now() - applied <= 1000, `it took ${Date.now() - applied} ms`);
          await sleep(Math.max(0, applied + 1000 - Date.now()));
          for (const answer of await Promise.all(Array.from({ length: 20 }, call))) assert.ok(expected(answer), `${answer.status} ${answer.body}`);
        };
        const sent = (answer) => (answer.status === 200 ? JSON.parse(toolText(answer)).headers : {});
        afterEach(async () => {
          await world.gateway.apply({ mcpServers: [live()] });
          await waitFor(async () => sent(await call())['x-api-key'] === world.secrets.apiKey, 'the server to be as it was');
        });

        it('of an API key', async () => {
          world.secrets.newApiKey = `new-${randomBytes(12).toString('hex')}`;
          await change({ appAuth: { apiKey: { name: 'X-API-Key', value: { value: world.secrets.newApiKey } } } },
            (answer) => sent(answer)['x-api-key'] === world.secrets.newApiKey);
        });

        it('of the app authentication type', () => change({ appAuth: { bearer: { token: { value: world.secrets.bearer } } } },
          (answer) => sent(answer).authorization === `Bearer ${world.secrets.bearer}` && sent(answer)['x-api-key'] === undefined));

        it('of the agent authentication type', () => change({ agentAuth: { interactive: { allow: { everyone: true } } } },
          (answer) => answer.status === 401 && answer.headers['www-authenticate'].includes('resource_metadata=')));

        it('that disables the server', () => change({ enabled: false }, (answer) => answer.status === 404));
      });

      it('records who called what, and never with what secret', async () => {
        const call = await waitFor(async () => {
          const { events = [] } = await world.gateway.api('sallyport.audit.v1.Audit/ListEvents',
            { pageSize: 1000, type: 'mcp.call', subject: world.subject(0) });
          return events.find((event) => event.mcpName === 'whoami');
        }, 'the audit of a call', 15000, 250);
        assert.equal(call.serverSlug, 'github');
        assert.equal(call.mcpMethod, 'tools/call');
        assert.equal(call.decision, 'DECISION_ALLOWED');
        assert.equal(call.credentials[0].piece, 'app_auth');
      });
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

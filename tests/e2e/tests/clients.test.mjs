// SPDX-License-Identifier: Apache-2.0
// Real clients, from 401 through a browser sign-in to tools/list and tools/call, and what a user without a linked account gets to see.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../world/browser.mjs';
import { actInChromium } from '../world/chromium.mjs';
import { CALLBACK, MemoryOAuth, connectClient, connectMcpRemote, person, personToTheEnd } from '../world/clients.mjs';
import { assertNoSecretLeaked, obtainToken, startWorld, tokenRequest } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, initialize, request, rpc, toolText } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';

const URL_CAPABLE = { elicitation: { form: {}, url: {} } };

for (const topology of TOPOLOGIES) {
  describe(`clients, ${topology}`, () => {
    let world;
    before(async () => { world = await startWorld(topology, { users: 10 }); });
    after(() => world?.close());
    const url = () => world.gateway.mcpUrl('github');

    for (const [kind, i, version] of [['sdk1', 0, '2025-11-25'], ['client2', 1, '2025-11-25'], ['client2-auto', 2, '2026-07-28']]) {
      it(`takes ${kind} from 401 to a tool's answer, with ${version} all the way`, async () => {
        const began = world.provider.records.mcpRequests.length;
        const { client, oauth, close } = await connectClient(kind, url(), { openUrl: person(new Browser(), world.persona(i)) });
        assert.equal(oauth.authorizations, 1);
        world.tokens.add(oauth.tokens().access_token).add(oauth.tokens().refresh_token);
        assert.ok((await client.listTools()).tools.some((tool) => tool.name === 'list_pull_requests'));
        const answer = await client.callTool({ name: 'list_pull_requests', arguments: {} });
        assert.equal(JSON.parse(answer.content[0].text)[0].author, world.account(i));
        await close();
        // What reached the upstream says what was negotiated; only a legacy initialize names no version in its head.
        const spoken = world.provider.records.mcpRequests.slice(began).map(({ headers }) => headers['mcp-protocol-version']);
        assert.deepEqual([...new Set(spoken.filter(Boolean))], [version]);
        assert.equal(spoken.filter((named) => !named).length, version === '2026-07-28' ? 0 : 1, spoken.join());
      });
    }

    it('takes mcp-remote from 401 to a tool\'s answer', async () => {
      const { client, close } = await connectMcpRemote(url(), { openUrl: personToTheEnd(new Browser(), world.persona(3)) });
      try {
        assert.ok((await client.listTools()).tools.some((tool) => tool.name === 'whoami'));
        const answer = await client.callTool({ name: 'whoami', arguments: {} });
        assert.equal(answer.content[0].text, world.account(3));
      } finally {
        await close();
      }
    });

    it('takes a person at Chromium through sign-in, consent and link', async () => {
      let flow;
      const openUrl = async (authorizationUrl) => {
        flow = await actInChromium(authorizationUrl, world.persona(4), { stop: (target) => target.origin + target.pathname === CALLBACK });
        return flow.callback;
      };
      const { client, close } = await connectClient('client2', url(), { openUrl });
      assert.deepEqual((await client.listTools()).tools.map((tool) => tool.name).sort(), ['list_pull_requests', 'whoami']);
      const answer = await client.callTool({ name: 'whoami', arguments: {} });
      assert.equal(answer.content[0].text, world.account(4));
      assert.deepEqual(flow.violations, []);
      await close();
    });

    it('refreshes our own access token when the SDK asks', async () => {
      const oauth = new MemoryOAuth({ openUrl: person(new Browser(), world.persona(0)) });
      const { client, close } = await connectClient('client2', url(), { oauth });
      const old = oauth.tokens().access_token;
      oauth.saveTokens({ ...oauth.tokens(), access_token: `${old.slice(0, -8)}AAAAAAAA` });
      assert.equal((await client.callTool({ name: 'whoami', arguments: {} })).content[0].text, world.account(0));
      assert.equal(oauth.authorizations, 1);
      await close();
    });

    describe('discovery', () => {
      it('challenges POST and GET with the address of the metadata, Bearer first', async () => {
        for (const method of ['POST', 'GET']) {
          const response = await request(url(), { method, headers: { Accept: 'application/json, text/event-stream' } });
          assert.equal(response.status, 401);
          assert.match(response.headers['www-authenticate'],
            new RegExp(`^Bearer .*resource_metadata="${world.gateway.publicUrl}/\\.well-known/oauth-protected-resource/mcp/github"`));
        }
      });

      it('publishes the exact resource and an issuer equal to itself', async () => {
        const json = async (path) => {
          const response = await request(world.gateway.publicUrl + path);
          assert.equal(response.status, 200, path);
          return JSON.parse(response.body);
        };
        const resource = await json('/.well-known/oauth-protected-resource/mcp/github');
        assert.equal(resource.resource, url());
        assert.deepEqual(resource.authorization_servers, [world.gateway.publicUrl]);
        for (const path of ['/.well-known/oauth-authorization-server', '/.well-known/openid-configuration',
          '/.well-known/oauth-authorization-server/mcp/github']) {
          const metadata = await json(path);
          assert.equal(metadata.issuer, world.gateway.publicUrl);
          assert.deepEqual(metadata.code_challenge_methods_supported, ['S256']);
          assert.equal(metadata.authorization_response_iss_parameter_supported, true);
        }
      });

      it('publishes no metadata for a Passthrough server', async () => {
        assert.equal((await request(`${world.gateway.publicUrl}/.well-known/oauth-protected-resource/mcp/nightly`)).status, 404);
      });

      it('refuses a token of another server, a mangled one and one in the query', async () => {
        const { accessToken } = await obtainToken(world, 'echo', world.persona(0));
        assert.equal((await rpc(world.gateway.mcpUrl('echo'), 'tools/list', {}, { token: accessToken })).status, 200);
        for (const token of [accessToken.slice(0, -4), `${accessToken}x`, 'nonsense']) {
          assert.equal((await rpc(world.gateway.mcpUrl('echo'), 'tools/list', {}, { token })).status, 401);
        }
        assert.equal((await rpc(url(), 'tools/list', {}, { token: accessToken })).status, 401);
        assert.equal((await rpc(`${world.gateway.mcpUrl('echo')}?access_token=${accessToken}`, 'tools/list')).status, 401);
      });

      it('answers an unknown client at /token with 401 invalid_client', async () => {
        const answer = await tokenRequest(world, { grant_type: 'refresh_token', refresh_token: 'spr_nothing', client_id: 'nobody' });
        assert.equal(answer.status, 401);
        assert.equal(answer.json.error, 'invalid_client');
      });
    });

    describe('a user without a linked account', () => {
      const connectLink = (text) => text.match(/https?:\/\/[^\s"'<>)]+\/connect\/github[^\s"'<>)]*/)?.[0];
      const follow = (link, i) => new Browser().act(link, world.persona(i));

      it('with 2026-07-28 and URL elicitation: input_required, resumed with the sealed state', async () => {
        const { accessToken: token } = await obtainToken(world, 'github', world.persona(5, { skipLink: true }));
        const options = { token, capabilities: URL_CAPABLE };
        const first = await callTool(url(), 'whoami', {}, options);
        assert.equal(first.status, 200, first.body);
        const { result } = first.message;
        assert.equal(result.resultType, 'input_required');
        const [key, asked] = Object.entries(result.inputRequests)[0];
        assert.equal(asked.method, 'elicitation/create');
        assert.equal(asked.params.mode, 'url');
        assert.match(result.requestState, /^sp1\./);
        const answers = { inputResponses: { [key]: { action: 'accept' } }, requestState: result.requestState };
        // The reply is held until the link is there.
        const held = rpc(url(), 'tools/call', { name: 'whoami', arguments: {}, ...answers }, options);
        await sleep(300);
        const { page } = await follow(asked.params.url, 5);
        assert.ok(page.status < 400, `${page.url}: ${page.status} ${page.html.slice(0, 1500)}`);
        assert.equal(toolText(await held), world.account(5));
      });

      it('refuses a sealed state that belongs to another user or another call', async () => {
        const { accessToken: token } = await obtainToken(world, 'github', world.persona(6, { skipLink: true }));
        const unlinked = (await obtainToken(world, 'github', world.persona(7, { skipLink: true }))).accessToken;
        const linked = (await obtainToken(world, 'github', world.persona(0))).accessToken;
        const options = { token, capabilities: URL_CAPABLE };
        const { result } = (await callTool(url(), 'whoami', {}, options)).message;
        const key = Object.keys(result.inputRequests)[0];
        const answers = { inputResponses: { [key]: { action: 'accept' } }, requestState: result.requestState };
        const { mcpRequests, authorizations, tokenRequests } = world.provider.records;
        const requests = () => [mcpRequests.length, authorizations.length, tokenRequests.length];
        const before = requests();
        for (const [name, whose] of [['whoami', linked], ['whoami', unlinked], ['list_pull_requests', token]]) {
          const refused = await rpc(url(), 'tools/call', { name, arguments: {}, ...answers }, { ...options, token: whose });
          assert.equal(refused.status, 400, refused.body);
          assert.equal(refused.message.error.code, -32602);
          assert.equal(refused.message.error.data.reason, 'request_state_mismatch');
        }
        const declined = await rpc(url(), 'tools/call',
          { name: 'whoami', arguments: {}, inputResponses: { [key]: { action: 'decline' } }, requestState: result.requestState }, options);
        assert.equal(declined.message.result.isError, true);
        assert.deepEqual(requests(), before, 'nothing of all this reached the app');
      });

      it('with 2025-11-25 and URL elicitation: error -32042; without a session that says so: a tool result', async () => {
        const { accessToken: token } = await obtainToken(world, 'github', world.persona(6, { skipLink: true }));
        const { session, result } = await initialize(url(), { token, capabilities: URL_CAPABLE });
        assert.ok(result.capabilities.tools);
        const options = { token, era: 'legacy', session };
        const tools = (await rpc(url(), 'tools/list', {}, options)).message.result.tools;
        assert.deepEqual(tools.map((tool) => tool.name), ['connect_account']);
        const { error } = (await callTool(url(), 'whoami', {}, options)).message;
        assert.equal(error.code, -32042);
        assert.equal(error.data.elicitations[0].mode, 'url');
        assert.ok(error.data.elicitations[0].elicitationId);

        const plain = await initialize(url(), { token });
        const answer = await callTool(url(), 'whoami', {}, { token, era: 'legacy', session: plain.session });
        assert.equal(answer.message.result.isError, true);
        assert.ok(connectLink(toolText(answer)));

        await follow(error.data.elicitations[0].url, 6);
        const linked = await waitFor(async () => {
          const candidate = await callTool(url(), 'whoami', {}, options);
          return candidate.status === 404 || !candidate.message?.error ? candidate : undefined;
        }, 'the linked call', 5000, 200);
        assert.equal(toolText(linked), world.account(6));
      });

      it('without URL elicitation: a tool result with a link that only this user can use', async () => {
        const { accessToken: token } = await obtainToken(world, 'github', world.persona(7, { skipLink: true }));
        const answer = await callTool(url(), 'whoami', {}, { token });
        assert.equal(answer.status, 200);
        assert.equal(answer.message.result.isError, true);
        const link = connectLink(toolText(answer));
        assert.ok(link, toolText(answer));
        const stranger = await follow(link, 8);
        assert.equal(stranger.page.status, 403);
        assert.match(stranger.page.html, /link_user_mismatch/);
        const owner = await follow(link, 7);
        assert.ok(owner.page.status < 400, owner.page.html.slice(0, 1000));
        await waitFor(async () => toolText(await callTool(url(), 'whoami', {}, { token })) === world.account(7), 'the linked call', 5000, 200);
      });

      it('still has tools/list, and a clear answer for prompts', async () => {
        const { accessToken: token } = await obtainToken(world, 'github', world.persona(9, { skipLink: true }));
        const list = await rpc(url(), 'tools/list', {}, { token });
        assert.deepEqual(list.message.result.tools.map((tool) => tool.name), ['connect_account']);
        const prompt = await rpc(url(), 'prompts/get', { name: 'x' }, { token });
        assert.equal(prompt.message.error.code, -32021);
        assert.equal(prompt.status, 400);
      });
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

for (const topology of TOPOLOGIES) {
  describe(`clients whose access tokens are short-lived, ${topology}`, () => {
    const LIFETIME = 6;
    let world;
    before(async () => {
      world = await startWorld(topology, { users: 1 });
      // Not from the start: the administrator's token would be as short-lived.
      const { gateway } = world;
      const name = topology === 'split' ? 'authn' : 'standalone';
      const { file, config, process: running } = gateway.services.get(name);
      await writeFile(file, JSON.stringify({ ...config, accessTokenLifetime: `${LIFETIME}s` }));
      await running.stop(12000);
      await gateway.restart(name);
      await gateway.ready();
    });
    after(() => world?.close());

    for (const kind of ['sdk1', 'client2', 'client2-auto']) {
      it(`renews the token of ${kind} once when it has run out, without anybody at the browser`, async () => {
        const url = world.gateway.mcpUrl('github');
        const oauth = new MemoryOAuth({ openUrl: person(new Browser(), world.persona(0)) });
        const saved = [];
        oauth.saveTokens = (tokens) => {
          saved.push(tokens);
          world.tokens.add(tokens.access_token).add(tokens.refresh_token);
          MemoryOAuth.prototype.saveTokens.call(oauth, tokens);
        };
        const { client, close } = await connectClient(kind, url, { oauth });
        try {
          assert.equal(saved.length, 1);
          assert.equal(saved[0].expires_in, LIFETIME);
          const list = (token) => rpc(url, 'tools/list', {}, { token });
          assert.equal((await list(saved[0].access_token)).status, 200);
          await sleep(LIFETIME * 1000 + 200);
          const late = await list(saved[0].access_token);
          assert.equal(late.status, 401);
          assert.match(late.headers['www-authenticate'], /error="invalid_token"/);
          for (let n = 0; n < 2; n++) assert.equal((await client.callTool({ name: 'whoami', arguments: {} })).content[0].text, world.account(0));
          assert.equal(saved.length, 2, 'renewed once');
          assert.notEqual(saved[1].access_token, saved[0].access_token);
          assert.equal(oauth.authorizations, 1);
        } finally {
          await close();
        }
      });
    }

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

// SPDX-License-Identifier: Apache-2.0
// What an administrator saves: nothing is ignored, a secret stays where it was entered for, and a name used again inherits nothing.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, obtainToken, startWorld, tokenRequest } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, initialize, rpc, toolText } from '../world/http-client.mjs';
import { waitFor } from '../world/http.mjs';

const REGISTRY = 'sallyport.registry.v1.Registry';
const OPEN = { passthrough: {} };
const EVERYONE = { interactive: { allow: { everyone: true } } };

for (const topology of TOPOLOGIES) {
  describe(`configuration, ${topology}`, () => {
    let world;
    const secret = (name) => {
      const value = `canary-${name}-${randomBytes(12).toString('base64url')}`;
      world.tokens.add(value);
      return { value };
    };
    const save = (method, mcpServer) => world.gateway.apiRequest(`${REGISTRY}/${method}McpServer`, { mcpServer });
    const saved = async (method, mcpServer) => {
      const answer = await save(method, mcpServer);
      assert.equal(answer.status, 200, answer.body);
      return JSON.parse(answer.body).mcpServer;
    };
    const seen = async (slug, options) => {
      const answer = await callTool(world.gateway.mcpUrl(slug), 'headers', {}, options);
      assert.equal(answer.status, 200, answer.body);
      return JSON.parse(toolText(answer)).headers;
    };
    before(async () => { world = await startWorld(topology, { users: 2 }); });
    after(() => world?.close());

    describe('what this version does not execute', () => {
      it('is refused by name', async () => {
        const app = { slug: 'preset', provider: 'github', clientId: 'c' };
        const answer = await world.gateway.apiRequest(`${REGISTRY}/CreateApp`, { app });
        assert.equal(answer.status, 400, answer.body);
        assert.ok(answer.body.includes('not yet supported: provider'), answer.body);
      });

      it('is refused with every other mistake of the same file at once, each by its field', async () => {
        const answer = await save('Create', {
          slug: 'Bad Slug', upstreamUrl: 'ftp://x', agentAuth: EVERYONE, appAuth: { apiKey: { name: 'Content-Length', value: secret('unused') } },
          policy: { tls: { caBundle: 'x' }, bodyLimit: '999999999' },
        });
        assert.equal(answer.status, 400);
        for (const field of ['slug', 'upstreamUrl', 'appAuth.apiKey.name', 'policy.tls.caBundle', 'policy.bodyLimit']) {
          assert.ok(answer.body.includes(`"${field}"`), `${field}: ${answer.body}`);
        }
      });

      it('is an unknown field, not a silent one', async () => {
        const answer = await save('Create', { slug: 'typo', upstreamURL: world.echo.url, agentAuth: OPEN, appAuth: { passthrough: {} } });
        assert.equal(answer.status, 400, answer.body);
        assert.match(answer.body, /upstreamURL/);
      });
    });

    describe('a secret', () => {
      it('does not follow its server to another origin, unless it is entered again', async () => {
        const first = secret('first-key');
        const bound = { slug: 'bound', upstreamUrl: world.echo.url, agentAuth: OPEN, appAuth: { apiKey: { name: 'X-API-Key', value: first } } };
        await saved('Create', bound);
        await world.gateway.served(['bound']);
        assert.equal((await seen('bound'))['x-api-key'], first.value);

        const moved = { ...bound, upstreamUrl: world.trickster.url, appAuth: { apiKey: { name: 'X-API-Key' } } };
        const refused = await save('Update', moved);
        assert.equal(refused.status, 400, refused.body);
        assert.match(refused.body, /appAuth\.apiKey\.value/);
        const kinds = [
          { bearer: {} }, { basic: { username: 'u' } }, { apiKey: { name: 'k', location: 'QUERY' } },
        ];
        for (const appAuth of kinds) {
          const answer = await save('Update', { ...moved, appAuth });
          assert.equal(answer.status, 400, `${JSON.stringify(appAuth)}: ${answer.body}`);
        }
        assert.equal((await seen('bound'))['x-api-key'], first.value, 'still where it was');
        assert.deepEqual(world.trickster.requests, [], 'nothing went there');

        const second = secret('second-key');
        await saved('Update', { ...moved, appAuth: { apiKey: { name: 'X-API-Key', value: second } } });
        await waitFor(async () => {
          await callTool(world.gateway.mcpUrl('bound'), 'x');
          return world.trickster.requests.length > 0;
        }, 'the new origin to be served');
        await callTool(world.gateway.mcpUrl('bound'), 'x');
        for (const { headers } of world.trickster.requests) assert.equal(headers['x-api-key'], second.value);
        world.trickster.requests.length = 0;
      });

      it('goes on to another path of the same origin, and to whom its new name says', async () => {
        const key = secret('kept-key');
        const kept = { slug: 'kept', upstreamUrl: world.echo.url, agentAuth: OPEN, appAuth: { apiKey: { name: 'X-API-Key', value: key } } };
        await saved('Create', kept);
        await saved('Update', { ...kept, upstreamUrl: `${world.echo.url}?tenant=1`, appAuth: { apiKey: { name: 'X-Other-Key' } } });
        await world.gateway.served(['kept']);
        const headers = await waitFor(async () => {
          const got = await seen('kept');
          return got['x-other-key'] && got;
        }, 'the new name');
        assert.equal(headers['x-other-key'], key.value);
        assert.equal(headers['x-api-key'], undefined);
      });

      it('is never shown again, to nobody', async () => {
        const { body } = await world.gateway.apiRequest(`${REGISTRY}/ListMcpServers`, { pageSize: 1000 });
        for (const value of [world.secrets.apiKey, world.secrets.bearer, world.secrets.literal, world.secrets.basic, world.secrets.query]) {
          assert.ok(!body.includes(JSON.stringify(value).slice(1, -1)));
        }
        const { stdout } = await world.gateway.cli(['get', 'servers', '-o', 'yaml']);
        assert.ok(stdout.includes('nightly') && !stdout.includes(world.secrets.bearer));
      });
    });

    describe('a slug used again', () => {
      it('inherits neither secret nor token nor session of the server before', async () => {
        const { gateway } = world;
        const old = secret('old-key');
        const server = (appAuth) => ({ slug: 'again', upstreamUrl: world.echo.url, agentAuth: EVERYONE, appAuth });
        const former = await saved('Create', server({ apiKey: { name: 'X-API-Key', value: old } }));
        await gateway.served(['again']);
        const got = await obtainToken(world, 'again', world.persona(0));
        const { session } = await initialize(gateway.mcpUrl('again'), { token: got.accessToken });
        assert.equal((await seen('again', { token: got.accessToken }))['x-api-key'], old.value);

        await gateway.api(`${REGISTRY}/DeleteMcpServer`, { slug: 'again' });
        await waitFor(async () => (await rpc(gateway.mcpUrl('again'), 'tools/list', {}, { token: got.accessToken })).status === 404, 'it to be gone');
        const without = await save('Create', server({ apiKey: { name: 'X-API-Key' } }));
        assert.equal(without.status, 400, 'there is no secret to keep');
        const now = secret('new-key');
        const latter = await saved('Create', server({ apiKey: { name: 'X-API-Key', value: now } }));
        assert.notEqual(latter.uid, former.uid);
        await gateway.served(['again']);

        const calls = world.echo.requests.length;
        for (const options of [{}, { era: 'legacy', session }]) {
          const answer = await rpc(gateway.mcpUrl('again'), 'tools/list', {}, { token: got.accessToken, ...options });
          assert.equal(answer.status, 401, answer.body);
        }
        const renewed = await tokenRequest(world, {
          grant_type: 'refresh_token', refresh_token: got.refreshToken, client_id: got.clientId, resource: gateway.mcpUrl('again'),
        });
        assert.equal(renewed.status, 400, 'the refresh token is of the server before');
        assert.equal(world.echo.requests.length, calls, 'nothing went upstream');
        // The same person in the same browser, who is asked to consent again: it is another server.
        const again = await obtainToken(world, 'again', world.persona(0), { browser: got.browser });
        const foreign = await rpc(gateway.mcpUrl('again'), 'tools/list', {}, { token: again.accessToken, era: 'legacy', session });
        assert.equal(foreign.status, 404, 'a session of the server before');
        assert.equal((await seen('again', { token: again.accessToken }))['x-api-key'], now.value);
      });

      it('is answered with 404 while its server is disabled, and works again after', async () => {
        const nightly = world.resources.mcpServers.find(({ slug }) => slug === 'nightly');
        const status = async () => (await callTool(world.gateway.mcpUrl('nightly'), 'echo', { message: 'x' })).status;
        assert.equal(await status(), 200);
        await saved('Update', { ...nightly, enabled: false });
        await waitFor(async () => await status() === 404, 'it to be gone', 2000);
        await saved('Update', { ...nightly, enabled: true });
        await waitFor(async () => await status() === 200, 'it to be back', 2000);
      });
    });

    it('a file with hundreds of faults is refused in words, and the next one is taken', async () => {
      const wrong = Array.from({ length: 500 }, (_x, i) => (
        { slug: `wrong-${i}`, upstreamUrl: world.echo.url, agentAuth: OPEN, appAuth: { clientCredentials: { clientId: 'nobody' } } }));
      const file = path.join(world.gateway.directory, 'wrong.yaml');
      await writeFile(file, JSON.stringify({ mcpServers: wrong }), { mode: 0o600 });
      const { code, stderr } = await world.gateway.cli(['apply', '-f', file], { ok: (status) => status !== 0 });
      assert.ok(code !== 0 && /appAuth\.clientCredentials\.tokenUrl/.test(stderr), stderr.slice(0, 2000));
      await saved('Create', { slug: 'right', upstreamUrl: world.echo.url, agentAuth: OPEN, appAuth: { passthrough: {} } });
    });

    it('an update of a version that is not the current one is refused, and loses nothing', async () => {
      const { mcpServers } = await world.gateway.api(`${REGISTRY}/ListMcpServers`, { pageSize: 1000 });
      const { version, ...nightly } = mcpServers.find(({ slug }) => slug === 'nightly');
      await saved('Update', { ...nightly, description: 'mine', version });
      const late = await save('Update', { ...nightly, description: 'yours', version });
      assert.equal(late.status, 409, late.body);
      assert.equal((await world.gateway.api(`${REGISTRY}/GetMcpServer`, { slug: 'nightly' })).description, 'mine');
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

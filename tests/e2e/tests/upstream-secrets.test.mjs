// SPDX-License-Identifier: Apache-2.0
// Upstreams whose address is a secret, and upstreams with an authority of their own that know the gateway by its certificate.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { listen, waitFor } from '../world/http.mjs';
import { describeCall, makeAuthority, startTlsUpstream } from '../world/tls-upstream.mjs';

const REGISTRY = 'sallyport.registry.v1.Registry';
const OPEN = { passthrough: {} };
const EVERYONE = { interactive: { allow: { everyone: true } } };

for (const topology of TOPOLOGIES) {
  describe(`secrets of the way upstream, ${topology}`, () => {
    let world;
    let authority;
    let other;
    const closers = [];
    const own = (thing) => { closers.push(thing); return thing; };
    const canary = (name) => {
      const value = `canary-${name}-${randomBytes(12).toString('base64url')}`;
      world.tokens.add(value);
      return value;
    };
    const save = (method, mcpServer) => world.gateway.apiRequest(`${REGISTRY}/${method}McpServer`, { mcpServer });
    const saved = async (method, mcpServer) => {
      const answer = await save(method, mcpServer);
      assert.equal(answer.status, 200, answer.body);
      await world.gateway.served([mcpServer.slug]);
      return JSON.parse(answer.body);
    };
    const refused = async (method, mcpServer, ...fields) => {
      const answer = await save(method, mcpServer);
      assert.equal(answer.status, 400, answer.body);
      for (const field of fields) assert.ok(answer.body.includes(`"${field}"`), `${field}: ${answer.body}`);
      assert.ok(!answer.body.includes('canary-') && !answer.body.includes('PRIVATE KEY'), 'nothing of the value is quoted');
    };
    const call = (slug, tool = 'who', options = {}) => callTool(`${world.gateway.mcpUrl(slug)}${options.query ?? ''}`, tool, {}, options);
    const answered = async (slug, options) => {
      const answer = await call(slug, 'who', options);
      assert.equal(answer.status, 200, answer.body);
      return JSON.parse(toolText(answer));
    };
    // A changed server is called anew within a second; until then as it was.
    const becomes = (slug, reached, what) => waitFor(async () => reached(await call(slug)), what, 1500);
    const reasonOf = (answer) => answer.message?.error?.data?.reason;
    const edgeService = topology === 'split' ? 'edge' : 'standalone';

    before(async () => {
      [authority, other] = await Promise.all([makeAuthority('house'), makeAuthority('other house')]);
      own(authority);
      own(other);
      world = await startWorld(topology, { users: 1 });
    });
    after(async () => {
      await world?.close();
      for (const thing of closers.reverse()) await thing.close();
    });

    describe('a secret address', () => {
      const requests = [];
      let hook;
      let path;
      before(async () => {
        hook = own(await listen(describeCall((request) => requests.push(request))));
        path = `/${canary('path')}`;
      });
      const server = (more = {}) => ({ slug: 'hook', agentAuth: OPEN, appAuth: { passthrough: {} }, secretUpstreamUrl: {}, ...more });
      const address = (suffix = '') => ({ value: `${hook.url}${path}${suffix}` });

      it('is called whole, with its own Host and the caller\'s query behind its own', async () => {
        const answer = await saved('Create', server({ secretUpstreamUrl: address('?tenant=1') }));
        assert.equal(answer.mcpServer.upstreamOrigin, hook.url);
        assert.ok(!JSON.stringify(answer).includes('canary-'));
        assert.deepEqual((await answered('hook', { query: '?page=2' })).query, { tenant: '1', page: '2' });
        const { url, host } = requests.at(-1);
        assert.equal(url, `${path}?tenant=1&page=2`);
        assert.equal(host, new URL(hook.url).host);
      });

      it('needs not be given again for another change, and is shown to nobody', async () => {
        await saved('Update', server({ description: 'kept' }));
        assert.deepEqual((await answered('hook')).query, { tenant: '1' });
        for (const { body } of [
          await world.gateway.apiRequest(`${REGISTRY}/GetMcpServer`, { slug: 'hook' }),
          await world.gateway.apiRequest(`${REGISTRY}/ListMcpServers`, { pageSize: 1000 }),
        ]) assert.ok(body.includes(hook.url) && !body.includes('canary-'), body);
        const { stdout } = await world.gateway.cli(['get', 'servers', '-o', 'yaml']);
        assert.ok(stdout.includes('hook') && !stdout.includes('canary-path'));
      });

      it('is in no answer, though the upstream names it in redirects and challenges', async () => {
        const redirected = await call('hook', 'redirect');
        assert.equal(redirected.status, 502);
        assert.match(redirected.body, /redirects/);
        const challenged = await call('hook', 'challenge');
        assert.equal(challenged.status, 401);
        assert.equal(challenged.headers['www-authenticate'], 'Bearer');
        for (const answer of [redirected, challenged]) {
          assert.ok(!JSON.stringify([answer.headers, answer.body]).includes('canary-'), answer.body);
        }
      });

      it('goes together with an API key in its query', async () => {
        const key = canary('query-key');
        await saved('Create', { ...server({ secretUpstreamUrl: address('?api_key=theirs&tenant=1') }), slug: 'hook-key',
          appAuth: { apiKey: { name: 'api_key', location: 'QUERY', value: { value: key } } } });
        assert.deepEqual((await answered('hook-key', { query: '?api_key=callers' })).query, { tenant: '1', api_key: key });
      });

      it('serves people who have signed in, too', async () => {
        await saved('Create', { ...server({ secretUpstreamUrl: address() }), slug: 'hook-people', agentAuth: EVERYONE,
          outboundHeaders: [{ name: 'X-User', callerIdentity: { claim: 'sub' } }] });
        const { accessToken: token } = await obtainToken(world, 'hook-people', world.persona(0));
        await answered('hook-people', { token });
        assert.equal(requests.at(-1).url, path);
        assert.equal(requests.at(-1).headers['x-user'], world.subject(0));
      });

      it('is one of two, valid, and not for taking secrets elsewhere', async () => {
        const bearer = { bearer: { token: { value: canary('bearer') } } };
        await refused('Create', { ...server(), slug: 'none' }, 'secretUpstreamUrl');
        await refused('Create', { ...server({ secretUpstreamUrl: address() }), slug: 'both', upstreamUrl: world.echo.url }, 'secretUpstreamUrl');
        for (const value of ['ftp://x/canary-', 'http://93.184.216.34/canary-', `${hook.url}/canary-#x`, `http://a:canary-@${new URL(hook.url).host}/`]) {
          await refused('Create', { ...server({ secretUpstreamUrl: { value } }), slug: 'bad' }, 'secretUpstreamUrl');
        }
        await saved('Create', { ...server({ secretUpstreamUrl: address(), appAuth: bearer }), slug: 'hook-bound' });
        const elsewhere = { ...server({ secretUpstreamUrl: { value: `${world.trickster.origin}/${canary('elsewhere')}` }, appAuth: { bearer: {} } }),
          slug: 'hook-bound' };
        await refused('Update', elsewhere, 'secretUpstreamUrl', 'appAuth.bearer.token');
        const before_ = world.trickster.requests.length;
        await answered('hook-bound');
        assert.equal(requests.at(-1).headers.authorization, `Bearer ${bearer.bearer.token.value}`);
        assert.equal(world.trickster.requests.length, before_);
      });

      it('takes effect within a second when it is changed, and is erased when an open one takes its place', async () => {
        const moved = `/${canary('moved')}`;
        await saved('Update', server({ secretUpstreamUrl: { value: `${hook.url}${moved}` } }));
        await becomes('hook', () => requests.at(-1).url === moved, 'the new address');
        await saved('Update', { ...server(), secretUpstreamUrl: undefined, upstreamUrl: `${hook.url}/open` });
        await becomes('hook', () => requests.at(-1).url === '/open', 'the open address');
        await refused('Update', server(), 'secretUpstreamUrl');
      });
    });

    describe('TLS', () => {
      let identity;
      let demanding;
      before(async () => {
        identity = await authority.forClient('gateway');
        demanding = own(await startTlsUpstream({ certificate: await authority.forServer('IP:127.0.0.1'), clientAuthority: authority.pem }));
      });
      const server = (slug, upstreamUrl, tls) => ({ slug, upstreamUrl, agentAuth: OPEN, appAuth: { passthrough: {} }, policy: { tls } });
      const identityOf = ({ identity: value }) => ({ value });
      const failsWithTls = async (slug, reasons = ['upstream_tls']) => {
        const answer = await call(slug);
        assert.equal(answer.status, 502, answer.body);
        assert.ok(reasons.includes(reasonOf(answer)), answer.body);
        assert.ok(!answer.body.includes('PRIVATE KEY'));
      };

      it('trusts the bundle of the server and shows its certificate', async () => {
        await saved('Create', server('mutual', demanding.url, { caBundle: authority.pem, clientCert: identityOf(identity) }));
        assert.equal((await answered('mutual')).client, 'gateway');
        const { mcpServer } = await saved('Update', server('mutual', demanding.url, { caBundle: authority.pem }));
        assert.equal(mcpServer.policy.tls.clientCert.set, true, 'an absent secret is kept');
        assert.ok(!JSON.stringify(mcpServer).includes('PRIVATE KEY'));
        assert.equal((await answered('mutual')).client, 'gateway');
      });

      it('speaks so to an upstream whose address is a secret', async () => {
        const path = `/${canary('mutual')}`;
        await saved('Create', { ...server('mutual-hook', undefined, { caBundle: authority.pem, clientCert: identityOf(identity) }),
          secretUpstreamUrl: { value: `${demanding.origin}${path}` } });
        assert.equal((await answered('mutual-hook')).client, 'gateway');
        assert.equal(demanding.requests.at(-1).url, path);
      });

      it('trusts no other authority, name or upstream, and the failure is counted', async () => {
        const elsewhere = own(await startTlsUpstream({ certificate: await authority.forServer('DNS:elsewhere.example') }));
        const foreign = own(await startTlsUpstream({ certificate: await other.forServer('IP:127.0.0.1') }));
        await saved('Create', server('other-name', elsewhere.url, { caBundle: authority.pem }));
        await saved('Create', server('other-authority', foreign.url, { caBundle: authority.pem }));
        await saved('Create', { ...server('no-bundle', foreign.url), policy: {} });
        for (const slug of ['other-name', 'other-authority', 'no-bundle']) {
          const failures = () => world.gateway.metric(edgeService, 'sallyport_mcp_upstream_tls_failures_total', { server: slug });
          const failed = await failures();
          await failsWithTls(slug);
          assert.equal(await failures(), failed + 1, slug);
        }
        assert.deepEqual([elsewhere.requests, foreign.requests], [[], []]);
      });

      it('fails where the upstream refuses the certificate or misses one, in TLS 1.2 and 1.3', async () => {
        const stranger = await other.forClient('stranger');
        // This upstream looks at a certificate after the handshake, and closes the connection without a word of TLS.
        const closed = ['upstream_tls', 'upstream_closed'];
        for (const maxVersion of ['TLSv1.2', 'TLSv1.3']) {
          const slug = `strict-${maxVersion.at(-1)}`;
          const strict = own(await startTlsUpstream({
            certificate: await authority.forServer('IP:127.0.0.1'), clientAuthority: authority.pem, maxVersion,
          }));
          await saved('Create', server(slug, strict.url, { caBundle: authority.pem }));
          await failsWithTls(slug, closed);
          await saved('Update', server(slug, strict.url, { caBundle: authority.pem, clientCert: identityOf(stranger) }));
          await failsWithTls(slug, closed);
          await saved('Update', server(slug, strict.url, { caBundle: authority.pem, clientCert: identityOf(identity) }));
          await becomes(slug, ({ status }) => status === 200, 'the right certificate');
          assert.deepEqual(strict.requests.map(({ client }) => client), strict.requests.map(() => 'gateway'));
        }
      });

      it('shows nothing to an upstream that asks, where nothing is configured', async () => {
        const curious = own(await startTlsUpstream({
          certificate: await authority.forServer('IP:127.0.0.1'), clientAuthority: authority.pem, demanded: false,
        }));
        await saved('Create', server('curious', curious.url, { caBundle: authority.pem }));
        assert.equal((await answered('curious')).client, null);
      });

      it('shares neither connection nor session between servers, and closes the old ones of a changed one', async () => {
        const shared = own(await startTlsUpstream({ certificate: await authority.forServer('IP:127.0.0.1'), clientAuthority: authority.pem }));
        const names = ['first', 'second'];
        const issued = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await makeIdentity(name)])));
        for (const name of names) {
          await saved('Create', server(`shares-${name}`, shared.url, { caBundle: authority.pem, clientCert: identityOf(issued[name]) }));
        }
        for (let i = 0; i < 3; i++) {
          for (const name of names) assert.equal((await answered(`shares-${name}`)).client, name);
        }
        await saved('Update', server('shares-first', shared.url, { caBundle: authority.pem, clientCert: identityOf(await makeIdentity('renewed')) }));
        await becomes('shares-first', (answer) => JSON.parse(toolText(answer)).client === 'renewed', 'the renewed certificate');
        for (let i = 0; i < 3; i++) assert.equal((await answered('shares-first')).client, 'renewed');
        assert.ok(shared.requests.every(({ resumed }) => !resumed));
        await saved('Update', server('shares-second', shared.url, { caBundle: other.pem }));
        await becomes('shares-second', ({ status }) => status === 502, 'the other authority');
        await failsWithTls('shares-second');
      });
      // One after the other: an authority works in one directory.
      let issuing = Promise.resolve();
      const makeIdentity = (name) => {
        issuing = issuing.then(() => authority.forClient(name));
        return issuing;
      };

      it('is checked when it is saved, by field', async () => {
        const { pem } = authority;
        const { certificate, key } = identity;
        await refused('Create', server('bad', demanding.url, { caBundle: 'none' }), 'policy.tls.caBundle');
        await refused('Create', server('bad', demanding.url, { caBundle: pem + key }), 'policy.tls.caBundle');
        await refused('Create', server('bad', demanding.url, { clientCert: { value: certificate } }), 'policy.tls.clientCert');
        await refused('Create', server('bad', demanding.url, { clientCert: { value: pem + key } }), 'policy.tls.clientCert');
        await refused('Create', server('bad', world.echo.url, { caBundle: pem }), 'policy.tls');
        await refused('Update', server('mutual', `https://127.0.0.1:${demanding.port + 1}/`, { caBundle: pem }), 'policy.tls.clientCert', 'upstreamUrl');
      });
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

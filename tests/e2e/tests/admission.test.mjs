// SPDX-License-Identifier: Apache-2.0
// Who may come in: the lines of `allow`, the networks callers may come from, and what happens to somebody who is inside when they change.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, obtainToken, startWorld, tryToken } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, rpc } from '../world/http-client.mjs';
import { waitFor } from '../world/http.mjs';
import { makeUsers } from '../world/idp.mjs';

const OFFICE = '203.0.113.0/24';
const DESK = '203.0.113.9';
const ELSEWHERE = '198.51.100.7';

// The connector speaks for example.com only.
const [ANN, BOB, PARTNER, UNVERIFIED] = [0, 1, 2, 3];
function people() {
  const users = makeUsers(4);
  users[PARTNER].email = 'pat@partner.example';
  users[UNVERIFIED].email_verified = false;
  return users;
}

function resourcesOf({ echo, idp }) {
  const [, bob, partner, unverified] = idp.users;
  const server = (slug, agentAuth, policy) => ({ slug, upstreamUrl: echo.url, agentAuth, appAuth: { passthrough: {} }, policy });
  const of = (slug, allow) => server(slug, { interactive: { allow } });
  return {
    mcpServers: [
      of('by-email', { emails: [bob.email.toUpperCase(), partner.email, unverified.email] }),
      of('by-domain', { emailDomains: ['Example.com', 'partner.example'] }),
      of('by-subject', { subjects: [`corp:${partner.sub}`, `local:${bob.sub}`] }),
      of('by-any', { groups: ['corp:nobody-is-in-it'], emails: ['ghost@example.com'], subjects: [`corp:${bob.sub}`] }),
      of('nobody', {}),
      server('near', { passthrough: {} }, { allowedClientNetworks: ['127.0.0.0/8', '::1/128'] }),
      server('office', { passthrough: {} }, { allowedClientNetworks: [OFFICE] }),
      server('office-people', { interactive: { allow: { everyone: true } } }, { allowedClientNetworks: [OFFICE] }),
    ],
  };
}

for (const topology of TOPOLOGIES) {
  describe(`admission, ${topology}`, () => {
    let world;
    before(async () => {
      world = await startWorld(topology, {
        users: people(), resources: resourcesOf, gateway: { deployment: { trustedProxies: ['127.0.0.1/32'] } },
      });
    });
    after(() => world?.close());
    const list = (slug, options) => rpc(world.gateway.mcpUrl(slug), 'tools/list', {}, options);

    const ADMITTED = {
      'by-email': [BOB], 'by-domain': [ANN, BOB], 'by-subject': [PARTNER], 'by-any': [BOB], nobody: [],
    };
    for (const [slug, admitted] of Object.entries(ADMITTED)) {
      it(`${slug} admits ${admitted.length === 0 ? 'nobody' : `user ${admitted.join(' and ')}`}, and gives others no token`, async () => {
        for (const i of [ANN, BOB, PARTNER, UNVERIFIED]) {
          const { accessToken, failed } = await tryToken(world, slug, world.persona(i));
          if (admitted.includes(i)) {
            assert.equal((await list(slug, { token: accessToken })).status, 200, `user ${i}`);
          } else {
            assert.deepEqual({ step: failed?.step, status: failed?.status }, { step: 'browser', status: 403 }, `user ${i}`);
            assert.ok(failed.body.includes(slug), 'the page names the server');
          }
        }
      });
    }

    it('saving warns of a server that admits nobody', async () => {
      const nobody = world.resources.mcpServers.find(({ slug }) => slug === 'nobody');
      const answer = await world.gateway.api('sallyport.registry.v1.Registry/UpdateMcpServer', { mcpServer: { ...nobody, displayName: 'Nobody' } });
      assert.ok(answer.warnings.some(({ field }) => field === 'agentAuth.interactive.allow'), JSON.stringify(answer));
    });

    it('somebody whose line is taken away is out within two seconds, and in again when it is back', async () => {
      const { accessToken: token } = await obtainToken(world, 'by-domain', world.persona(BOB));
      assert.equal((await list('by-domain', { token })).status, 200);
      const server = world.resources.mcpServers.find(({ slug }) => slug === 'by-domain');
      await world.gateway.apply({ mcpServers: [{ ...server, agentAuth: { interactive: { allow: { emails: ['user0@example.com'] } } } }] });
      const refused = await waitFor(async () => {
        const answer = await list('by-domain', { token });
        return answer.status !== 200 && answer;
      }, 'the refusal', 2000);
      assert.equal(refused.status, 403, refused.body);
      await world.gateway.apply({ mcpServers: [server] });
      await waitFor(async () => (await list('by-domain', { token })).status === 200, 'to be let in again', 2000);
    });

    it('takes callers from the networks a server names, and believes X-Forwarded-For of a trusted proxy only as far as it goes', async () => {
      const cases = [
        ['near', undefined, 200], ['near', DESK, 403], ['office', undefined, 403], ['office', DESK, 200], ['office', ELSEWHERE, 403],
        // What the caller claimed itself stands on the left.
        ['office', `${DESK}, ${ELSEWHERE}`, 403], ['office', `${ELSEWHERE}, ${DESK}`, 200], ['office', `${DESK}, 127.0.0.1`, 200],
        ['office', 'rubbish', 403], ['office', `${DESK}, rubbish`, 403], ['office', `${DESK}:4711`, 200],
        ['office', `[::ffff:${DESK}]:4711`, 200],
        // A caller whose address nobody gives is not the proxy.
        ['near', 'unknown', 403], ['near', '_hidden', 403],
      ];
      for (const [slug, forwarded, status] of cases) {
        const answer = await callTool(world.gateway.mcpUrl(slug), 'echo', { message: 'x' },
          { headers: forwarded === undefined ? {} : { 'X-Forwarded-For': forwarded } });
        assert.equal(answer.status, status, `${slug} for ${forwarded}: ${answer.body}`);
        if (status === 403) assert.match(answer.body, /client_network/);
      }
    });

    it('refuses the network before it looks at the token', async () => {
      assert.equal((await list('office-people')).status, 403);
      assert.equal((await list('office-people', { headers: { 'X-Forwarded-For': DESK } })).status, 401);
    });

    it('records who was refused, from where, and why', async () => {
      const find = (events, wanted) => events.some((event) => Object.entries(wanted).every(([key, value]) => event[key] === value));
      const wanted = [
        { type: 'mcp.denied', serverSlug: 'office', clientAddress: ELSEWHERE, decision: 'DECISION_DENIED', rule: 'client_network' },
        { type: 'mcp.call', serverSlug: 'office', clientAddress: DESK, decision: 'DECISION_ALLOWED' },
        { type: 'mcp.denied', source: 'authn', subject: world.subject(BOB), serverSlug: 'by-domain', decision: 'DECISION_DENIED' },
      ];
      let missing;
      await waitFor(async () => {
        const events = await world.gateway.auditEvents();
        missing = wanted.filter((event) => !find(events, event));
        return missing.length === 0;
      }, 'the records', 10000, 250).catch((error) => assert.fail(`${error.message}: ${JSON.stringify(missing)}`));
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

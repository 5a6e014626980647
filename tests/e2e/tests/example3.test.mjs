// SPDX-License-Identifier: Apache-2.0
// Example 3 of the product: a search service needs the organization's key and the user's token in one request.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';

for (const topology of TOPOLOGIES) {
  describe(`Example 3, ${topology}`, () => {
    let world;
    before(async () => {
      world = await startWorld(topology, {
        users: 2,
        resources: ({ echo, secrets }) => ({
          mcpServers: [{
            slug: 'search', upstreamUrl: echo.url, agentAuth: { interactive: { allow: { everyone: true } } },
            appAuth: { bearer: { token: { value: secrets.bearer } } },
            // The prefix as people type it.
            outboundHeaders: [{ name: 'x-ms-query-source-authorization', prefix: 'Bearer', forwardCallerToken: {} }],
          }],
        }),
      });
    });
    after(() => world?.close());

    it('gets the service key on Authorization and each user\'s own sign-in token beside it', async () => {
      const seen = [];
      for (const i of [0, 1]) {
        const { accessToken } = await obtainToken(world, 'search', world.persona(i));
        const answer = await callTool(world.gateway.mcpUrl('search'), 'headers', {}, { token: accessToken });
        assert.equal(answer.status, 200, answer.body);
        const { headers } = JSON.parse(toolText(answer));
        assert.equal(headers.authorization, `Bearer ${world.secrets.bearer}`);
        const [scheme, token] = headers['x-ms-query-source-authorization'].split(' ');
        assert.equal(scheme, 'Bearer');
        assert.equal(world.idp.owners.get(token), world.idp.users[i].sub, 'the identity provider\'s token of this user');
        assert.notEqual(token, accessToken, 'and not ours');
        seen.push(token);
      }
      assert.notEqual(seen[0], seen[1]);
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

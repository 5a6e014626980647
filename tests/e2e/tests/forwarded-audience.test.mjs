// SPDX-License-Identifier: Apache-2.0
// Forwarding a token of the caller's sign-in that is for the upstream's audience: asked of the identity provider by refresh.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { decodeJwt } from 'jose';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { sleep } from '../world/http.mjs';

const DOWN = 'https://down.example/api';
const ACCESS_SECONDS = 6;

for (const topology of TOPOLOGIES) {
  describe(`a forwarded token for another audience, ${topology}`, () => {
    let world;
    before(async () => {
      world = await startWorld(topology, {
        users: 4,
        idp: { audiences: [DOWN], accessTokenSeconds: ACCESS_SECONDS },
        corp: { scopes: ['openid', 'email', 'profile', 'offline_access', 'down.read'] },
        resources: ({ echo }) => {
          const server = (slug, down, agent = {}) => ({
            slug, upstreamUrl: echo.url, agentAuth: { interactive: { allow: { everyone: true }, ...agent } }, appAuth: { passthrough: {} },
            outboundHeaders: [
              { name: 'X-Down', prefix: 'Bearer', forwardCallerToken: down },
              { name: 'X-Own', prefix: 'Bearer', forwardCallerToken: {} },
            ],
          });
          return {
            mcpServers: [
              server('down', { scopes: ['down.read'], resource: DOWN },
                { trustedConnectors: [{ connector: 'corp', audiences: ['chatbot'] }] }),
              server('nowhere', { resource: 'https://nowhere.example' }),
              server('too-much', { scopes: ['admin'], resource: DOWN }),
            ],
          };
        },
      });
    });
    after(() => world?.close());

    const call = (token, slug = 'down', options = {}) => callTool(world.gateway.mcpUrl(slug), 'headers', {}, { token, ...options });
    const seen = async (token, slug) => {
      const answer = await call(token, slug);
      assert.equal(answer.status, 200, answer.body);
      const { headers } = JSON.parse(toolText(answer));
      return { down: headers['x-down'].replace(/^Bearer /, ''), own: headers['x-own'].replace(/^Bearer /, '') };
    };

    it('is each user\'s own, for that audience, and the sign-in\'s token stays what it is', async () => {
      for (const i of [0, 1]) {
        const { accessToken } = await obtainToken(world, 'down', world.persona(i));
        const first = await seen(accessToken);
        const claims = decodeJwt(first.down);
        assert.deepEqual([claims.aud, claims.sub, claims.scope], [DOWN, world.idp.users[i].sub, 'down.read']);
        assert.notEqual(first.own, first.down);
        assert.equal(world.idp.owners.get(first.own), world.idp.users[i].sub);
        const second = await seen(accessToken);
        assert.deepEqual(second, first, 'kept while it lives');
        await sleep(ACCESS_SECONDS * 1000 + 200);
        const later = await seen(accessToken);
        assert.notEqual(later.down, first.down, 'and renewed');
        assert.notEqual(later.own, first.own, 'with the refresh token that was rotated meanwhile');
        assert.equal(decodeJwt(later.down).sub, world.idp.users[i].sub);
        assert.equal(world.idp.logins(world.idp.users[i]), 1);
      }
    });

    it('many first calls at once are all served', async () => {
      const { accessToken } = await obtainToken(world, 'down', world.persona(2));
      const answers = await Promise.all(Array.from({ length: 30 }, () => call(accessToken)));
      assert.deepEqual(answers.map(({ status }) => status), Array(30).fill(200), answers.find(({ status }) => status !== 200)?.body);
      for (const answer of answers) {
        const token = JSON.parse(toolText(answer)).headers['x-down'].replace(/^Bearer /, '');
        assert.equal(decodeJwt(token).sub, world.idp.users[2].sub);
      }
    });

    it('an audience or a scope that the provider does not give is named, and ends no sign-in', async () => {
      const { accessToken } = await obtainToken(world, 'down', world.persona(3));
      for (const [slug, code] of [['nowhere', 'invalid_target'], ['too-much', 'invalid_scope']]) {
        const { accessToken: token } = await obtainToken(world, slug, world.persona(3));
        const answer = await call(token, slug);
        assert.equal(answer.status, 502, answer.body);
        assert.match(answer.body, /token_refused/);
        assert.ok(answer.body.includes(code) && answer.body.includes('the identity provider corp'), answer.body);
        assert.equal(answer.headers['www-authenticate'], undefined);
      }
      await seen(accessToken);
    });

    it('nothing goes in its place: not a presented token, not for a local account', async () => {
      const presented = await world.idp.mint(world.idp.users[0], { audience: 'chatbot' });
      const { accessToken: local } = await obtainToken(world, 'down', world.localPersona());
      const before = world.echo.requests?.length;
      for (const token of [presented, local]) {
        const answer = await call(token);
        assert.equal(answer.status, 502, answer.body);
        assert.match(answer.body, /no_caller_token/);
      }
      assert.equal(world.echo.requests?.length, before, 'the upstream was not asked');
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

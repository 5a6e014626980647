// SPDX-License-Identifier: Apache-2.0
// Who somebody is: a group is its identity provider's alone, and what the newest sign-in says of a person holds for all they have.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { obtainToken, startWorld, tokenRequest, tryToken } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { request, rpc } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';
import { makeUsers, startIdp } from '../world/idp.mjs';

const TEAM = 'platform-team';
const AUDIENCE = 'api://crew';
const [ANN, BOB] = [0, 1];

function resourcesOf({ echo }) {
  const server = (slug, interactive) => ({ slug, upstreamUrl: echo.url, agentAuth: { interactive }, appAuth: { passthrough: {} } });
  return {
    mcpServers: [
      server('crew', {
        allow: { groups: [`corp:${TEAM}`] },
        trustedConnectors: [{ connector: 'corp', audiences: [AUDIENCE] }, { connector: 'partner', audiences: [AUDIENCE] }],
      }),
      server('open', { allow: { everyone: true } }),
    ],
  };
}

for (const topology of TOPOLOGIES) {
  describe(`identity, ${topology}`, () => {
    let world;
    let partner;
    before(async () => {
      const users = makeUsers(3).map((user) => ({ ...user, groups: [TEAM] }));
      world = await startWorld(topology, {
        users, resources: resourcesOf,
        connectors: async ({ publicUrl }) => {
          partner = await startIdp({
            users: makeUsers(1, 'partner').map((user) => ({ ...user, groups: [TEAM, `corp:${TEAM}`] })),
            clients: [{ client_id: 'gateway', client_secret: 'partner-client-secret-0123456789', redirect_uris: [`${publicUrl}/oauth/callback/partner`] }],
          });
          return [{
            id: 'partner', displayName: 'Partner login',
            oidc: { issuer: partner.issuer, clientId: 'gateway', clientSecret: 'partner-client-secret-0123456789' },
          }];
        },
        gateway: { roles: { adminGroups: [`corp:${TEAM}`], auditorGroups: [`partner:${TEAM}`] } },
      });
    });
    after(async () => {
      await world?.close();
      await partner?.close();
    });

    const stranger = () => ({ connector: 'partner', accounts: { [partner.issuer]: partner.users[0] } });
    const list = (slug, token) => rpc(world.gateway.mcpUrl(slug), 'tools/list', {}, { token });
    // What the gateway's own API gives a person, by the way of the command line tool.
    const signInToApi = (persona) => obtainToken(world, '', persona, { clientId: 'sallyport-cli', resource: `${world.gateway.publicUrl}/api` });
    const api = (method, token, body = {}) => request(`${world.gateway.publicUrl}/api/${method}`, {
      method: 'POST', headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` }, body: JSON.stringify(body),
    });
    const whoAmI = async (token) => JSON.parse((await api('sallyport.authn.v1.Authn/WhoAmI', token)).body);

    it('admits the group of the identity provider it names, and not that of another with the same name', async () => {
      const { accessToken } = await obtainToken(world, 'crew', world.persona(ANN));
      assert.equal((await list('crew', accessToken)).status, 200);
      const { failed } = await tryToken(world, 'crew', stranger());
      assert.deepEqual({ step: failed?.step, status: failed?.status }, { step: 'browser', status: 403 });
    });

    it('holds the same for tokens the providers issued themselves', async () => {
      const audience = AUDIENCE;
      assert.equal((await list('crew', await world.idp.mint(world.idp.users[ANN], { audience }))).status, 200);
      assert.equal((await list('crew', await partner.mint(partner.users[0], { audience }))).status, 403);
    });

    it('gives each provider\'s group its own role', async () => {
      const ours = await whoAmI((await signInToApi(world.persona(ANN))).accessToken);
      assert.deepEqual(ours.roles, ['ADMIN']);
      assert.deepEqual(ours.groups, [`corp:${TEAM}`]);
      const token = (await signInToApi(stranger())).accessToken;
      const theirs = await whoAmI(token);
      assert.deepEqual(theirs.roles, ['AUDITOR']);
      assert.deepEqual(theirs.groups, [`partner:${TEAM}`]);
      assert.equal((await api('sallyport.authn.v1.Authn/RevokeUser', token, { subject: world.subject(ANN) })).status, 403);
    });

    it('refuses a group that does not say whose it is, with the ways to write it', async () => {
      const bare = { ...world.resources.mcpServers[0], slug: 'bare', agentAuth: { interactive: { allow: { groups: [TEAM] } } } };
      await assert.rejects(world.gateway.apply({ mcpServers: [bare] }), (error) => {
        const text = `${error.message} ${error.stderr ?? ''}`;
        for (const connector of ['corp', 'local', 'partner']) assert.ok(text.includes(`${connector}:${TEAM}`), text);
        return true;
      });
    });

    it('takes groups away from older tokens, sessions and API tokens at the next sign-in, within a second', async () => {
      const user = world.idp.users[BOB];
      const old = await obtainToken(world, 'crew', world.persona(BOB));
      const oldApi = await signInToApi(world.persona(BOB));
      assert.equal((await list('crew', old.accessToken)).status, 200);
      assert.deepEqual((await whoAmI(oldApi.accessToken)).roles, ['ADMIN']);

      user.groups = ['another'];
      await obtainToken(world, 'open', world.persona(BOB));
      await waitFor(async () => (await list('crew', old.accessToken)).status === 403, 'the older token to lose the server', 1000);
      assert.deepEqual((await whoAmI(oldApi.accessToken)).roles ?? [], []);
      const refreshed = await tokenRequest(world, { grant_type: 'refresh_token', refresh_token: old.refreshToken, client_id: old.clientId });
      assert.equal(refreshed.status, 400, refreshed.body);
      assert.equal(refreshed.json.error, 'invalid_grant');
      // The older browser, whose session goes on, is refused as well.
      const { failed } = await tryToken(world, 'crew', world.persona(BOB), { browser: old.browser });
      assert.deepEqual({ step: failed?.step, status: failed?.status }, { step: 'browser', status: 403 });

      user.groups = [TEAM];
      await obtainToken(world, 'open', world.persona(BOB));
      await waitFor(async () => (await list('crew', old.accessToken)).status === 200, 'the older token to be good again', 1000);
    });

    it('refuses tokens of a provider that were issued before their user was revoked', async () => {
      const mint = () => world.idp.mint(world.idp.users[BOB], { audience: AUDIENCE });
      const token = await mint();
      assert.equal((await list('crew', token)).status, 200);
      await world.gateway.api('sallyport.authn.v1.Authn/RevokeUser', { subject: world.subject(BOB) });
      await waitFor(async () => (await list('crew', token)).status === 401, 'the token to be refused', 1000);
      await sleep(1100);  // `iat` has whole seconds.
      assert.equal((await list('crew', await mint())).status, 200);
    });
  });
}

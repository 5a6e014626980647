// SPDX-License-Identifier: Apache-2.0
// People whose session at the identity provider ends while the gateway's goes on: servers that forward the sign-in's token send them to
// sign in again, once, and that is enough.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../world/browser.mjs';
import { connectClient, person } from '../world/clients.mjs';
import { obtainToken, startWorld, tokenRequest, tryToken } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';

const ACCESS_SECONDS = 5;
const expired = () => sleep(ACCESS_SECONDS * 1000 + 200);
// What the upstream saw of the forwarded token.
const seen = (result) => JSON.parse(result.content[0].text).headers['x-idp-token'];
const challenge = (answer) => answer.headers['www-authenticate'] ?? '';

for (const topology of TOPOLOGIES) {
  describe(`a sign-in that ends at the identity provider, ${topology}`, () => {
    let world;
    before(async () => {
      world = await startWorld(topology, { users: 5, idp: { accessTokenSeconds: ACCESS_SECONDS } });
    });
    after(() => world?.close());

    const call = (slug, token) => callTool(world.gateway.mcpUrl(slug), 'headers', {}, { token });
    const refresh = (obtained, slug) => tokenRequest(world, {
      grant_type: 'refresh_token', refresh_token: obtained.refreshToken, client_id: obtained.clientId, resource: world.gateway.mcpUrl(slug),
    });

    // The old gateway answered 502 for ever, whatever the client did.
    for (const [i, kind] of ['sdk1', 'client2'].entries()) {
      it(`${kind} signs in again in the same browser and goes on`, async () => {
        const user = world.idp.users[i];
        const browser = new Browser();
        const openUrl = person(browser, world.persona(i));
        const { client, oauth, close } = await connectClient(kind, world.gateway.mcpUrl('idp-token'), { openUrl });
        try {
          const first = seen(await client.callTool({ name: 'headers', arguments: {} }));
          assert.match(first, /^Bearer ./);
          await expired();
          const renewed = seen(await client.callTool({ name: 'headers', arguments: {} }));
          assert.notEqual(renewed, first, 'the gateway renews the token while the session at the provider lives');
          assert.deepEqual([oauth.authorizations, world.idp.logins(user)], [1, 1]);

          await world.idp.endSession(user);
          await expired();
          // The client sends its person to the browser by itself, and says so to the application.
          await assert.rejects(client.callTool({ name: 'headers', arguments: {} }), (error) => /unauthorized/i.test(`${error.constructor.name} ${error.message}`));
          assert.equal(oauth.authorizations, 2, 'once');
          assert.equal(world.idp.logins(user), 2, 'at the identity provider, though the session with the gateway lives');
          const { searchParams } = oauth.callback;
          await client.transport.finishAuth(kind === 'sdk1' ? searchParams.get('code') : searchParams);
          const fresh = seen(await client.callTool({ name: 'headers', arguments: {} }));
          assert.match(fresh, /^Bearer ./);
          await expired();
          assert.notEqual(seen(await client.callTool({ name: 'headers', arguments: {} })), fresh, 'renewed like the first');
          assert.deepEqual([oauth.authorizations, world.idp.logins(user)], [2, 2], 'nobody is asked again');
        } finally {
          await close();
        }
      });
    }

    it('is one 401, after which neither the token nor its refresh token is worth anything', async () => {
      const user = world.idp.users[2];
      const browser = new Browser();
      const obtained = await obtainToken(world, 'idp-token', world.persona(2), { browser });
      const other = await obtainToken(world, 'echo', world.persona(2), { browser });
      const second = await obtainToken(world, 'idp-token', world.persona(2), { browser });
      await world.idp.endSession(user);
      await expired();
      const refused = await call('idp-token', obtained.accessToken);
      assert.equal(refused.status, 401, refused.body);
      assert.match(challenge(refused), /error="invalid_token"/);
      assert.match(challenge(refused), /resource_metadata="/);
      assert.doesNotMatch(refused.body, /administrator/);
      assert.equal((await refresh(obtained, 'idp-token')).json.error, 'invalid_grant');
      assert.equal((await refresh(second, 'idp-token')).json.error, 'invalid_grant', 'nor one of another client of theirs');
      assert.equal((await call('idp-token', obtained.accessToken)).status, 401);

      // Who needs no such token goes on, in this browser too.
      assert.equal((await call('echo', other.accessToken)).status, 200);
      await obtainToken(world, 'echo', world.persona(2), { browser });
      assert.equal(world.idp.logins(user), 1);

      const anew = await obtainToken(world, 'idp-token', world.persona(2), { browser });
      assert.equal(world.idp.logins(user), 2);
      assert.equal((await call('idp-token', anew.accessToken)).status, 200);
      assert.equal((await refresh(second, 'idp-token')).status, 200, 'there are tokens behind it again');
      await obtainToken(world, 'idp-token', world.persona(2), { browser });
      assert.equal(world.idp.logins(user), 2, 'the new session is as good as any');
      await waitFor(async () => (await world.gateway.auditEvents({ type: 'mcp.denied', subject: world.subject(2) }))
        .some(({ rule }) => rule === 'sign_in_ended'), 'the audit to say why');
    });

    it('leads to a page that says so when the provider refuses', async () => {
      const user = world.idp.users[3];
      const browser = new Browser();
      const obtained = await obtainToken(world, 'idp-token', world.persona(3), { browser });
      user.disabled = true;
      await world.idp.endSession(user);
      await expired();
      assert.equal((await call('idp-token', obtained.accessToken)).status, 401);
      const { failed } = await tryToken(world, 'idp-token', world.persona(3), { browser });
      assert.equal(failed?.step, 'browser');
      assert.equal(failed.status, 400);
      assert.match(failed.body, /Corporate login did not sign you in/);
      assert.match(failed.body, /this account is disabled/);
    });

    it('is not the matter of a local account, which never had such a token', async () => {
      const obtained = await obtainToken(world, 'idp-token', world.localPersona());
      const answer = await call('idp-token', obtained.accessToken);
      assert.equal(answer.status, 502, answer.body);
      assert.match(answer.body, /no_caller_token/);
      assert.equal(challenge(answer), '');
      assert.equal((await refresh(obtained, 'idp-token')).status, 200);
    });
  });
}

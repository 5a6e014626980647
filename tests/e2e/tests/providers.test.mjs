// SPDX-License-Identifier: Apache-2.0
// Providers as they are in the wild: odd token answers, grants that end without a word, clients that authenticate in one way only.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, codehostApp, defaultResources, obtainToken, startWorld, tryToken } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';

const whoami = (world, token) => callTool(world.gateway.mcpUrl('github'), 'whoami', {}, { token });
const link = (answer) => answer.message?.result?.isError && toolText(answer).match(/http\S+\/connect\/github\S*/)?.[0];

for (const topology of TOPOLOGIES) {
  describe(`a provider that answers like Slack (${topology})`, () => {
    let world;
    before(async () => { world = await startWorld(topology, { users: 2, provider: { tokenType: 'bot', sendExpiresIn: false, rotation: 'static' } }); });
    after(() => world?.close());

    it('is linked, though its tokens are called bot and no lifetime is told', async () => {
      const { accessToken } = await obtainToken(world, 'github', world.persona(0));
      assert.equal(toolText(await whoami(world, accessToken)), world.account(0));
    });

    it('is renewed when its server refuses a token, with no word to the user', async () => {
      const { accessToken } = await obtainToken(world, 'github', world.persona(1));
      assert.equal(toolText(await whoami(world, accessToken)), world.account(1));
      world.provider.settings.tokenType = 'user';
      world.provider.expireAccessTokens();
      assert.equal(toolText(await whoami(world, accessToken)), world.account(1));
      assert.deepEqual(world.provider.refreshes(world.account(1)).map(({ outcome }) => outcome), ['ok']);
    });

    // The account stays linked all the while: nothing that its user could do would help.
    it('never asks for a link while its server refuses two renewed tokens in a row and recovers', async () => {
      const { accessToken, browser } = await obtainToken(world, 'github', world.persona(0));
      world.provider.refuseCalls(3);
      const refused = await whoami(world, accessToken);
      assert.equal(refused.status, 503, refused.body);
      assert.equal(refused.message.error.data.reason, 'renewed_token_refused');
      assert.match(refused.message.error.message, /Code Host/);
      assert.ok(Number(refused.headers['retry-after']) >= 1, 'Retry-After');
      const again = await whoami(world, accessToken);
      assert.equal(again.status, 503, again.body);
      assert.equal(toolText(await whoami(world, accessToken)), world.account(0), 'at once when it recovers');
      const { connections } = await browser.api(world.gateway.publicUrl, 'sallyport.token_broker.v1.TokenBroker/ListConnections');
      assert.deepEqual(connections.map(({ state }) => state), ['linked']);
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });

  describe(`one user's grant that has ended at the provider (${topology})`, () => {
    const ACCESS = 6;
    let world;
    const tokens = [];
    before(async () => {
      world = await startWorld(topology, { users: 3, provider: { accessSeconds: ACCESS } });
      for (const i of [0, 1, 2]) tokens[i] = (await obtainToken(world, 'github', world.persona(i))).accessToken;
    });
    after(() => world?.close());

    const refused = (i) => world.provider.refreshes(world.account(i)).filter(({ outcome }) => outcome === 'refused').length;

    it('is named as such to that user only, and ends in the link once another user is renewed', async () => {
      world.provider.refuseRefresh(world.account(0), { status: 403, body: { error: 'unauthorized_client' } });
      const first = await waitFor(async () => {
        const answer = await whoami(world, tokens[0]);
        return answer.status !== 200 && answer;
      }, 'the token to end', 2 * ACCESS * 1000, 200);
      assert.equal(first.status, 503, first.body);
      assert.ok(Number(first.headers['retry-after']) >= 1, 'Retry-After');
      assert.equal(first.message.error.data.reason, 'provider_unavailable');
      assert.match(first.message.error.message, /Code Host .*unauthorized_client/);

      // The other user of the same app is renewed all the while.
      const before = world.provider.refreshes(world.account(1)).length;
      await waitFor(async () => {
        assert.equal(toolText(await whoami(world, tokens[1])), world.account(1));
        return world.provider.refreshes(world.account(1)).length > before;
      }, 'the other user to be renewed', 3 * ACCESS * 1000, 500);
      const answer = await waitFor(async () => {
        const now = await whoami(world, tokens[0]);
        return link(now) && now;
      }, 'the link', 60000, 500);
      assert.match(toolText(answer), /Connect your Code Host account/);
      const asked = refused(0);
      assert.ok(asked >= 2, 'looked at a second time');
      assert.ok(link(await whoami(world, tokens[0])));
      assert.equal(refused(0), asked, 'the provider is asked no more');
      assert.equal(toolText(await whoami(world, tokens[1])), world.account(1));
    });

    it('ends in the link at once when the provider blames the refresh token', async () => {
      world.provider.refuseRefresh(world.account(2), {
        status: 403, body: { error: 'unauthorized_client', error_description: 'refresh_token is invalid' },
      });
      await sleep(ACCESS * 1000);
      const answer = await whoami(world, tokens[2]);
      assert.ok(link(answer), answer.body);
      assert.equal(refused(2), 1);
      assert.equal(toolText(await whoami(world, tokens[1])), world.account(1));
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });

  describe(`a client secret that the provider refuses (${topology})`, () => {
    let world;
    before(async () => { world = await startWorld(topology, { users: 1 }); });
    after(() => world?.close());

    it('is what the page says, and nobody is asked to try again', async () => {
      world.provider.failNext('invalid_client');
      const { failed } = await tryToken(world, 'github', world.persona(0));
      assert.equal(failed?.status, 502);
      assert.match(failed.body, /Code Host does not accept this gateway/);
      assert.match(failed.body, /invalid_client/);
      assert.doesNotMatch(failed.body, /try again/i);
    });
  });

  for (const [clientAuth, metadata] of [
    ['basic', {}], ['post', { token_endpoint_auth_methods_supported: ['private_key_jwt', 'client_secret_post'] }]]) {
    describe(`a provider that takes client authentication by ${clientAuth} only (${topology})`, () => {
      let world;
      before(async () => {
        world = await startWorld(topology, {
          users: 1, provider: { clientAuth, metadata, accessSeconds: 4 },
          resources: (made) => {
            const { authorizationUrl, tokenUrl, revocationUrl, ...app } = codehostApp(made);
            return { ...defaultResources(made), apps: [{ ...app, issuer: made.provider.url }] };
          },
        });
      });
      after(() => world?.close());

      it('is understood by what it announces, for the code and for the refresh', async () => {
        const { accessToken } = await obtainToken(world, 'github', world.persona(0));
        assert.equal(toolText(await whoami(world, accessToken)), world.account(0));
        await sleep(4000);
        assert.equal(toolText(await whoami(world, accessToken)), world.account(0));
        const requests = world.provider.records.tokenRequests.map(({ grant, auth, outcome }) => `${grant} ${auth} ${outcome}`);
        assert.ok(requests.includes(`authorization_code ${clientAuth} ok`), requests.join());
        assert.ok(requests.includes(`refresh_token ${clientAuth} ok`), requests.join());
        assert.ok(requests.every((entry) => entry.endsWith('ok')), requests.join());
      });
    });
  }
}

// SPDX-License-Identifier: Apache-2.0
// Example 4 of the product: a chatbot acts for each of its users at a code host. Its users sign in to the chatbot alone, with the identity
// provider that it shares with the gateway; they need not know that there is one.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../world/browser.mjs';
import { assertNoSecretLeaked, codehostApp, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, request, toolText } from '../world/http-client.mjs';
import { listen, sendHtml } from '../world/http.mjs';
import { remember } from '../world/secrets.mjs';

for (const topology of TOPOLOGIES) {
  describe(`Example 4, ${topology}`, () => {
    let world;
    let chat;
    const people = [];  // { browser, idToken }

    before(async () => {
      chat = await listen((_req, res) => sendHtml(res, 200, '<h1>Chat</h1>'));
      const chatSecret = `canary-chat-${randomBytes(12).toString('base64url')}`;
      remember('client secret of the chatbot', chatSecret);
      world = await startWorld(topology, {
        users: 2,
        idp: { ownClients: ['gateway', 'chat'] },
        idpClients: [{ client_id: 'chat', client_secret: chatSecret, redirect_uris: [`${chat.url}/signed-in`] }],
        corp: { accept: ['ID_TOKEN'] },
        resources: (it) => ({
          apps: [codehostApp(it)],
          mcpServers: [{
            slug: 'github', upstreamUrl: it.provider.mcpUrl,
            agentAuth: { interactive: { allow: { everyone: true }, trustedConnectors: [{ connector: 'corp', audiences: ['chat'] }] } },
            appAuth: { oauthAuthorization: { app: 'codehost' } },
            policy: { returnOrigins: [chat.url] },
          }],
        }),
      });
      for (const i of [0, 1]) people.push(await signIn(i, chatSecret));
    });
    after(async () => {
      await world?.close();
      await chat?.close();
    });

    // The chatbot's own sign-in at the identity provider.
    const signIn = async (i, chatSecret) => {
      const browser = new Browser();
      const verifier = randomBytes(32).toString('base64url');
      const url = new URL(`${world.idp.issuer}/auth`);
      url.search = new URLSearchParams({
        client_id: 'chat', response_type: 'code', scope: 'openid email', redirect_uri: `${chat.url}/signed-in`, state: 's',
        code_challenge: createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256',
      });
      const { callback } = await browser.act(url.href, world.persona(i), { stop: (target) => target.origin === chat.url });
      const answer = await request(`${world.idp.issuer}/token`, {
        method: 'POST',
        headers: {
          'Content-Type': 'application/x-www-form-urlencoded', Authorization: `Basic ${Buffer.from(`chat:${chatSecret}`).toString('base64')}`,
        },
        body: new URLSearchParams({
          grant_type: 'authorization_code', code: callback.searchParams.get('code'), redirect_uri: `${chat.url}/signed-in`, code_verifier: verifier,
        }).toString(),
      });
      assert.equal(answer.status, 200, answer.body);
      return { browser, idToken: JSON.parse(answer.body).id_token };
    };
    const ask = (i) => callTool(world.gateway.mcpUrl('github'), 'list_pull_requests', {}, { token: people[i].idToken });
    const linkOf = (answer) => {
      assert.equal(answer.status, 200, answer.body);
      assert.equal(answer.message.result.isError, true, answer.body);
      return new URL(toolText(answer).match(/https?:\/\/\S+\/connect\/github\S*/)[0].replace(/[).]+$/, ''));
    };

    it('asks each user to connect their account once, and leads them back to the chat', async () => {
      for (const i of [0, 1]) {
        const { browser } = people[i];
        const link = linkOf(await ask(i));
        const back = `${chat.url}/conversation/${i}?from=connect`;
        link.searchParams.set('return_to', back);
        const logins = world.idp.logins(world.idp.users[i]);
        const before = browser.answers.length;
        const { callback } = await browser.act(link.href, world.persona(i), { stop: (target) => target.origin === chat.url });
        assert.equal(callback.href, back, 'as it was given');
        assert.equal(world.idp.logins(world.idp.users[i]), logins, 'nobody typed a password of theirs a second time');
        const pages = browser.answers.slice(before).filter(({ status }) => status < 300 || status >= 400);
        assert.deepEqual(pages.filter(({ url }) => url.startsWith(world.gateway.publicUrl)).map(({ url }) => url), [], 'no page of ours');
        assert.ok(pages.some(({ url }) => url.startsWith(world.provider.url)), 'the code host asked them');
      }
    });

    it('shows each user what they may see, from then on without a word', async () => {
      for (const round of [1, 2]) {
        for (const i of [0, 1]) {
          const answer = await ask(i);
          assert.equal(answer.status, 200, answer.body);
          assert.equal(JSON.parse(toolText(answer))[0].author, world.account(i), `round ${round}`);
        }
      }
    });

    it('leads nobody to an address that the administrator has not allowed', async () => {
      await people[0].browser.api(world.gateway.publicUrl, 'sallyport.token_broker.v1.TokenBroker/Disconnect', { appSlug: 'codehost' });
      const link = linkOf(await ask(0));
      for (const bad of ['https://evil.example.com/', `${chat.url}.evil.example.com/`, '//evil.example.com', 'javascript:alert(1)', '/login']) {
        link.searchParams.set('return_to', bad);
        const { page } = await people[0].browser.open(link.href);
        assert.equal(page.status, 400, `${bad}: ${page.html}`);
        assert.match(page.html, /returnOrigins/);
      }
    });

    it('gives a link to nobody but the one it was made for', async () => {
      const link = linkOf(await ask(0));
      link.searchParams.set('return_to', chat.url);
      const { page } = await people[1].browser.open(link.href);
      assert.equal(page.status, 403);
      assert.match(page.html, /link_user_mismatch/);
    });

    it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

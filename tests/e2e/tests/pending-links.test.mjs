// SPDX-License-Identifier: Apache-2.0
// Links that were begun and not finished: a user has ten of an app, the eleventh replaces the oldest, and nobody else's are touched.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startApp } from '../world/apps.mjs';
import { Browser } from '../world/browser.mjs';
import { openDatabase } from '../world/database.mjs';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { waitFor } from '../world/http.mjs';
import { inParallel } from '../world/load.mjs';

const [ANN, BOB] = [0, 1];
const MOST = 10;
const STORM = 60;
const ROUNDS_MS = 120000;

for (const topology of TOPOLOGIES) {
  describe(`links that are begun and not finished, ${topology}`, () => {
    let world;
    let vault;
    const apps = {};
    const people = [];  // { browser, tokens by server }
    const brokers = topology === 'split' ? ['token_broker', 'token_broker_2'] : ['standalone'];

    before(async () => {
      world = await startWorld(topology, { users: 2, resources: () => undefined });
      for (const slug of ['hub', 'wiki']) apps[slug] = await startApp(world, slug, { users: 2 });
      await world.gateway.apply({ apps: Object.values(apps).map(({ app }) => app), mcpServers: Object.values(apps).map(({ server }) => server) });
      vault = openDatabase(world.gateway, 'vault');
      for (const i of [ANN, BOB]) {
        const browser = new Browser();
        people[i] = { browser, tokens: {} };
        for (const slug of Object.keys(apps)) people[i].tokens[slug] = (await obtainToken(world, slug, persona(i, { skipLink: true }), { browser })).accessToken;
      }
    });
    after(async () => {
      vault?.close();
      await world?.close();
      for (const app of Object.values(apps)) await app.close();
    });

    const persona = (i, more = {}) => world.persona(i, {
      accounts: { ...world.persona(i).accounts, ...Object.fromEntries(Object.values(apps).map(({ provider, account }) => [provider.url, account(i)])) }, ...more,
    });
    // As far as the provider, whose page is not opened. Resolves with its address, in which the `state` is.
    const begin = async (i, slug) => {
      const { url } = apps[slug].provider;
      const { callback, page } = await people[i].browser.act(`${world.gateway.publicUrl}/connect/${slug}`, persona(i), { stop: ({ origin }) => origin === url });
      assert.ok(callback, page?.html);
      return callback.href;
    };
    // The rest of the way. Resolves with the page where it ends.
    const finish = async (i, address) => (await people[i].browser.act(address, persona(i))).page;
    const works = async (i, slug) => toolText(await callTool(world.gateway.mcpUrl(slug), 'whoami', {}, { token: people[i].tokens[slug] })) === apps[slug].account(i).username;
    // How many there are of each user and app, whose names begin alike.
    const pending = async () => {
      const counts = new Map();
      for (const [whose] of await vault.rows('record', ['name'], "WHERE kind = 'link_flow' AND head <> 0")) {
        counts.set(whose.split(':')[0], (counts.get(whose.split(':')[0]) ?? 0) + 1);
      }
      return [...counts.values()].sort((a, b) => a - b);
    };
    const codesExchanged = (slug) => apps[slug].provider.records.tokenRequests.filter(({ grant }) => grant === 'authorization_code').length;

    it('are ten of a user and app at most: the oldest one cannot be finished any more, and the page says so', async () => {
      const bobs = await begin(BOB, 'hub');
      const wiki = await begin(ANN, 'wiki');
      const begun = [];
      for (let n = 0; n <= MOST; n++) begun.push(await begin(ANN, 'hub'));
      assert.equal(new Set(begun.map((address) => new URL(address).searchParams.get('state'))).size, MOST + 1);
      assert.deepEqual(await pending(), [1, 1, MOST]);

      const refused = await finish(ANN, begun[0]);
      assert.equal(refused.status, 400, refused.html);
      assert.match(refused.html, /<h1>This link cannot be used<\/h1>/);
      assert.match(refused.html, /was used already, has expired, or does not belong here\. Nothing was connected\. \(link_unknown\)/);
      assert.equal(codesExchanged('hub'), 0, 'the provider is asked for no token');
      assert.equal(await works(ANN, 'hub'), false);

      // The oldest that was kept, the newest, another user's, and the same user's of another app.
      for (const [i, slug, address] of [[ANN, 'hub', begun[1]], [ANN, 'hub', begun[MOST]], [BOB, 'hub', bobs], [ANN, 'wiki', wiki]]) {
        const page = await finish(i, address);
        assert.equal(page.status, 200, page.html);
        assert.match(page.html, new RegExp(`${slug} is connected`));
        await waitFor(() => works(i, slug), `${slug} to work for ${i}`, 10000, 50);
      }
      assert.deepEqual(await pending(), [MOST - 2]);
    });

    it('are no more however many are begun at once, and whoever begins them can connect all the same', async () => {
      const bobs = await begin(BOB, 'wiki');
      await inParallel(Array.from({ length: STORM }), 8, () => begin(ANN, 'hub'));
      assert.deepEqual(await pending(), [1, MOST]);
      assert.match((await finish(BOB, bobs)).html, /wiki is connected/);
      assert.match((await finish(ANN, await begin(ANN, 'hub'))).html, /hub is connected/);
      assert.ok(await works(ANN, 'hub'));
    });

    it('are cleared away when their time is over, and cannot be finished then', async () => {
      const last = await begin(ANN, 'wiki');
      assert.ok((await pending()).length === 2, JSON.stringify(await pending()));
      await vault.exec("UPDATE record SET next_at = 1000 WHERE kind = 'link_flow' AND head <> 0");
      await waitFor(async () => (await pending()).length === 0, 'abandoned links to be cleared away', ROUNDS_MS, 250);
      const page = await finish(ANN, last);
      assert.equal(page.status, 400, page.html);
      assert.match(page.html, /link_unknown/);
      for (const broker of brokers) {
        await waitFor(async () => await world.gateway.metric(broker, 'sallyport_broker_due', { lane: 'pending_links' }) === 0, `the gauge of ${broker}`, ROUNDS_MS, 500);
      }
    });

    it('leave no secret anywhere', async () => {
      for (const app of Object.values(apps)) app.rememberSecrets();
      await assertNoSecretLeaked(world);
    });
  });
}

// SPDX-License-Identifier: Apache-2.0
// What is left behind of a team that uses an OAuth app: the audit tells who did what at which server, and the metrics tell how it went.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { assertNoSecretLeaked, defaultResources, obtainToken, startWorld, tokenRequest } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { callTool, toolText } from '../world/http-client.mjs';
import { sleep, waitFor } from '../world/http.mjs';

const skip = !TOPOLOGIES.includes('split') && 'split is not among the topologies';
const ACCESS = 4;  // seconds the app's tokens live
const CALLS = 5;  // of each user, before and after their token has run out
const AUDIENCE = 'api://closed';

// All samples of a Prometheus text: { name, labels, value }.
function parseMetrics(text) {
  return [...text.matchAll(/^([a-z_]+)(?:\{(.*)\})? (\S+)$/gm)].map(([, name, labels = '', value]) => ({
    name, value: Number(value), labels: Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, text_]) => [key, text_])),
  }));
}

// The sum of the samples of `name` whose labels include `labels`.
const total = (samples, name, labels = {}) => samples
  .filter((sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value))
  .reduce((sum, { value }) => sum + value, 0);

describe('the record of a team that uses an OAuth app, split', { skip }, () => {
  let world;
  let events;
  let metrics;  // by service
  const uids = {};
  before(async () => {
    // Each edge has a broker of its own, so that both brokers have something to tell.
    world = await startWorld('split', {
      users: 2, provider: { accessSeconds: ACCESS }, gateway: { secondEdge: true },
      resources: (made) => {
        const resources = defaultResources(made);
        resources.mcpServers.push({
          slug: 'closed', upstreamUrl: made.echo.url, appAuth: { passthrough: {} },
          agentAuth: { interactive: { allow: { groups: ['corp:admins'] }, trustedConnectors: [{ connector: 'corp', audiences: [AUDIENCE] }] } },
        });
        return resources;
      },
    });
    const { gateway, idp, provider } = world;
    for (const { slug, uid } of (await gateway.api('sallyport.registry.v1.Registry/ListMcpServers')).mcpServers) uids[slug] = uid;
    const got = [];
    for (const i of [0, 1]) got.push(await obtainToken(world, 'github', world.persona(i)));
    const headers = { Host: new URL(gateway.publicUrl).host };
    const whoami = async (i) => {
      const origin = i === 0 ? gateway.publicUrl : gateway.secondEdgeOrigin;
      const answer = await callTool(`${origin}/mcp/github`, 'whoami', {}, { token: got[i].accessToken, headers });
      assert.equal(toolText(answer), world.account(i), answer.body);
    };
    for (let n = 0; n < CALLS; n++) for (const i of [0, 1]) await whoami(i);
    await sleep(ACCESS * 1000 + 200);
    for (let n = 0; n < CALLS; n++) for (const i of [0, 1]) await whoami(i);
    await provider.decidedRefreshes();
    const renewed = await tokenRequest(world, {
      grant_type: 'refresh_token', refresh_token: got[0].refreshToken, client_id: got[0].clientId, resource: gateway.mcpUrl('github'),
    });
    assert.equal(renewed.status, 200, renewed.body);
    const stranger = await idp.mint(idp.users[1], { audience: AUDIENCE });
    assert.equal((await callTool(gateway.mcpUrl('closed'), 'echo', {}, { token: stranger })).status, 403);
    assert.equal((await callTool(gateway.mcpUrl('github'), 'whoami')).status, 401);
    await gateway.apply({ mcpServers: [{ ...world.resources.mcpServers.find(({ slug }) => slug === 'nightly'), description: 'Nightly jobs.' }] });
    events = await shipped();
  });
  after(() => world?.close());

  async function readEvents() {
    const all = [];
    for (let pageToken = ''; ;) {
      const page = await world.gateway.api('sallyport.audit.v1.Audit/ListEvents', { pageSize: 1000, pageToken });
      all.push(...page.events ?? []);
      pageToken = page.nextPageToken ?? '';
      if (!pageToken) return all;
    }
  }

  // The events, once as many are stored as the edges and brokers have shipped of what they wrote, and no outbox holds any. The metrics are
  // those of that moment.
  function shipped() {
    return waitFor(async () => {
      metrics = Object.fromEntries(Object.entries(await world.gateway.metrics()).map(([name, text]) => [name, parseMetrics(text)]));
      const stored = await readEvents();
      for (const [service, source] of [['edge', 'edge/edge'], ['edge_2', 'edge/edge_2'], ['token_broker', 'token_broker/token_broker'],
        ['token_broker_2', 'token_broker/token_broker_2']]) {
        const count = stored.filter((event) => event.source === source).length;
        if (['written', 'shipped'].some((what) => total(metrics[service], `sallyport_audit_${what}_total`) !== count)) return undefined;
      }
      const empty = ['authn', 'vault', 'registry'].every((service) => total(metrics[service], 'sallyport_audit_outbox_depth') === 0);
      // The gauge is what was seen when events were last shipped: an event that came since is not in it.
      const last = stored.some(({ source, type }) => source === 'authn' && type === 'mcp.denied');
      return empty && last && stored;
    }, 'every event to be stored', 20000, 250);
  }

  const find = (wanted) => events.filter((event) => Object.entries(wanted).every(([key, value]) => event[key] === value));

  describe('the audit', () => {
    const allowed = 'DECISION_ALLOWED';
    const denied = 'DECISION_DENIED';
    // What must be there for each of the two users; `server` by uid.
    const OF_EACH_USER = [
      ['authn', 'login', { decision: allowed }],
      ['authn', 'consent', { decision: allowed, server: 'github' }],
      ['authn', 'code.issued', { decision: allowed, server: 'github' }],
      ['authn', 'token.issued', { decision: allowed, server: 'github' }],
      ['authn', 'mcp.admitted', { decision: allowed, server: 'github', serverSlug: 'github' }],
      ['token_broker/token_broker', 'link.started', { decision: allowed, server: 'github', serverSlug: 'github' }],
      ['token_broker/token_broker', 'link.completed', { decision: allowed, server: 'github' }],
      ['vault', 'secret.write', { decision: allowed }],
      ['vault', 'secret.read', { decision: allowed, server: 'github' }],
    ];
    for (const [source, type, { server, ...fields }] of OF_EACH_USER) {
      it(`has ${type} of each user, from ${source}`, () => {
        for (const i of [0, 1]) {
          const wanted = { source, type, subject: world.subject(i), ...fields, ...(server ? { serverUid: uids[server] } : {}) };
          assert.ok(find(wanted).length > 0, `no ${JSON.stringify(wanted)} among ${JSON.stringify(find({ type }))}`);
        }
      });
    }

    it('has the renewals of both kinds of token, from either broker and from authn', () => {
      for (const [i, broker] of ['token_broker', 'token_broker_2'].entries()) {
        const [first, ...more] = find({ type: 'credential.refreshed', source: `token_broker/${broker}` });
        assert.ok(first, broker);
        for (const { subject, decision, rule, credentials } of [first, ...more]) {
          assert.deepEqual({ subject, decision, rule }, { subject: world.subject(i), decision: allowed, rule: 'renewed' });
          assert.ok(credentials[0].uid, 'which connection');
        }
      }
      assert.equal(find({ type: 'token.refreshed', source: 'authn', subject: world.subject(0), serverUid: uids.github, rule: 'refresh' }).length, 1);
    });

    it('has each call once, from the edge that served it, with tool and credential', () => {
      for (const [i, source] of ['edge/edge', 'edge/edge_2'].entries()) {
        const calls = find({ type: 'mcp.call', source, serverSlug: 'github', mcpMethod: 'tools/call' });
        assert.equal(calls.length, CALLS * 2, source);
        for (const { subject, serverUid, mcpName, decision, status, credentials, latencyUs, clientId, clientAddress } of calls) {
          assert.deepEqual({ subject, serverUid, mcpName, decision, status },
            { subject: world.subject(i), serverUid: uids.github, mcpName: 'whoami', decision: allowed, status: 200 });
          assert.equal(credentials[0].piece, 'app_auth');
          assert.ok(Number(latencyUs) > 0 && clientId && clientAddress);
        }
      }
    });

    it('has refused calls: who, if that is known, from authn, and from the edge', () => {
      const [known, ...more] = find({ type: 'mcp.denied', source: 'authn' });
      assert.deepEqual(more, []);
      assert.deepEqual({ subject: known.subject, serverUid: known.serverUid, serverSlug: known.serverSlug, decision: known.decision },
        { subject: world.subject(1), serverUid: uids.closed, serverSlug: 'closed', decision: denied });
      for (const [serverSlug, status] of [['closed', 403], ['github', 401]]) {
        const wanted = { type: 'mcp.denied', source: 'edge/edge', serverSlug, serverUid: uids[serverSlug], decision: denied, status };
        assert.ok(find(wanted).some(({ clientAddress, rule }) => clientAddress && rule), `no ${JSON.stringify(wanted)}`);
      }
    });

    it('has who configured what, and the secrets that were stored for it', () => {
      for (const [type, slug] of [['config.created', 'github'], ['config.created', 'nightly'], ['config.updated', 'nightly']]) {
        const [change, ...more] = find({ type, source: 'registry', serverSlug: slug, serverUid: uids[slug], decision: allowed });
        assert.deepEqual(more, []);
        assert.ok(change?.subject && change.clientId, `${type} ${slug}`);
        assert.equal(change.details.kind, 'McpServer');
        if (type === 'config.updated') assert.equal(change.details.fields, 'description');
      }
      const [{ subject }] = find({ type: 'config.created', serverSlug: 'nightly' });
      const ofRegistry = find({ type: 'secret.write', source: 'vault', subject }).filter(({ details }) => details.caller === 'registry');
      assert.ok(ofRegistry.some(({ details }) => details.name.startsWith(`${uids.nightly}/`)), JSON.stringify(ofRegistry));
      // The organization's secret is read by the broker on nobody's behalf.
      assert.ok(find({ type: 'secret.read', source: 'vault' }).some(({ details }) => details.caller === 'token_broker'));
    });

    it('has every event, each with its time, and none is lost', () => {
      const bySource = new Map();
      for (const event of events) {
        assert.ok(event.at && event.type && event.decision, JSON.stringify(event));
        const key = `${event.source} ${event.boot}`;
        bySource.set(key, [...bySource.get(key) ?? [], Number(event.sequence)]);
      }
      assert.deepEqual([...bySource.keys()].map((key) => key.split(' ')[0]).sort(), ['authn', 'edge/edge', 'edge/edge_2', 'registry',
        'token_broker/token_broker', 'token_broker/token_broker_2', 'vault']);
      for (const [source, sequences] of bySource) {
        assert.deepEqual(sequences.sort((a, b) => a - b), Array.from(sequences, (_value, n) => n + 1), source);
      }
      assert.deepEqual(find({ type: 'lost' }), []);
    });
  });

  describe('the names in the audit', () => {
    it('stand beside every event of their ids, from whatever service, and what a client says of itself is marked', async () => {
      for (const i of [0, 1]) {
        const { name, email } = world.idp.users[i];
        for (const type of ['login', 'mcp.call', 'secret.read', 'link.completed']) {
          for (const event of find({ type, subject: world.subject(i) })) {
            assert.deepEqual({ userName: event.userName, userEmail: event.userEmail }, { userName: name, userEmail: email }, type);
          }
        }
        const [{ clientId, selfDeclaredClientName }] = find({ type: 'mcp.call', subject: world.subject(i) });
        assert.equal(selfDeclaredClientName, 'e2e raw', clientId);
      }
    });

    it('go when an administrator erases them, from older events too', async () => {
      const { erased } = await world.gateway.api('sallyport.audit.v1.Audit/EraseNames', { subject: world.subject(1) });
      assert.equal(erased, true);
      const later = await waitFor(async () => {
        const all = await readEvents();
        return all.some(({ type }) => type === 'audit.names_erased') && all;
      }, 'the erasure to be recorded', 20000, 250);
      const { details } = later.find(({ type }) => type === 'audit.names_erased');
      assert.deepEqual(details, { user: world.subject(1) });
      const ofUser = later.filter(({ subject }) => subject === world.subject(1));
      assert.ok(ofUser.length > CALLS);
      for (const event of ofUser) assert.ok(!event.userName && !event.userEmail, JSON.stringify(event));
      assert.ok(later.some(({ subject, userEmail }) => subject === world.subject(0) && userEmail), 'and nobody else\'s');
    });
  });

  describe('the metrics', () => {
    it('count the calls of each server at each edge, their outcome and their time', () => {
      for (const edge of ['edge', 'edge_2']) {
        const recorded = find({ source: `edge/${edge}` });
        for (const slug of new Set(recorded.map(({ serverSlug }) => serverSlug))) {
          const ofServer = recorded.filter(({ serverSlug }) => serverSlug === slug);
          assert.equal(total(metrics[edge], 'sallyport_mcp_requests_total', { server: slug }), ofServer.length, `${edge}: ${slug}`);
          assert.equal(total(metrics[edge], 'sallyport_mcp_request_duration_seconds_count', { server: slug }), ofServer.length, `${edge}: ${slug}`);
          for (const [code, test] of [['2xx', (status) => status >= 200 && status < 300], ['401', (status) => status === 401], ['403', (status) => status === 403]]) {
            assert.equal(total(metrics[edge], 'sallyport_mcp_requests_total', { server: slug, code }), ofServer.filter(({ status }) => test(status)).length,
              `${edge}: ${slug} ${code}`);
          }
          assert.equal(total(metrics[edge], 'sallyport_mcp_in_flight', { server: slug }), 0);
        }
        assert.ok(total(metrics[edge], 'sallyport_mcp_upstream_duration_seconds_count', { server: 'github' }) >= CALLS * 2);
      }
      assert.equal(total(metrics.edge, 'sallyport_mcp_requests_total', { server: 'closed', code: '403' }), 1);
    });

    it('count every RPC of each service, its code and its time', () => {
      const answered = [
        ['authn', 'sallyport.authn.v1.Authn', 'Authenticate', 'PERMISSION_DENIED'], ['authn', 'sallyport.authn.v1.Authn', 'Authenticate', 'OK'],
        ['authn', 'sallyport.web.v1.Web', 'Handle', 'OK'],
        ['vault', 'sallyport.vault.v1.Vault', 'Put', 'OK'], ['vault', 'sallyport.vault.v1.Vault', 'Get', 'OK'],
        ['vault', 'sallyport.vault.v1.Vault', 'AcquireLease', 'OK'],
        ['registry', 'sallyport.registry.v1.Registry', 'Apply', 'OK'], ['registry', 'sallyport.audit.v1.Audit', 'Append', 'OK'],
        ['registry', 'sallyport.audit.v1.Audit', 'ListEvents', 'OK'],
        ['token_broker', 'sallyport.token_broker.v1.TokenBroker', 'ResolveCredentials', 'OK'],
        ['token_broker', 'sallyport.web.v1.Web', 'Handle', 'OK'],
        ['token_broker_2', 'sallyport.token_broker.v1.TokenBroker', 'ResolveCredentials', 'OK'],
      ];
      for (const [name, service, method, code] of answered) {
        assert.ok(total(metrics[name], 'sallyport_rpc_requests_total', { service, method, code }) > 0, `${name}: ${method} ${code}`);
        assert.ok(total(metrics[name], 'sallyport_rpc_duration_seconds_count', { service, method }) > 0, `${name}: ${method}`);
      }
    });

    it('count sign-ins, links and renewals by outcome, as often as the audit has them', () => {
      const count = (type) => find({ type }).length;
      assert.equal(total(metrics.authn, 'sallyport_authn_sign_ins_total', { connector: 'corp', outcome: 'signed_in' }), count('login'));
      for (const outcome of ['started', 'completed']) {
        assert.equal(total(metrics.token_broker, 'sallyport_broker_links_total', { app: 'codehost', outcome }), count(`link.${outcome}`));
      }
      for (const broker of ['token_broker', 'token_broker_2']) {
        assert.equal(total(metrics[broker], 'sallyport_broker_refreshes_total', { outcome: 'renewed' }),
          find({ type: 'credential.refreshed', source: `token_broker/${broker}` }).length, broker);
      }
      assert.equal(world.provider.refreshes().length, count('credential.refreshed'));
    });

    it('are those of the manual', async () => {
      const manual = await readFile(new URL('../../../docs/metrics.md', import.meta.url), 'utf8');
      const promised = new Set([...manual.matchAll(/^\| `(sallyport_\w+)`<br>/gm)].map(([, name]) => name));
      assert.ok(promised.size > 50);
      const exposed = new Set(Object.values(metrics).flat().map(({ name }) => name).filter((name) => name.startsWith('sallyport_'))
        .map((name) => name.replace(/_(bucket|sum|count)$/, '')));
      assert.deepEqual([...exposed].filter((name) => !promised.has(name)), [], 'exposed, not in the manual');
      // Those of events that have not happened too: an alert must see the first one as a rise from 0.
      assert.deepEqual([...promised].filter((name) => !exposed.has(name)), [], 'in the manual, not exposed');
    });
  });

  it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
});

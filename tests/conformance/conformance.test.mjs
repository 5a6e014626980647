// SPDX-License-Identifier: Apache-2.0
// The MCP conformance suite: our backend directly, the same through an Interactive route of a gateway with every check compared, and
// `authorization` mode against the gateway's own authorization server.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../e2e/world/browser.mjs';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../e2e/world/fixture.mjs';
import { request } from '../e2e/world/http-client.mjs';
import { TOPOLOGIES } from '../e2e/world/gateway.mjs';
import { freePort } from '../e2e/world/http.mjs';
import { startBackend } from './backend.mjs';
import { startShim } from './shim.mjs';
import { REVISIONS, authorizationMode, judge, regressions, serverChecks } from './suite.mjs';

describe('conformance', () => {
  let backend;
  const direct = {};
  before(async () => { backend = await startBackend(); });
  after(() => backend?.close());

  for (const revision of REVISIONS) {
    it(`the backend passes every scored scenario of ${revision} directly`, async () => {
      direct[revision] = await serverChecks(backend.url, revision);
      assert.deepEqual(await judge(revision, direct[revision]), []);
    });
  }

  for (const topology of TOPOLOGIES) {
    describe(topology, () => throughGateway(topology, () => backend, direct));
  }
});

function throughGateway(topology, backend, direct) {
  let world;
  let shim;
  before(async () => {
    world = await startWorld(topology, {
      users: 1,
      resources: ({ secrets }) => ({
        mcpServers: [{
          slug: 'conformance', upstreamUrl: backend().url, agentAuth: { interactive: { allow: { everyone: true } } },
          appAuth: { apiKey: { name: 'X-API-Key', value: { value: secrets.apiKey } } },
        }],
      }),
    });
    const { accessToken } = await obtainToken(world, 'conformance', world.persona(0));
    shim = await startShim({ target: world.gateway.mcpUrl('conformance'), token: accessToken });
  });
  after(async () => {
    await shim?.close();
    await world?.close();
  });

  for (const revision of REVISIONS) {
    it(`every scored scenario of ${revision} passes, and nothing that passes directly fails`, async () => {
      const through = await serverChecks(shim.url, revision);
      assert.deepEqual(await judge(revision, through), []);
      assert.deepEqual(regressions(direct[revision], through), []);
    });
  }

  it('the authorization server passes `authorization` mode', async () => {
    const port = await freePort();
    const registration = await request(`${world.gateway.publicUrl}/oauth/register`, {
      method: 'POST', headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({
        client_name: 'conformance', redirect_uris: [`http://127.0.0.1:${port}/callback`], token_endpoint_auth_method: 'none',
        grant_types: ['authorization_code', 'refresh_token'],
      }),
    });
    assert.equal(registration.status, 201, registration.body);
    const result = await authorizationMode({
      issuer: world.gateway.publicUrl, clientId: JSON.parse(registration.body).client_id, port,
      resource: world.gateway.mcpUrl('conformance'), openUrl: (url) => new Browser().act(url, world.persona(0)),
    });
    assert.equal(result.code, 0, result.output);
    assert.ok(result.opened, result.output);
  });

  it('leaves no secret anywhere', () => assertNoSecretLeaked(world));
}

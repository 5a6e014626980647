// SPDX-License-Identifier: Apache-2.0
// Prometheus of the tests, without a gateway.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, describe, it } from 'node:test';
import { listen, waitFor } from './http.mjs';
import { shortened, startPrometheus } from './prometheus.mjs';

const RULES = await readFile(new URL('../../../deploy/prometheus/alerts.yaml', import.meta.url), 'utf8');

describe('Prometheus of the tests', async () => {
  let sealed = 0;
  const target = await listen((_req, res) => {
    res.writeHead(200, { 'Content-Type': 'text/plain; version=0.0.4' }).end(`# TYPE sallyport_vault_sealed gauge\nsallyport_vault_sealed ${sealed}\n`);
  });
  const prometheus = await startPrometheus({ targets: { vault: new URL(target.url).host }, rules: shortened(RULES, { factor: 60 }) });
  after(async () => {
    await prometheus.close();
    await target.close();
  });

  it('fires and resolves the alerts as they are shipped', async () => {
    await waitFor(async () => (await prometheus.query('sallyport_vault_sealed')).length === 1, 'a sample');
    assert.deepEqual(await prometheus.firing(), new Set());
    sealed = 1;
    await prometheus.untilFiring(['SallyportVaultSealed']);
    sealed = 0;
    await prometheus.untilResolved(['SallyportVaultSealed']);
  });

  it('refuses a replacement that would change nothing', () => {
    assert.throws(() => shortened(RULES, { factor: 60, replace: { SallyportVaultSealed: ['== 7', '== 8'] } }), /is not in/);
    assert.match(shortened(RULES, { factor: 60, replace: { SallyportVaultSealed: ['== 1', '== 8'] } }), /sallyport_vault_sealed == 8/);
  });
});

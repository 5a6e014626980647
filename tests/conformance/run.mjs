// SPDX-License-Identifier: Apache-2.0
// Conformance, as a program:
//   node run.mjs direct                          the suite against our backend
//   node run.mjs through <mcp-url> [token]       the same through a gateway whose upstream is the backend at BACKEND_PORT
// Exit code 0 when nothing failed that expected.json does not name and nothing that passes directly fails through the gateway.
import { startBackend } from './backend.mjs';
import { startShim } from './shim.mjs';
import { REVISIONS, judgeDirect, regressions, serverChecks } from './suite.mjs';

const [mode, target, token] = process.argv.slice(2);
if (!['direct', 'through'].includes(mode) || (mode === 'through' && !target)) {
  console.error('usage: run.mjs direct | run.mjs through <mcp-url> [token]');
  process.exit(2);
}
const backend = await startBackend({ port: Number(process.env.BACKEND_PORT ?? 0) });
const shim = mode === 'through' ? await startShim({ target, token }) : undefined;
let failures = 0;
for (const revision of REVISIONS) {
  const direct = await serverChecks(backend.url, revision);
  const { unexpected, stale, passed } = await judgeDirect(revision, direct);
  const lost = shim ? regressions(direct, await serverChecks(shim.url, revision)) : [];
  console.log(`${revision}: ${passed} checks pass directly, ${unexpected.length} fail unexpectedly, ${stale.length} stale expectations` +
      (shim ? `, ${lost.length} lost through the gateway` : ''));
  for (const line of [...unexpected, ...stale.map((name) => `stale: ${name}`), ...lost]) console.log(`  ${line}`);
  failures += unexpected.length + stale.length + lost.length;
}
await shim?.close();
await backend.close();
process.exit(failures === 0 ? 0 : 1);

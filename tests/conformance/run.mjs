// SPDX-License-Identifier: Apache-2.0
// Conformance, as a program:
//   node run.mjs direct                          the suite against our backend
//   node run.mjs through <mcp-url> [token]       the same through a gateway whose upstream is the backend at BACKEND_PORT
// Exit code 0 when every scored scenario passed, nothing failed that expected.json does not name, and nothing that passes directly fails
// through the gateway.
import { startBackend } from './backend.mjs';
import { startShim } from './shim.mjs';
import { REVISIONS, judge, regressions, serverChecks } from './suite.mjs';

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
  const found = await judge(revision, direct);
  console.log(`${revision}: ${found.length} problems directly`);
  if (shim) {
    const through = await serverChecks(shim.url, revision);
    const lost = [...await judge(revision, through), ...regressions(direct, through)];
    console.log(`${revision}: ${lost.length} problems through the gateway`);
    found.push(...lost);
  }
  for (const line of found) console.log(`  ${line}`);
  failures += found.length;
}
await shim?.close();
await backend.close();
process.exit(failures === 0 ? 0 : 1);

// SPDX-License-Identifier: Apache-2.0
// Runs the conformance suite as a child process and reads its results back.
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const SUITE = fileURLToPath(new URL('../e2e/node_modules/@modelcontextprotocol/conformance/dist/index.js', import.meta.url));
export const REVISIONS = ['2025-11-25', '2026-07-28'];
const EXPECTED = new URL('./expected.json', import.meta.url);

// Runs the suite with `args`; `onLine` sees its output as it comes. Resolves with { code, output }.
export function runSuite(args, onLine = () => {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [SUITE, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let rest = '';
    const take = (chunk) => {
      output += chunk;
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      lines.forEach(onLine);
    };
    child.stdout.setEncoding('utf8').on('data', take);
    child.stderr.setEncoding('utf8').on('data', take);
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, output }));
  });
}

// Results of one run: Map from "scenario check-id #n" to { status, message }, the n-th of several checks with one id.
async function readChecks(directory) {
  const results = new Map();
  for (const entry of (await readdir(directory)).sort()) {
    const scenario = entry.replace(/^server-/, '').replace(/-\d{4}-\d\d-\d\dT.*$/, '');
    const checks = JSON.parse(await readFile(path.join(directory, entry, 'checks.json'), 'utf8'));
    const seen = new Map();
    for (const check of checks) {
      if (check.status === 'INFO') continue;
      const nth = (seen.get(check.id) ?? 0) + 1;
      seen.set(check.id, nth);
      results.set(`${scenario} ${check.id} #${nth}`, { scenario, status: check.status, message: check.errorMessage ?? '' });
    }
  }
  return results;
}

// Runs the `server` scenarios of one revision against `url`. Every scenario of the set is run, scored or not.
export async function serverChecks(url, revision) {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'conformance-'));
  try {
    await runSuite(['server', '--url', url, '--requirements', revision, '-o', directory]);
    return await readChecks(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

// Failures of a direct run that expected.json does not name, and entries of it that did not fail.
export async function judgeDirect(revision, checks) {
  const expected = JSON.parse(await readFile(EXPECTED, 'utf8'))[revision];
  const failing = [...checks].filter(([, check]) => check.status === 'FAILURE');
  return {
    unexpected: failing.filter(([, check]) => !(check.scenario in expected)).map(([key, check]) => `${key}: ${check.message}`),
    stale: Object.keys(expected).filter((scenario) => !failing.some(([, check]) => check.scenario === scenario)),
    passed: [...checks.values()].filter((check) => check.status === 'SUCCESS').length,
  };
}

// Checks that pass directly but do not through the gateway: failed, skipped or absent there.
export function regressions(direct, through) {
  const lost = [];
  for (const [key, check] of direct) {
    if (check.status !== 'SUCCESS') continue;
    const other = through.get(key);
    if (other?.status !== 'SUCCESS') lost.push(`${key}: ${other ? `${other.status} ${other.message}` : 'not reported'}`);
  }
  return lost;
}

// Runs `authorization` mode against an authorization server. `openUrl` is given the printed URL and plays the browser.
export async function authorizationMode({ issuer, clientId, clientSecret, resource, port, openUrl }) {
  const args = ['authorization', '--url', issuer, '--client-id', clientId, '-p', String(port)];
  if (clientSecret) args.push('--client-secret', clientSecret);
  if (resource) args.push('--resource', resource);
  let opened;
  const result = await runSuite(args, (line) => {
    const url = line.match(/https?:\/\/\S+response_type=code\S*/)?.[0];
    if (url && !opened) opened = openUrl(url);
  });
  await opened;
  return { ...result, opened: opened !== undefined };
}

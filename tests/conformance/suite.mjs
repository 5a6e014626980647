// SPDX-License-Identifier: Apache-2.0
// Runs the conformance suite as a child process, reads its results back and judges them.
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const SUITE = fileURLToPath(new URL('../e2e/node_modules/@modelcontextprotocol/conformance/dist/index.js', import.meta.url));
const EXPECTED = new URL('./expected.json', import.meta.url);
export const REVISIONS = ['2025-11-25', '2026-07-28'];

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

// What the suite says a server of one revision is asked: { scored: […], notScored: […] }, names of scenarios.
export async function requirements(revision) {
  const { parse } = createRequire(SUITE)('yaml');
  const { server, not_scored: rest } = parse(await readFile(path.join(path.dirname(SUITE), `../requirements/${revision}.yaml`), 'utf8'));
  return { scored: server, notScored: rest.filter(({ leg }) => leg === 'server').map(({ scenario }) => scenario) };
}

// Checks that `expected` ({ scored, notScored }: scenario -> reason) says no more than it may: a scenario the suite scores stands under
// `scored`, so that nobody takes it for one that does not count, and every entry has a reason.
export function checkExpected(revision, expected, { scored, notScored }) {
  const refuse = (text) => { throw new Error(`expected.json, ${revision}: ${text}`); };
  const sections = { scored, notScored };
  for (const name of Object.keys(expected)) if (!(name in sections)) refuse(`unknown section ${name}`);
  for (const [name, scenarios] of Object.entries(sections)) {
    for (const [scenario, reason] of Object.entries(expected[name] ?? {})) {
      if (!scenarios.includes(scenario)) refuse(`${scenario} is not one of the ${name === 'scored' ? 'scored' : 'not scored'} scenarios`);
      if (typeof reason !== 'string' || reason.trim().length < 10) refuse(`${scenario} has no reason`);
    }
  }
  return { scored: expected.scored ?? {}, notScored: expected.notScored ?? {} };
}

async function loadExpected(revision, required) {
  const all = JSON.parse(await readFile(EXPECTED, 'utf8'));
  return checkExpected(revision, all[revision], required);
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

// Runs the `server` scenarios of one revision against `url`. Every scenario of the set is run, scored or not. Resolves with
// { checks, code }: the exit code is 0 when no scored scenario failed.
export async function serverChecks(url, revision) {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'conformance-'));
  try {
    const { code } = await runSuite(['server', '--url', url, '--requirements', revision, '-o', directory]);
    return { checks: await readChecks(directory), code };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

// What is wrong with a run, as lines. Every scored scenario must have been run, with at least one check that passed and none that
// failed; failures must be named in expected.json, and what that names must fail.
export function problems({ checks, code }, { scored }, expected) {
  const named = { ...expected.scored, ...expected.notScored };
  const found = [];
  const failing = [...checks].filter(([, check]) => check.status === 'FAILURE');
  for (const [key, check] of failing) if (!(check.scenario in named)) found.push(`${key}: ${check.message}`);
  for (const scenario of Object.keys(named)) {
    if (!failing.some(([, check]) => check.scenario === scenario)) found.push(`${scenario} is expected to fail, and does not`);
  }
  for (const scenario of scored.filter((name) => !(name in expected.scored))) {
    const passed = [...checks.values()].some((check) => check.scenario === scenario && check.status === 'SUCCESS');
    if (!passed) found.push(`${scenario}: no check of it passed`);
  }
  const mayFail = Object.keys(expected.scored).length > 0;
  if (code !== 0 && !(mayFail && code === 1)) found.push(`the suite ended with exit code ${code}`);
  return found;
}

export async function judge(revision, run) {
  const required = await requirements(revision);
  return problems(run, required, await loadExpected(revision, required));
}

// Checks that pass directly but do not through the gateway: failed, skipped or absent there.
export function regressions(direct, through) {
  const lost = [];
  for (const [key, check] of direct.checks) {
    if (check.status !== 'SUCCESS') continue;
    const other = through.checks.get(key);
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

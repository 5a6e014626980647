// SPDX-License-Identifier: Apache-2.0
// A real Prometheus with a directory of its own, which scrapes every second and evaluates alerts as often.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { freePort, waitFor } from './http.mjs';
import { request } from './http-client.mjs';
import { run, start } from './processes.mjs';

const SECONDS = { s: 1, m: 60, h: 3600, d: 86400 };
const LEAST_RANGE = 10;  // seconds: a rate takes two samples, and what a test does again and again may take five
const LONGEST_FOR = 3;

// A rule file whose ranges and `for` are shorter by `factor`. replace: { alert: [what stands in its expression, what is to stand there] }, for
// thresholds that a test cannot reach; what does not stand there is an error.
export function shortened(rules, { factor, replace = {} }) {
  const short = rules
    .replace(/\[(\d+)([smhd])\]/g, (_all, n, unit) => `[${Math.max(LEAST_RANGE, Math.round(n * SECONDS[unit] / factor))}s]`)
    .replace(/^( {4}for: )(\d+)([smhd])$/gm, (_all, key, n, unit) =>
      `${key}${Math.min(LONGEST_FOR, Math.max(1, Math.round(n * SECONDS[unit] / factor)))}s`);
  return short.split(/^(?= {2}- alert: )/m).map((block) => {
    const [, name] = /^ {2}- alert: (\w+)/.exec(block) ?? [];
    if (!replace[name]) return block;
    const [from, to] = replace[name];
    const [expression] = /^ {4}expr: .*$/m.exec(block);
    assert.ok(expression.includes(from), `${name}: ${from} is not in ${expression}`);
    return block.replace(expression, expression.replace(from, to));
  }).join('');
}

// targets: { name: host:port }; the name becomes the label `instance`. rules: the text of a rule file.
export async function startPrometheus({ targets, rules }) {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'sallyport-prometheus-'));
  const rulesFile = path.join(directory, 'rules.yaml');
  await writeFile(rulesFile, rules);
  await writeFile(path.join(directory, 'prometheus.yaml'), JSON.stringify({
    global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
    rule_files: [rulesFile],
    scrape_configs: [{
      job_name: 'sallyport',
      static_configs: Object.entries(targets).map(([instance, target]) => ({ targets: [target], labels: { instance } })),
    }],
  }));
  await run('promtool', ['check', 'config', path.join(directory, 'prometheus.yaml')]);
  const port = await freePort();
  const server = start('prometheus', [
    `--config.file=${directory}/prometheus.yaml`, `--storage.tsdb.path=${directory}/data`, `--web.listen-address=127.0.0.1:${port}`,
    '--log.level=warn',
  ], { logFile: path.join(directory, 'log'), cwd: directory });
  const url = `http://127.0.0.1:${port}`;
  const get = async (place) => {
    const response = await request(`${url}${place}`, { headers: { Connection: 'close' } });
    const answer = response.body.startsWith('{') ? JSON.parse(response.body) : {};
    if (answer.status !== 'success') throw new Error(`${place}: HTTP ${response.status} ${response.body.slice(0, 500)}`);
    return answer.data;
  };
  const close = async () => {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await waitFor(async () => {
      if (!server.alive) throw Object.assign(new Error(await server.log()), { fatal: true });
      return (await request(`${url}/-/ready`, { headers: { Connection: 'close' } })).status === 200;
    }, 'Prometheus', 30000, 100);
  } catch (error) {
    await close();
    throw error;
  }
  const firing = async () => new Set((await get('/api/v1/alerts')).alerts.filter(({ state }) => state === 'firing').map(({ labels }) => labels.alertname));
  return {
    url, close,
    // An instant query's series: [{ metric, value: [time, text] }].
    query: async (expression) => (await get(`/api/v1/query?query=${encodeURIComponent(expression)}`)).result,
    // Names of the alerts that are firing.
    firing,
    // Until each of them fires at once with the others.
    untilFiring: (names, ms = 60000) => waitFor(async () => {
      const now = await firing();
      return names.every((name) => now.has(name));
    }, `${names.join(', ')} to fire`, ms, 250),
    untilResolved: (names, ms = 60000) => waitFor(async () => {
      const now = await firing();
      return names.every((name) => !now.has(name));
    }, `${names.join(', ')} to be resolved`, ms, 250),
    // Other rules from now on.
    reload: async (text) => {
      await writeFile(rulesFile, text);
      server.child.kill('SIGHUP');
    },
  };
}

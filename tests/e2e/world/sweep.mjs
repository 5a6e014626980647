// SPDX-License-Identifier: Apache-2.0
// The sweep for secrets over everything a gateway leaves behind: logs, metrics, files, databases, what went through PostgreSQL and
// Redis, and the answers that are errors or pages.
import assert from 'node:assert/strict';
import { keptAnswers } from './http-client.mjs';
import { findSecrets, remember } from './secrets.mjs';

const unescapeHtml = (text) => text.replaceAll('&quot;', '"').replaceAll('&#39;', "'").replaceAll('&amp;', '&');

// Parameters by which a browser is sent on; the pages are there to carry them.
const CARRIED = ['code', 'for', 'nonce', 'return_to', 'state', 'txn'];

function withoutCarried(address) {
  const [, before, rest] = /^(\d+;\s*url=)?(.*)$/is.exec(address);
  if (!URL.canParse(rest, 'http://relative')) return address;
  const url = new URL(rest, 'http://relative');
  for (const name of CARRIED) {
    const value = url.searchParams.get(name);
    if (value !== null) url.searchParams.set(name, name === 'return_to' ? withoutCarried(value) : '');
  }
  return `${before ?? ''}${url.href}`;
}

// A page without what it must hold: in the addresses of its links, forms and refreshes the parameters above, and in its hidden fields
// the form's token and the same. Everywhere else on the page they would be found.
export function withoutPurpose(page) {
  return page
    .replace(/\b(href|action|content)="([^"]*)"/g, (_all, name, value) => `${name}="${withoutCarried(unescapeHtml(value))}"`)
    .replace(/"refresh":"([^"]*)"/g, (_all, value) => `"refresh":"${withoutCarried(value)}"`)
    .replace(/<input\b[^>]*>/gi, (tag) => (/type="hidden"/i.test(tag) && /name="(?:csrf|for|return_to|txn)"/i.test(tag) ? '<input>' : tag));
}

// An error without the ticket of the link that it shows the user whose link it is.
export const withoutTicket = (error) => error.replace(/(\/connect\/[\w-]+\?for=)[\w.-]+/g, '$1');

function answersOf(gateway, kind) {
  return keptAnswers.filter((answer) => answer.kind === kind && [gateway.publicUrl, gateway.secondEdgeOrigin].includes(answer.origin))
    .map(({ text }) => (kind === 'page' ? withoutPurpose(text) : withoutTicket(text)));
}

// Name -> Buffer. The metrics are there only while the gateway runs.
export async function tracesOf(world) {
  const traces = await world.gateway.traces();
  for (const kind of ['error', 'page']) traces.set(`answers (${kind})`, Buffer.from(answersOf(world.gateway, kind).join('\n')));
  return traces;
}

// An empty trace would pass for a clean one: of each kind there must be what is known to be in it.
function assertTraces(world, traces, { stopped }) {
  const { gateway } = world;
  const text = (name) => traces.get(name)?.toString('latin1') ?? '';
  const absent = [];
  const need = (there, what) => { if (!there) absent.push(what); };
  const slug = world.resources?.mcpServers?.[0]?.slug;
  for (const [name, bytes] of traces) need(bytes.length > 0 || !name.startsWith('log '), `anything in ${name}`);
  for (const { name, process } of gateway.services.values()) {
    need(text(`log ${name}.log`).includes('"started"'), `"started" in the log of ${name}`);
    if (process.alive && !stopped) need(text(`metrics ${name}`).includes('sallyport_'), `metrics of ${name}`);
  }
  const kept = [...traces.keys()];
  // One that was closed and shipped is gone.
  if (!stopped) need(kept.some((name) => /^file .*audit.*\.seg$/.test(name)), 'an audit segment');
  need(kept.some((name) => /^file .*snapshot/.test(name)), 'an edge\'s snapshot');
  if (gateway.topology === 'split') {
    for (const name of ['vault', 'registry', 'authn']) need(text(`database ${name}`).includes('INSERT INTO'), `rows of ${name}`);
    if (slug) need(text('database registry').includes(slug), `${slug} in the registry's database`);
    need(/parameters: \$1 = '/.test(text('log postgres.log')), 'statements with their parameters');
    const { records, refreshes } = world.provider;
    const sent = text('log redis-monitor.log');
    if (records.mcpRequests.some(({ user }) => user)) need(sent.includes('"GET" "sallyport:token:'), 'a look into Redis');
    if (refreshes().some(({ outcome }) => outcome === 'ok')) need(sent.includes('"SET" "sallyport:token:'), 'a token on its way to Redis');
  } else if (slug) {
    need(kept.some((name) => /^file data\/.*registry/.test(name) && text(name).includes(slug)), `${slug} in the registry's database`);
  }
  assert.deepEqual(absent, [], `missing where secrets are looked for; there are ${kept.join(', ')}`);
}

// No secret in any trace the gateway left. `stopped`: it has ended, and the logs and files are as it left them.
export async function assertNoSecretLeaked(world, { stopped = false } = {}) {
  const { gateway, idp, provider, secrets, tokens } = world;
  for (const [name, value] of Object.entries(secrets)) remember(name, value);
  remember('secret of the identity provider', ...idp.secrets);
  remember('secret of the code host', ...provider.secrets);
  remember('token of ours', ...tokens);
  remember('first administrator\'s token', gateway.adminToken);
  remember('API token', gateway.apiToken);
  await gateway.rememberKeys();
  const traces = await tracesOf(world);
  assertTraces(world, traces, { stopped });
  assert.deepEqual(findSecrets(traces), []);
}

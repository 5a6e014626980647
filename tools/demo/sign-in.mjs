// SPDX-License-Identifier: Apache-2.0
// Signs the demo user in, in place of a browser: reads `sallyport login --no-browser` from standard input until it shows an address,
// then walks from there through the local login and the consent page to the redirect address.
//   sallyport login --no-browser 2>&1 | node sign-in.mjs USERNAME PASSWORD-FILE
import { readFileSync } from 'node:fs';
import http from 'node:http';
import readline from 'node:readline';

const [username, passwordFile] = process.argv.slice(2);
const cookies = new Map();
const unescapeHtml = (text) => text.replace(/&lt;/g, '<').replace(/&gt;/g, '>').replace(/&quot;/g, '"').replace(/&#0*39;/g, "'")
  .replace(/&amp;/g, '&');
const attribute = (tag, name) => {
  const value = new RegExp(`\\b${name}="([^"]*)"`).exec(tag)?.[1];
  return value === undefined ? undefined : unescapeHtml(value);
};

function visit(url, { fields, from } = {}) {
  const headers = { Accept: 'text/html', 'Sec-Fetch-Site': from ? 'same-origin' : 'none', 'Sec-Fetch-Mode': 'navigate', Connection: 'close' };
  if (cookies.size > 0) headers.Cookie = [...cookies].map((pair) => pair.join('=')).join('; ');
  const body = fields && new URLSearchParams(fields).toString();
  if (body) Object.assign(headers, { Origin: url.origin, 'Content-Type': 'application/x-www-form-urlencoded', 'Content-Length': body.length });
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method: body ? 'POST' : 'GET', headers }, async (response) => {
      for (const line of response.headers['set-cookie'] ?? []) {
        const [name, ...value] = line.split(';')[0].split('=');
        cookies.set(name, value.join('='));
      }
      let html = '';
      for await (const chunk of response.setEncoding('utf8')) html += chunk;
      resolve({ url, status: response.statusCode, html, location: response.headers.location });
    });
    request.on('error', reject).end(body);
  });
}

// The request a person would make next on this page.
function next(page) {
  if (page.location) return [new URL(page.location, page.url)];
  const refresh = /http-equiv="refresh" content="\d+; ?url=([^"]*)"/i.exec(page.html)?.[1];
  if (refresh) return [new URL(unescapeHtml(refresh), page.url)];
  const form = /<form\b([^>]*)>([\s\S]*?)<\/form>/.exec(page.html);
  if (form) {
    const fields = {};
    for (const [tag] of form[2].matchAll(/<input\b[^>]*>/g)) fields[attribute(tag, 'name')] = attribute(tag, 'value') ?? '';
    if ('password' in fields) Object.assign(fields, { username, password: readFileSync(passwordFile, 'utf8').trim() });
    if (form[2].includes('value="allow"')) fields.decision = 'allow';
    return [new URL(attribute(form[1], 'action'), page.url), { fields, from: page.url }];
  }
  const local = /href="(\/login\/local\?[^"]*)"/.exec(page.html)?.[1];
  if (local) return [new URL(unescapeHtml(local), page.url)];
  throw new Error(`nothing to do on ${page.url.pathname} (HTTP ${page.status})`);
}

async function signIn(address) {
  const start = new URL(address);
  let page = await visit(start);
  for (let step = 0; step < 20; ++step) {
    const [url, options] = next(page);
    page = await visit(url, options);
    if (url.host !== start.host) return;
  }
  throw new Error('the sign-in does not end');
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const address = /^\s+(http\S+\/oauth\/authorize\?\S+)$/.exec(line)?.[1];
  if (address) await signIn(address);
}

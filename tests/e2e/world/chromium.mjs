// SPDX-License-Identifier: Apache-2.0
// The same person as in browser.mjs, at a real browser: headless Chromium through playwright-core.
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { NO, YES } from './browser.mjs';
import { remember, rememberUrl } from './secrets.mjs';

const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

// A browser with a profile of its own and one page. `proxy`: the address of an HTTP proxy for all requests, loopback ones too.
// Resolves with { context, page, close }.
export async function openChromium({ proxy } = {}) {
  if (!existsSync(EXECUTABLE)) throw new Error(`${EXECUTABLE} is missing: run tools/setup`);
  const directory = await mkdtemp(path.join(os.tmpdir(), 'chromium-'));
  const context = await chromium.launchPersistentContext(directory, {
    executablePath: EXECUTABLE, args: FLAGS, headless: true, javaScriptEnabled: true,
    proxy: proxy ? { server: proxy, bypass: '<-loopback>' } : undefined,
  });
  const page = context.pages()[0] ?? await context.newPage();
  page.on('request', (request) => rememberUrl(request.url()));
  const close = async () => {
    remember('cookie', ...(await context.cookies()).map(({ value }) => value));
    await context.close();
    await rm(directory, { recursive: true, force: true });
  };
  return { context, page, close };
}

// Signs `persona` in at the gateway, with nothing but a session to show for it.
export async function signIn(page, publicUrl, persona) {
  await page.goto(`${publicUrl}/login?connector=${persona.connector}&return_to=/console`, { waitUntil: 'load' });
  await step(page, persona);
  await page.waitForURL(`${publicUrl}/console`);
}

// Opens `url` and plays `persona` (as in browser.mjs) until the browser is sent to a URL that `stop` accepts. Resolves with
// { callback, visited, violations }: violations are what the page's content security policy blocked.
export async function actInChromium(url, persona, { stop, timeoutMs = 60000 }) {
  const { context, page, close } = await openChromium();
  const visited = [];
  const violations = [];
  try {
    page.on('console', (message) => {
      if (/Content Security Policy|Refused to/.test(message.text())) violations.push(message.text());
    });
    let callback;
    const reached = new Promise((resolve) => {
      context.route((target) => stop(new URL(target)), (route) => {
        callback = new URL(route.request().url());
        resolve();
        return route.fulfill({ status: 200, contentType: 'text/plain', body: 'done' });
      });
    });
    page.on('framenavigated', (frame) => visited.push(frame.url()));
    const end = Date.now() + timeoutMs;
    await page.goto(url, { waitUntil: 'load' });
    let last;
    while (!callback) {
      if (Date.now() > end) throw new Error(`the flow did not end, last page ${page.url()}: ${await page.content()}`);
      const acted = await step(page, persona, last).catch(() => undefined);
      if (acted) last = acted;
      await Promise.race([reached, page.waitForTimeout(100)]);
    }
    return { callback, visited, violations };
  } finally {
    await close();
  }
}

// Does what the page asks for, once; resolves with a mark of the page acted on. `last` keeps it from clicking one page twice.
async function step(page, persona, last) {
  await page.waitForLoadState('load', { timeout: 5000 });
  const mark = `${page.url()} ${await page.title()} ${(await page.locator('body').innerText()).slice(0, 200)}`;
  if (mark === last) return undefined;
  const password = page.locator('input[type=password]').first();
  const choice = page.locator(`a[href*="connector=${persona.connector}"]`).first();
  if (persona.connector && await password.count() === 0 && await choice.count() > 0) {
    await choice.click();
    return mark;
  }
  if (await password.count() > 0) {
    const account = persona.accounts?.[new URL(page.url()).origin];
    await page.locator('input[type=text], input[type=email], input:not([type])').first().fill(account.username);
    await password.fill(account.password);
    await page.locator('form button, form input[type=submit]').first().click();
    return mark;
  }
  const radio = page.locator(`input[type=radio][name=server][value="${persona.server}"]`);
  if (persona.server && await radio.count() > 0) await radio.check();
  for (const button of await page.getByRole('button').all()) {
    const label = await button.innerText();
    if (YES.test(label) && !NO.test(label)) {
      await button.click();
      return mark;
    }
  }
  return undefined;
}

// SPDX-License-Identifier: Apache-2.0
// A scripted browser: cookies, redirects, refresh pages, forms, and the headers a real browser adds. No JavaScript is run, so a flow
// that passes here works without any.
import { request } from './http-client.mjs';

const unescapeHtml = (text) => text.replace(/&#x([0-9a-f]+);/gi, (_m, hex) => String.fromCodePoint(parseInt(hex, 16)))
  .replace(/&#(\d+);/g, (_m, n) => String.fromCodePoint(Number(n)))
  .replace(/&quot;/g, '"').replace(/&apos;/g, "'").replace(/&lt;/g, '<').replace(/&gt;/g, '>').replace(/&amp;/g, '&');

function attributes(tag) {
  const found = {};
  for (const match of tag.matchAll(/([a-zA-Z_:][-\w:.]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?/g)) {
    found[match[1].toLowerCase()] = unescapeHtml(match[2] ?? match[3] ?? match[4] ?? '');
  }
  return found;
}

// The forms of a page: { action, method, fields: { name: value }, types: { name: type }, buttons: [{ name, value, text }], choices:
// { name: [value] } }; choices are the radio buttons, none of which is chosen unless the page did it.
export function parseForms(html, base) {
  return [...html.matchAll(/<form\b([^>]*)>([\s\S]*?)<\/form>/gi)].map(([, head, inner]) => {
    const own = attributes(head);
    const form = {
      action: new URL(own.action || base, base).href, method: (own.method || 'get').toUpperCase(), fields: {}, types: {}, buttons: [], choices: {},
    };
    for (const [, tag] of inner.matchAll(/<input\b([^>]*)>/gi)) {
      const input = attributes(tag);
      const type = input.type ?? 'text';
      if (type === 'radio' && input.name) (form.choices[input.name] ??= []).push(input.value ?? 'on');
      if (type === 'submit') form.buttons.push({ name: input.name, value: input.value ?? '', text: input.value ?? '' });
      else if (input.name && (!['checkbox', 'radio'].includes(type) || 'checked' in input)) {
        form.fields[input.name] = input.value ?? (type === 'checkbox' ? 'on' : '');
        form.types[input.name] = type;
      }
    }
    for (const [, tag, label] of inner.matchAll(/<button\b([^>]*)>([\s\S]*?)<\/button>/gi)) {
      const button = attributes(tag);
      form.buttons.push({ name: button.name, value: button.value ?? '', text: unescapeHtml(label.replace(/<[^>]*>/g, ' ')).trim() });
    }
    return form;
  });
}

export function parseLinks(html, base) {
  return [...html.matchAll(/<a\b([^>]*)>([\s\S]*?)<\/a>/gi)].map(([, tag, label]) => {
    const { href } = attributes(tag);
    return href === undefined ? undefined
      : { url: new URL(href, base).href, text: unescapeHtml(label.replace(/<[^>]*>/g, ' ')).trim() };
  }).filter(Boolean);
}

function refreshTarget(page) {
  const header = page.headers.refresh;
  const meta = page.html.match(/<meta\b[^>]*http-equiv\s*=\s*["']?refresh["']?[^>]*>/i)?.[0];
  const content = header ?? (meta ? attributes(meta).content : undefined);
  const target = content?.match(/^\s*\d+\s*;\s*url\s*=\s*['"]?([^'"]*)['"]?\s*$/i)?.[1];
  return target === undefined ? undefined : new URL(target, page.url).href;
}

// Labels of the buttons that agree, and of those that do not.
export const YES = /approve|allow|authori[sz]e|continue|accept|^yes|connect|link|sign in|log ?in/i;
export const NO = /deny|cancel|not now|don.t|^no\b|decline|reject|sign out|switch/i;

export class Browser {
  // Every URL that was asked for, in order; and what came: { url, status, html }.
  visited = [];
  answers = [];

  #jar = new Map();  // host -> Map(name -> value): cookies do not distinguish ports, so a host is a host name

  // A browser request without following anything. Resolves with { url, status, headers, html, forms, links, location }.
  async fetch(url, { method = 'GET', fields, raw, from, noReferrer = false, headers = {} } = {}) {
    const target = new URL(url);
    const all = {
      'User-Agent': 'Mozilla/5.0 (scripted)', Accept: 'text/html,application/xhtml+xml,*/*;q=0.8', 'Accept-Language': 'en',
      'Sec-Fetch-Mode': 'navigate', 'Sec-Fetch-Dest': 'document', 'Sec-Fetch-User': '?1',
      'Sec-Fetch-Site': !from ? 'none' : new URL(from).origin === target.origin ? 'same-origin' : 'same-site',
      ...headers,
    };
    const cookies = [...(this.#jar.get(target.hostname) ?? [])].map(([name, value]) => `${name}=${value}`);
    if (cookies.length > 0) all.Cookie = cookies.join('; ');
    let body = raw;
    if (fields) {
      body = new URLSearchParams(fields).toString();
      all['Content-Type'] = 'application/x-www-form-urlencoded';
      // A page under the policy no-referrer sends its forms without an origin.
      if (from) all.Origin = noReferrer ? 'null' : new URL(from).origin;
    }
    this.visited.push(target.href);
    const response = await request(target.href, { method, headers: all, body });
    for (const line of response.headers['set-cookie'] ?? []) this.#store(target.hostname, line);
    const page = {
      url: target.href, status: response.status, headers: response.headers, html: response.body,
      location: response.headers.location ? new URL(response.headers.location, target).href : undefined,
    };
    this.answers.push({ url: page.url, status: page.status, html: page.html });
    page.forms = parseForms(page.html, page.url);
    page.links = parseLinks(page.html, page.url);
    return page;
  }

  // One call of the gateway's HTTP API the way its own pages would make it: with the session cookie, from the same origin.
  async api(origin, method, body = {}) {
    const response = await this.fetch(`${origin}/api/${method}`, {
      method: 'POST', from: `${origin}/`, raw: JSON.stringify(body),
      headers: { 'Content-Type': 'application/json', Origin: origin, 'Sec-Fetch-Mode': 'cors', 'Sec-Fetch-Dest': 'empty', Accept: '*/*' },
    });
    if (response.status !== 200) throw new Error(`${method}: HTTP ${response.status} ${response.html}`);
    return JSON.parse(response.html);
  }

  cookie(host, name) {
    return this.#jar.get(host)?.get(name);
  }

  // As when the person signs out there.
  dropCookie(host, name) {
    this.#jar.get(host)?.delete(name);
  }

  cookieNames(host) {
    return [...(this.#jar.get(host)?.keys() ?? [])];
  }

  #store(host, line) {
    const [pair, ...rest] = line.split(';');
    const at = pair.indexOf('=');
    const name = pair.slice(0, at).trim();
    const jar = this.#jar.get(host) ?? new Map();
    this.#jar.set(host, jar);
    const gone = rest.some((part) => /^\s*max-age\s*=\s*(0|-\d+)\s*$/i.test(part) ||
        (/^\s*expires\s*=/i.test(part) && Date.parse(part.split('=')[1]) < Date.now()));
    if (gone) jar.delete(name);
    else jar.set(name, pair.slice(at + 1).trim());
  }

  // Loads a page, following redirects and refresh pages until one stays. A URL that `stop` accepts is not fetched but returned as
  // { callback: URL }.
  async open(url, { stop = () => false, ...options } = {}) {
    let page;
    let next = url;
    let step = options;
    for (let hop = 0; hop < 30; hop++) {
      if (stop(new URL(next))) return { callback: new URL(next), page };
      page = await this.fetch(next, step);
      const target = page.status >= 300 && page.status < 400 ? page.location : refreshTarget(page);
      if (!target) return { page };
      const keeps = page.status === 307 || page.status === 308;
      step = keeps ? { ...step, from: page.url } : { from: page.url };
      next = target;
    }
    throw new Error(`too many redirects, last ${next}`);
  }

  async submit(page, form, { fields = {}, button, stop } = {}) {
    const all = { ...form.fields, ...fields };
    if (button?.name) all[button.name] = button.value;
    if (form.method === 'GET') {
      const target = new URL(form.action);
      target.search = new URLSearchParams(all).toString();
      return this.open(target.href, { from: page.url, stop });
    }
    const noReferrer = page.headers['referrer-policy'] === 'no-referrer';
    return this.open(form.action, { method: 'POST', fields: all, from: page.url, noReferrer, stop });
  }

  // Plays a person until `stop` accepts a URL or a page is reached that asks for nothing more. `persona`:
  //   accounts    { origin: { username, password } }: what to type into a password form served by that origin
  //   connector   which way to sign in to choose where the gateway offers several
  //   approve     answers consent pages (default true)
  //   server      slug of the server to choose where a client named none
  //   skipLink    answers "not now" where the gateway asks to connect an account
  async act(url, persona, { stop } = {}) {
    let at = await this.open(url, { stop });
    for (let step = 0; step < 20; step++) {
      if (at.callback) return at;
      const next = this.#decide(at.page, persona);
      if (!next) return at;
      at = next.link ? await this.open(next.link, { from: at.page.url, stop })
        : await this.submit(at.page, next.form, { ...next, stop });
    }
    throw new Error(`the flow did not end, last page ${at.page.url}`);
  }

  #decide(page, persona) {
    if (page.status >= 400) return undefined;
    const chosen = persona.connector && this.#choice(page, persona.connector);
    if (chosen) return chosen;
    const onLinkPage = new URL(page.url).pathname.startsWith('/connect/');
    if (onLinkPage && persona.skipLink) {
      const way = page.links.find(({ text }) => NO.test(text));
      if (way) return { link: way.url };
    }
    const account = persona.accounts?.[new URL(page.url).origin];
    const login = page.forms.find((form) => Object.values(form.types).includes('password'));
    if (login) {
      if (!account) throw new Error(`no account for the login page ${page.url}`);
      const password = Object.keys(login.types).find((name) => login.types[name] === 'password');
      const username = Object.keys(login.types).find((name) => ['text', 'email'].includes(login.types[name]));
      return { form: login, fields: { [username]: account.username, [password]: account.password }, button: login.buttons[0] };
    }
    const yes = persona.approve !== false && !(onLinkPage && persona.skipLink);
    for (const form of page.forms) {
      const button = form.buttons.find((candidate) => yes ? YES.test(candidate.text) && !NO.test(candidate.text) : NO.test(candidate.text));
      if (!button) continue;
      const offered = form.choices.server;
      if (!offered || !yes) return { form, button };
      // A browser would not send it.
      if (!offered.includes(persona.server)) throw new Error(`no choice for ${page.url}, which offers ${offered}`);
      return { form, button, fields: { server: persona.server } };
    }
    return undefined;
  }

  // A page that offers several ways to sign in: a link that names the connector.
  #choice(page, connector) {
    const link = page.links.find(({ url }) => new URL(url).searchParams.get('connector') === connector);
    return link && !page.forms.some((form) => Object.values(form.types).includes('password')) ? { link: link.url } : undefined;
  }
}

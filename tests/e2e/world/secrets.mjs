// SPDX-License-Identifier: Apache-2.0
// What is secret in a test run, and the search for it. Whatever hands out a secret or sees one go by remembers it here, for the whole
// process: a secret of one world must not turn up in another's traces either.

import { randomBytes } from 'node:crypto';

// Shorter values turn up by chance.
const SHORTEST = 8;

// The bytes as text (latin1) -> what it is.
const known = new Map();

const bytesOf = (value) => (Buffer.isBuffer(value) ? value : Buffer.from(String(value))).toString('latin1');

// Values are text or Buffers; undefined ones and those too short to be looked for are passed over.
export function remember(what, ...values) {
  for (const value of values) {
    if (value === undefined || value === null) continue;
    const bytes = bytesOf(value);
    if (bytes.length >= SHORTEST && !known.has(bytes)) known.set(bytes, what);
  }
}

// Each is [bytes as latin1 text, what it is].
export const remembered = () => [...known];

// Parameters of addresses and forms that are secret, at whichever party.
const FIELDS = new Set([
  'access_token', 'client_secret', 'code', 'code_verifier', 'csrf', 'for', 'id_token', 'nonce', 'password', 'refresh_token', 'state',
  'subject_token', 'token', 'txn',
]);

// Of a URLSearchParams or an object.
export function rememberFields(fields) {
  for (const [name, value] of fields instanceof URLSearchParams ? fields : Object.entries(fields ?? {})) {
    if (FIELDS.has(name)) remember(name, value);
    if (name === 'return_to') rememberUrl(value);
  }
}

export function rememberUrl(url) {
  if (URL.canParse(url, 'http://relative')) rememberFields(new URL(url, 'http://relative').searchParams);
}

// Of a JSON text, wherever in it they are.
export function rememberJson(text) {
  for (const [, name, value] of text.matchAll(/"(\w+)"\s*:\s*"([^"\\]+)"/g)) if (FIELDS.has(name)) remember(name, value);
}

const HEADERS = { authorization: 'credential', 'x-sallyport-authorization': 'credential', 'mcp-session-id': 'session id' };

// `list` is the headers, flat.
export function rememberRequest(url, list, body) {
  rememberUrl(url.href);
  for (let i = 0; i < list.length; i += 2) {
    const name = list[i].toLowerCase();
    const value = String(list[i + 1]);
    if (HEADERS[name]) remember(HEADERS[name], value.replace(/^\w+ /, ''));
    if (name === 'content-type' && value.includes('form-urlencoded')) rememberFields(new URLSearchParams(String(body)));
  }
}

export function rememberResponse(url, response, body) {
  for (const line of response.headers['set-cookie'] ?? []) remember('cookie', line.slice(line.indexOf('=') + 1).split(';')[0]);
  remember('session id', response.headers['mcp-session-id']);
  if (response.headers.location) rememberUrl(new URL(response.headers.location, url).href);
  if (/"(access_token|client_secret)"/.test(body)) rememberJson(body);
}

// The ways a value may hide: as it is, URL-encoded, escaped for JSON, HTML or SQL, in hex, and in base64 at each of the three
// alignments, in both alphabets. All as latin1 text of the bytes.
export function disguises(secret) {
  const bytes = Buffer.isBuffer(secret) ? secret : Buffer.from(secret);
  const forms = new Set([bytes.toString('latin1'), bytes.toString('hex'), bytes.toString('hex').toUpperCase()]);
  const text = bytes.toString('utf8');
  if (Buffer.from(text).equals(bytes)) {
    for (const form of [
      encodeURIComponent(text), new URLSearchParams({ s: text }).toString().slice(2), JSON.stringify(text).slice(1, -1),
      text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;').replaceAll("'", '&#39;'),
      text.replaceAll("'", "''"),
    ]) forms.add(bytesOf(form));
  }
  for (let shift = 0; shift < 3; shift++) {
    const whole = Buffer.concat([Buffer.alloc(shift), bytes]).toString('base64').replace(/=+$/, '');
    const inner = whole.slice(Math.ceil((shift * 8) / 6), Math.floor(((shift + bytes.length) * 8) / 6));
    forms.add(inner).add(inner.replaceAll('+', '-').replaceAll('/', '_'));
  }
  return [...forms].filter((form) => form.length >= SHORTEST);
}

const TAIL = 8;
const BITS = 20;

// Finds many strings in one pass over the bytes: a table says where the last eight bytes of one may have been met, the rest is compared
// there. The last, because tokens of one kind begin alike.
export class Search {
  #table = new Uint8Array(1 << BITS);
  #byTail = new Map();

  // `form` is latin1 text of TAIL bytes or more; `what` is given back for it.
  add(form, what) {
    const tail = form.slice(-TAIL);
    let high = 0;
    let low = 0;
    for (let i = 0; i < TAIL; i++) {
      high = (high << 8) | (low >>> 24);
      low = (low << 8) | tail.charCodeAt(i);
    }
    this.#table[Search.#slot(high, low)] = 1;
    const group = this.#byTail.get(tail);
    if (group) group.push([form, what]);
    else this.#byTail.set(tail, [[form, what]]);
  }

  static #slot(high, low) {
    const mixed = Math.imul(high, 0x9e3779b1) ^ Math.imul(low, 0x85ebca6b);
    return (mixed ^ (mixed >>> 15)) >>> (32 - BITS);
  }

  // All occurrences: [{ what, at }], `at` being where it begins.
  in(bytes) {
    const found = [];
    let high = 0;
    let low = 0;
    for (let i = 0; i < bytes.length; i++) {
      high = (high << 8) | (low >>> 24);
      low = (low << 8) | bytes[i];
      if (this.#table[Search.#slot(high, low)] === 0 || i < TAIL - 1) continue;
      for (const [form, what] of this.#byTail.get(bytes.latin1Slice(i + 1 - TAIL, i + 1)) ?? []) {
        const at = i + 1 - form.length;
        if (at >= 0 && bytes.latin1Slice(at, i + 1) === form) found.push({ what, at });
      }
    }
    return found;
  }
}

// Parts that only secrets have, looked for in every disguise.
const MARKS = new Map([
  ['canary-', 'a secret of the tests'],
  [' PRIVATE KEY-----', 'a private key (PEM)'],
  ['"pkcs8":"', 'the keys authn signs with'],
  ['eyJhbGciOi', 'a JWT'],
  ['eyJ0eXAiOi', 'a JWT'],
  ['$scrypt$ln=', 'a password hash, which is in the configuration alone'],
]);
// PKCS #8 of a P-256 key, up to the key.
const EC_KEY = Buffer.from('308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420', 'hex');

function checksum(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

// A refresh token as authn makes it.
export function newRefreshToken() {
  const bytes = randomBytes(36);
  bytes.writeUInt32BE(checksum(bytes.subarray(0, 32)), 32);
  return `spr_${bytes.toString('base64url')}`;
}

function isOurRefreshToken(token) {
  const bytes = Buffer.from(token.slice(4), 'base64url');
  return bytes.length === 36 && checksum(bytes.subarray(0, 32)) === bytes.readUInt32BE(32);
}

// Whole tokens by their shape, as they are. Sealed values are base64url too, so a short prefix alone turns up in them by chance: it must
// stand at the beginning of a word, or be borne out by the token itself. Bounded, so that a long trace cannot exhaust the matcher.
const SHAPES = [
  ['a secret of the tests', /canary-/g],
  ['a JWT', /eyJ[\w-]{8,1000}\.eyJ[\w-]{8}/g],
  ['a refresh token of ours', /spr_[\w-]{48}/g, isOurRefreshToken],
  ['an access token of ours', /(?<![\w-])spa_[\w-]{16}/g],
  ['a client secret of ours', /(?<![\w-])spc_[\w-]{43}(?![\w-])/g],
  ['the first administrator\'s token', /spadm_[\w-]{43}/g],
  ['a sealed request state', /(?<![\w-])sp1\.[\w-]{38}/g],
  ['a token or code of the provider', /(?<![\w-])(?:pat|prt|cod)_[\w-]{24}(?![\w-])/g],
  ['a private JWK', /"d"\s*:\s*"[\w-]{20,1000}"/g],
];

// For reports: what stands before, without what may be the secret itself.
const context = (bytes, at) => bytes.latin1Slice(Math.max(0, at - 80), at).replace(/[^\x20-\x7e]+/g, '·');

// Everything secret in `traces` (name -> Buffer): ["<trace>: <what it is> after …<text before it>"], one of a kind and trace.
export function findSecrets(traces) {
  const search = new Search();
  for (const [secret, what] of remembered()) {
    for (const form of disguises(Buffer.from(secret, 'latin1'))) search.add(form, `${what} ${JSON.stringify(secret.slice(0, 12))}…`);
  }
  for (const [mark, what] of [...MARKS, [EC_KEY, 'a private key (DER)']]) {
    for (const form of disguises(mark)) search.add(form, what);
  }
  const found = new Map();
  for (const [trace, bytes] of traces) {
    const add = (what, at) => {
      const key = `${trace}: ${what}`;
      if (!found.has(key)) found.set(key, `${key} after ${context(bytes, at)}`);
    };
    for (const { what, at } of search.in(bytes)) add(what, at);
    const text = bytes.toString('latin1');
    for (const [what, shape, confirmed = () => true] of SHAPES) {
      for (const match of text.matchAll(shape)) if (confirmed(match[0])) add(`${what} (by its shape)`, match.index);
    }
  }
  return [...found.values()];
}

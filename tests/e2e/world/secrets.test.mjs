// SPDX-License-Identifier: Apache-2.0
// The search for secrets finds what it is meant to find, and lets pass no more than it says.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { findSecrets, remember, rememberRequest, rememberResponse } from './secrets.mjs';
import { withoutPurpose, withoutTicket } from './sweep.mjs';

const found = (bytes) => findSecrets(new Map([['trace', Buffer.from(bytes)]]));
const fresh = (what) => `${what}-${randomBytes(9).toString('base64url')}`;

describe('the search for secrets', () => {
  const secret = 'key-åß/+&="\' of a test';
  remember('test', secret);

  it('finds a secret as it is, URL-encoded, escaped, in hex, and in base64 at any place in either alphabet', () => {
    const bytes = Buffer.from(secret);
    for (const text of [
      `x=${secret}!`, secret, `x=${encodeURIComponent(secret)}`, new URLSearchParams({ x: secret }).toString(),
      JSON.stringify({ x: secret }), `<p>${secret.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll("'", '&#39;')}</p>`,
      `VALUES ('${secret.replaceAll("'", "''")}')`, bytes.toString('hex'), `\\x${bytes.toString('hex').toUpperCase()}`,
    ]) assert.equal(found(text).length, 1, text);
    for (const before of ['', 'a', 'ab', 'user:', 'longer prefix ']) {
      for (const after of ['', 'z', 'zz', ' and more']) {
        for (const encoding of ['base64', 'base64url']) {
          assert.equal(found(Buffer.from(before + secret + after).toString(encoding)).length, 1, `${before}|${after}`);
        }
      }
    }
  });

  it('finds a secret that is bytes, among bytes', () => {
    const key = randomBytes(32);
    remember('key', key);
    assert.match(found(Buffer.concat([randomBytes(100), key, randomBytes(100)]))[0], /^trace: key /);
    assert.match(found(`{"k":"${Buffer.concat([Buffer.from('12'), key]).toString('base64')}"}`)[0], /^trace: key /);
  });

  it('is not set off by something else', () => {
    for (const text of [
      'key-of another kind', Buffer.from('nothing of interest in here').toString('base64'), randomBytes(1 << 20),
      randomBytes(1 << 20).toString('base64url'), 'the prefix spr_ and sp1. in a text', '{"kty":"EC","x":"abc","y":"def"}', '-----BEGIN PUBLIC KEY-----',
    ]) assert.deepEqual(found(text), [], String(text).slice(0, 40));
  });

  it('knows tokens and keys by their shape, without having seen them', () => {
    const words = () => randomBytes(32).toString('base64url');
    const jwt = `eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.${words()}`;
    // 32 bytes and their CRC-32, as authn makes them.
    const refresh = `spr_${Buffer.concat([Buffer.alloc(32), Buffer.from('190a55ad', 'hex')]).toString('base64url')}`;
    const pem = ['-----BEGIN', 'PRIVATE', 'KEY-----'].join(' ');  // Not in one word: no key lies in the tree.
    for (const text of [
      `"token":"${jwt}"`, Buffer.from(`x${jwt}`).toString('base64'), `x${refresh}y`, ` spc_${words()} `, `"spadm_${words()}"`, `'sp1.${words()}'`,
      `pat_${randomBytes(18).toString('base64url')}`, pem, Buffer.from(pem).toString('base64'),
      `{"kty":"EC","d":"${words()}"}`, '$scrypt$ln=15,r=8,p=1$', 'canary-x', Buffer.from('a canary-x').toString('base64url'),
      'MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg', Buffer.from('{"keys":[{"pkcs8":"x"}]}').toString('base64'),
    ]) assert.ok(found(text).length > 0, text);
    assert.deepEqual(found(`spr_${randomBytes(36).toString('base64url')}`), [], 'the checksum tells a token from chance');
  });

  it('learns from every request and answer', () => {
    const names = ['code', 'state', 'bearer', 'verifier', 'refresh', 'cookie', 'access', 'next', 'txn', 'session'];
    const value = Object.fromEntries(names.map((name) => [name, fresh(name)]));
    const url = new URL(`http://host/callback?code=${value.code}&state=${value.state}&return_to=${encodeURIComponent(`/on?txn=${value.txn}`)}`);
    rememberRequest(url, ['Authorization', `Bearer ${value.bearer}`, 'Content-Type', 'application/x-www-form-urlencoded'],
      `code_verifier=${value.verifier}&refresh_token=${value.refresh}`);
    rememberResponse(url, { headers: {
      'set-cookie': [`name=${value.cookie}; Path=/`], location: `/next?code=${value.next}`, 'mcp-session-id': value.session,
    } }, JSON.stringify({ access_token: value.access }));
    for (const name of names) assert.equal(found(`<${value[name]}>`).length, 1, name);
  });
});

describe('what a page or an error may hold', () => {
  const value = Object.fromEntries(['code', 'state', 'txn', 'csrf', 'ticket'].map((name) => [name, fresh(name)]));
  remember('test', ...Object.values(value));
  const on = `http://client/cb?code=${value.code}&amp;state=${value.state}`;

  it('is the way on and the form\'s token, in their places', () => {
    const page = `{"refresh":"0;url=http://client/cb?code=${value.code}"}\n<meta http-equiv="refresh" content="0;url=${on}"><a href="${on}">On</a>` +
        `<form action="/oauth/consent?txn=${value.txn}"><input type="hidden" name="csrf" value="${value.csrf}">` +
        `<input type="hidden" name="txn" value="${value.txn}"></form><a href="/login?return_to=%2Foauth%2Fcontinue%3Ftxn%3D${value.txn}">x</a>`;
    assert.ok(found(page).length >= 4);
    assert.deepEqual(found(withoutPurpose(page)), []);
    const error = `{"error":{"code":-32042,"data":{"url":"http://gw/connect/github?for=${value.ticket}"}}}`;
    assert.equal(found(error).length, 1);
    assert.deepEqual(found(withoutTicket(error)), []);
  });

  it('is nothing in any other place', () => {
    for (const page of [
      `<p>${value.code}</p>`, `<a href="/x?access_token=${value.code}">x</a>`, `<a href="/${value.state}">x</a>`, `<p title="${value.txn}">`,
      `<input type="text" name="csrf" value="${value.csrf}">`, `<input type="hidden" name="other" value="${value.csrf}">`,
      `<a href="/login?return_to=%2Fx%3Faccess_token%3D${value.txn}">x</a>`,
    ]) assert.equal(found(withoutPurpose(page)).length, 1, page);
    for (const error of [`{"error":"${value.ticket}"}`, `{"error":"/connect/github?txn=${value.txn}"}`]) {
      assert.equal(found(withoutTicket(error)).length, 1, error);
    }
  });
});

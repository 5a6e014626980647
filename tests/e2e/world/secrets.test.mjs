// SPDX-License-Identifier: Apache-2.0
// The search for secrets finds what it is meant to find.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { disguises } from './fixture.mjs';

describe('the search for secrets', () => {
  const secret = 'canary-åß/+&= key';
  const found = (text) => disguises(secret).some((form) => Buffer.from(text).includes(form));

  it('finds a secret as it is, URL-encoded, and in base64 at any place in either alphabet', () => {
    assert.ok(found(`x=${secret}!`));
    assert.ok(found(`x=${encodeURIComponent(secret)}`));
    assert.ok(found(new URLSearchParams({ x: secret }).toString()));
    for (const before of ['', 'a', 'ab', 'user:', 'longer prefix ']) {
      for (const after of ['', 'z', 'zz', ' and more']) {
        assert.ok(found(Buffer.from(before + secret + after).toString('base64')), `${before}|${after}`);
        assert.ok(found(Buffer.from(before + secret + after).toString('base64url')), `${before}|${after}`);
      }
    }
  });

  it('is not set off by something else', () => {
    assert.ok(!found('canary-of-another-kind'));
    assert.ok(!found(Buffer.from('nothing of interest in here').toString('base64')));
  });
});

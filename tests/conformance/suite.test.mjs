// SPDX-License-Identifier: Apache-2.0
// What the judgement of a conformance run rests on: needs the suite's files, no gateway.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { REVISIONS, checkExpected, problems, regressions, requirements } from './suite.mjs';

const required = { scored: ['ping', 'tools-list'], notScored: ['tasks'] };
const nothing = { scored: {}, notScored: {} };
const run = (entries, code = 0) => ({
  code,
  checks: new Map(entries.map(([scenario, status], i) => [`${scenario} check #${i}`, { scenario, status, message: 'why' }])),
});
const passing = [['ping', 'SUCCESS'], ['tools-list', 'SUCCESS']];

describe('the judgement of a conformance run', () => {
  it('reads the scored server scenarios from the suite', async () => {
    for (const revision of REVISIONS) {
      const { scored, notScored } = await requirements(revision);
      assert.ok(scored.includes('tools-list') && scored.includes('dns-rebinding-protection'), revision);
      assert.ok(notScored.includes('json-schema-2020-12'), revision);
      assert.ok(![...scored, ...notScored].some((name) => name.startsWith('auth/')), `client scenarios in ${revision}`);
    }
  });

  it('takes a run in which every scored scenario passes', () => {
    assert.deepEqual(problems(run([...passing, ['ping', 'SKIPPED']]), required, nothing), []);
  });

  it('misses a scored scenario that was not run, or in which nothing passed', () => {
    assert.deepEqual(problems(run([['ping', 'SUCCESS']]), required, nothing), ['tools-list: no check of it passed']);
    assert.deepEqual(problems(run([['ping', 'SUCCESS'], ['tools-list', 'SKIPPED']]), required, nothing),
      ['tools-list: no check of it passed']);
  });

  it('sees a failure, a failure that does not come, and the exit code', () => {
    assert.match(problems(run([...passing, ['ping', 'FAILURE']]), required, nothing).join(), /^ping check #2: why$/);
    const tasks = { scored: {}, notScored: { tasks: 'not in this SDK' } };
    assert.match(problems(run(passing), required, tasks).join(), /tasks is expected to fail/);
    assert.deepEqual(problems(run([...passing, ['tasks', 'FAILURE']]), required, tasks), []);
    assert.match(problems(run([...passing, ['tasks', 'FAILURE']], 1), required, tasks).join(), /exit code 1/);
    assert.match(problems(run(passing, null), required, nothing).join(), /exit code null/);
  });

  it('refuses an expectation that hides a scored scenario or has no reason', () => {
    const refuses = (expected, pattern) => assert.throws(() => checkExpected('r', expected, required), pattern);
    refuses({ notScored: { ping: 'an extension, says who wrote this' } }, /ping is not one of the not scored/);
    refuses({ scored: { tasks: 'long enough a reason' } }, /tasks is not one of the scored/);
    refuses({ scored: { ping: '' } }, /ping has no reason/);
    refuses({ notScored: { tasks: true } }, /tasks has no reason/);
    refuses({ other: {} }, /unknown section/);
    const scored = { scored: { ping: 'the SDK does not answer it' } };
    const expected = checkExpected('r', scored, required);
    assert.deepEqual(problems(run([['ping', 'FAILURE'], ['tools-list', 'SUCCESS']], 1), required, expected), []);
  });

  it('reports what passed directly and not through the gateway', () => {
    const through = run([['ping', 'WARNING']]);
    assert.deepEqual(regressions(run(passing), through), ['ping check #0: WARNING why', 'tools-list check #1: not reported']);
  });
});

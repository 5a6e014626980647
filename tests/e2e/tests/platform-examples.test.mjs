// SPDX-License-Identifier: Apache-2.0
// The examples for platforms, run as their README has them: the C++ client, the Python client and grpcurl.
import assert from 'node:assert/strict';
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { assertNoSecretLeaked, obtainToken, startWorld } from '../world/fixture.mjs';
import { TOPOLOGIES } from '../world/gateway.mjs';
import { makeUsers } from '../world/idp.mjs';
import { ROOT, platformGateway, startAuthority, startCluster } from '../world/platforms.mjs';
import { run } from '../world/processes.mjs';

const BIN = path.resolve(process.env.SALLYPORT_BIN ?? path.join(ROOT, 'build/dev/bin'));
const STAND_IN = fileURLToPath(new URL('../world/grpcurl.mjs', import.meta.url));
const [ANN, BOB] = [0, 1];
const LINK_REQUIRED = 3;

// The shell blocks of the README, in order.
const blocksOf = async (file) => [...(await readFile(path.join(ROOT, file), 'utf8')).matchAll(/^```sh\n(.*?)^```$/gms)].map(([, text]) => text);
const blocks = await blocksOf('examples/platform/README.md');
const [documented] = (await blocksOf('docs/platforms.md')).filter((text) => text.startsWith('grpcurl '));

async function isInstalled(program) {
  return (await run('bash', ['-c', `command -v ${program}`], { ok: () => true })).code === 0;
}

for (const topology of TOPOLOGIES) {
  describe(`examples for platforms, ${topology}`, () => {
    let world;
    let authority;
    let cluster;
    let directory;
    let env;
    const people = makeUsers(2);

    before(async () => {
      authority = await startAuthority();
      cluster = await startCluster({ issuer: 'https://main.cluster.local', audience: 'sallyport', apiToken: 'canary-of-no-use' });
      const told = await platformGateway({
        authority, server: await authority.issue('listener', { server: true }), reflection: true,
        platforms: [
          {
            id: 'chat', certificateUris: ['spiffe://example.org/ns/chat/sa/bot'], subjectTokenAudiences: ['api://chat'],
            grants: [{ apps: ['codehost'], groups: ['corp:engineering'] }],
          },
          { id: 'pod', serviceAccounts: ['main:chat/pod'], grants: [{ apps: ['codehost'], users: [`corp:${people[ANN].sub}`], withoutUser: true }] },
        ],
        kubernetes: [{ id: 'main', issuer: cluster.issuer, audience: cluster.audience, jwksUrl: cluster.jwksUrl }],
      });
      world = await startWorld(topology, { users: people, gateway: told.settings });
      await obtainToken(world, 'github', world.persona(ANN));
      // A directory in which the README's lines find what they name.
      directory = await mkdtemp(path.join(os.tmpdir(), 'sallyport-example-'));
      const at = (name) => path.join(directory, name);
      const chat = await authority.issue('chat', { uris: ['spiffe://example.org/ns/chat/sa/bot'] });
      await copyFile(authority.caFile, at('ca.crt'));
      await copyFile(chat.certificate, at('chat.crt'));
      await copyFile(chat.privateKey, at('chat.key'));
      await writeFile(at('pod.jwt'), `${await cluster.mint('chat', 'pod')}\n`, { mode: 0o600 });
      await symlink(path.join(ROOT, 'examples'), at('examples'));
      await mkdir(at('build/dev'), { recursive: true });
      await symlink(BIN, at('build/dev/bin'));
      await mkdir(at('programs'));
      // Debian's own, which has Debian's packages.
      await symlink('/usr/bin/python3', at('programs/python3'));
      if (!await isInstalled('grpcurl')) {
        await writeFile(at('programs/grpcurl'), `#!/bin/sh\nexec '${process.execPath}' '${STAND_IN}' "$@"\n`, { mode: 0o755 });
      }
      env = {
        HOME: directory, PATH: `${at('programs')}:${process.env.PATH}`, GATEWAY: told.listeners(topology).at(-1), APP: 'codehost',
        SUBJECT: world.subject(ANN),
      };
    });
    after(async () => {
      await world?.close();
      for (const closer of [cluster, authority]) await closer?.close();
      if (directory) await rm(directory, { recursive: true, force: true });
    });

    // Runs block `n` as this user's platform; `more` goes behind its last word.
    const example = (n, i, { more = '', ok } = {}) => shell(`${blocks[n].trimEnd()} ${more}`, i, { ok });
    const shell = async (text, i, { ok } = {}) => {
      await writeFile(path.join(directory, 'user.jwt'), `${await world.idp.mint(people[i], { audience: 'api://chat' })}\n`, { mode: 0o600 });
      return run('bash', ['-euc', text], { cwd: directory, env, ok });
    };
    const assertAnns = (token) => assert.equal(world.provider.ownerOf(token), world.account(ANN));

    it('are five', () => {
      assert.deepEqual(blocks.map((text) => text.match(/sallyport-example-platform|get_token\.py|grpcurl/)?.[0]),
        ['sallyport-example-platform', 'get_token.py', 'grpcurl', 'sallyport-example-platform', 'grpcurl']);
    });

    for (const [n, language, proof] of [[0, 'C++', 'a certificate'], [1, 'Python', 'a certificate'], [3, 'C++', 'a service account']]) {
      it(`get a token in ${language} with ${proof}`, async () => {
        const { stdout } = await example(n, ANN, { more: '--show-token' });
        assertAnns(stdout.match(/^token (\S+)$/m)?.[1]);
        assert.ok(stdout.includes(`may be sent to ${world.provider.url}\n`), stdout);
        assert.match(stdout, /^scope repo$/m);
        assert.match(stdout, /^good until \d+ /m);
        const { stdout: quiet } = await example(n, ANN);
        assert.match(quiet, /^type Bearer$/m);
        for (const secret of world.provider.secrets) assert.ok(!quiet.includes(secret), 'the token is shown only if it is asked for');
      });
    }

    for (const [n, proof] of [[2, 'a certificate'], [4, 'a service account']]) {
      it(`get a token by grpcurl with ${proof}`, async () => assertAnns(JSON.parse((await example(n, ANN)).stdout).accessToken));
    }

    it('get a token by the line of docs/platforms.md', async () => {
      const line = documented.replace('tokens.example.com:7100', env.GATEWAY).replace('"app": "mail"', '"app": "codehost"');
      assert.ok(line.includes(env.GATEWAY) && line.includes('codehost'), line);
      assertAnns(JSON.parse((await shell(line, ANN)).stdout).accessToken);
    });

    for (const [n, language] of [[0, 'C++'], [1, 'Python']]) {
      it(`print in ${language} where a user connects their account, and say so by the exit code`, async () => {
        const { stdout, code } = await example(n, BOB, { ok: (exit) => exit === LINK_REQUIRED });
        assert.equal(code, LINK_REQUIRED);
        const [message, link] = stdout.split('\n');
        assert.match(message, /^Connect your Code Host account/);
        assert.ok(link.startsWith(`${world.gateway.publicUrl}/connect/`), link);
      });
    }

    it('say what is refused, and end with 1', async () => {
      for (const n of [0, 1]) {
        const { stderr, code } = await run('bash', ['-euc', blocks[n].trimEnd()], { cwd: directory, env: { ...env, APP: 'other' }, ok: () => true });
        assert.equal(code, 1, stderr);
        assert.match(stderr, /platform_not_granted/);
      }
    });

    it('leave no secret anywhere', () => assertNoSecretLeaked(world));
  });
}

// SPDX-License-Identifier: Apache-2.0
// Makes what a trusted connector of the bench needs: a P-256 key pair, its JWKS, and signed access tokens (RFC 9068).
//   node make-tokens.mjs DIR COUNT     writes DIR/jwks.json, DIR/token (one) and DIR/tokens (COUNT, one a line)
import { createSign, generateKeyPairSync, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';

const [dir, count] = [process.argv[2], Number(process.argv[3])];
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'bench', use: 'sig', alg: 'ES256' };
writeFileSync(`${dir}/jwks.json`, JSON.stringify({ keys: [jwk] }));

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const now = Math.floor(Date.now() / 1000);
function token(user) {
  const head = encode({ alg: 'ES256', kid: 'bench', typ: 'at+jwt' });
  const claims = encode({
    iss: 'https://bench.example', aud: 'bench', sub: `user-${user}`, client_id: 'bench', jti: randomUUID(), iat: now, exp: now + 7200,
    email: `user-${user}@bench.example`, scope: 'mcp', groups: ['engineering', 'everyone', 'reviewers'],
    // As long as tokens of real identity providers are.
    context: 'x'.repeat(320),
  });
  const signer = createSign('SHA256');
  signer.update(`${head}.${claims}`);
  return `${head}.${claims}.${signer.sign({ key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}
const tokens = Array.from({ length: count }, (_, user) => token(user));
writeFileSync(`${dir}/token`, tokens[0]);
writeFileSync(`${dir}/tokens`, tokens.join('\n') + '\n');

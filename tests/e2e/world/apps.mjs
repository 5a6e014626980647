// SPDX-License-Identifier: Apache-2.0
// OAuth-protected products beside the world's one, each an app of its own with a server of the same name.
import { randomBytes } from 'node:crypto';
import { startProvider } from './provider.mjs';
import { remember } from './secrets.mjs';

// For the first `users` people of the world, `accounts` each: person i has accounts i, i + users, …. Without `revocable` the app has no
// revocation endpoint. `more(provider)` gives further fields of the app, `settings` are the provider's. Resolves with { provider, app, server, account }:
// what to apply, and account(i) is what a persona types there.
export async function startApp(world, slug, { users, accounts = 1, revocable = true, more = () => ({}), settings = {} } = {}) {
  const secret = `canary-${slug}-client-${randomBytes(12).toString('base64url')}`;
  const provider = await startProvider({
    users: Array.from({ length: users * accounts }, (_, i) => ({
      username: `user${i}-at-${slug}`, password: `canary-${slug}-password-${randomBytes(9).toString('base64url')}`,
    })),
    clients: [{ client_id: 'gateway-app', client_secret: secret, redirect_uris: [`${world.gateway.publicUrl}/callback/${slug}`] }],
    ...settings,
  });
  return {
    provider,
    app: {
      slug, displayName: slug, authorizationUrl: provider.authorizationUrl, tokenUrl: provider.tokenUrl, clientId: 'gateway-app',
      clientSecret: { value: secret }, defaultScopes: ['repo'], allowedUpstreamOrigins: [provider.url],
      ...(revocable ? { revocationUrl: provider.revocationUrl } : {}), ...more(provider),
    },
    server: {
      slug, upstreamUrl: provider.mcpUrl, agentAuth: { interactive: { allow: { everyone: true } } }, appAuth: { oauthAuthorization: { app: slug } },
    },
    account: (i) => provider.users[i],
    // What it has handed out is secret, too.
    rememberSecrets: () => remember(`secret of ${slug}`, ...provider.secrets),
    // The next link of this browser's asks for the account again.
    signOut: (browser) => browser.dropCookie('127.0.0.1', 'provider_session'),
    close: () => provider.close(),
  };
}

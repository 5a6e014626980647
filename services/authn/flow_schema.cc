// SPDX-License-Identifier: Apache-2.0
#include "services/authn/authn_store.h"

namespace sallyport::authn {

std::vector<std::string> FlowSchema() {
  return {
      "CREATE TABLE sessions (cookie_hash TEXT NOT NULL PRIMARY KEY, id TEXT NOT NULL UNIQUE, subject TEXT NOT NULL,"
      " identity TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL)",
      "CREATE INDEX sessions_by_subject ON sessions (subject)",
      "CREATE INDEX sessions_by_end ON sessions (expires_at)",
      // What a user allowed a client; the family of its refresh tokens.
      "CREATE TABLE grants (id TEXT NOT NULL PRIMARY KEY, subject TEXT NOT NULL, identity TEXT NOT NULL,"
      " client_id TEXT NOT NULL, resource TEXT NOT NULL, server_uid TEXT NOT NULL, scope TEXT NOT NULL,"
      " created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, revoked_at BIGINT)",
      "CREATE INDEX grants_by_subject ON grants (subject)",
      "CREATE INDEX grants_by_end ON grants (expires_at)",
      "CREATE TABLE codes (hash TEXT NOT NULL PRIMARY KEY, subject TEXT NOT NULL, identity TEXT NOT NULL, client_id "
      "TEXT NOT NULL,"
      " redirect_uri TEXT NOT NULL, code_challenge TEXT NOT NULL, resource TEXT NOT NULL, server_uid TEXT NOT NULL,"
      " scope TEXT NOT NULL, expires_at BIGINT NOT NULL, consumed_at BIGINT, grant_id TEXT NOT NULL)",
      "CREATE INDEX codes_by_subject ON codes (subject)",
      "CREATE INDEX codes_by_end ON codes (expires_at)",
      // successor: the next token, sealed under a key derived from this one.
      "CREATE TABLE refresh_tokens (hash TEXT NOT NULL PRIMARY KEY, grant_id TEXT NOT NULL, expires_at BIGINT NOT NULL,"
      " consumed_at BIGINT, successor TEXT NOT NULL, successor_hash TEXT NOT NULL)",
      "CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id)",
      "CREATE INDEX refresh_tokens_by_end ON refresh_tokens (expires_at)",
      // digest: of the registered metadata, for public clients; equal registrations are one client.
      "CREATE TABLE clients (id TEXT NOT NULL PRIMARY KEY, digest TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL,"
      " secret_hash TEXT NOT NULL, created_at BIGINT NOT NULL, used_at BIGINT NOT NULL)",
      "CREATE INDEX clients_by_use ON clients (used_at)",
      "CREATE TABLE consents (subject TEXT NOT NULL, client_id TEXT NOT NULL, redirect_host TEXT NOT NULL,"
      " server_uid TEXT NOT NULL, given_at BIGINT NOT NULL, PRIMARY KEY (subject, client_id, redirect_host, "
      "server_uid))",
      "CREATE INDEX consents_by_client ON consents (client_id)",
      // Steps of a flow through the browser; browser: hash of the transaction cookie; payload: sealed under a key
      // derived from the id.
      "CREATE TABLE browser_transactions (hash TEXT NOT NULL PRIMARY KEY, browser TEXT NOT NULL, kind TEXT NOT NULL,"
      " payload TEXT NOT NULL, expires_at BIGINT NOT NULL)",
      "CREATE INDEX browser_transactions_by_end ON browser_transactions (expires_at)",
      "CREATE TABLE login_attempts (key TEXT NOT NULL PRIMARY KEY, failures BIGINT NOT NULL, since BIGINT NOT NULL)",
      "CREATE INDEX login_attempts_by_time ON login_attempts (since)",
  };
}

std::vector<std::string> ClientUseSchema() {
  return {
      // Of clients that have no row in `clients`: those of the configuration, and the command line.
      "CREATE TABLE client_uses (client_id TEXT NOT NULL PRIMARY KEY, used_at BIGINT NOT NULL)",
      "CREATE INDEX grants_by_client ON grants (client_id)",
      "CREATE INDEX grants_by_server ON grants (server_uid)",
      "CREATE INDEX consents_by_server ON consents (server_uid)",
  };
}

}  // namespace sallyport::authn

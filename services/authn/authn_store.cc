// SPDX-License-Identifier: Apache-2.0
#include "services/authn/authn_store.h"

#include <utility>

#include "common/audit/outbox.h"
#include "common/sql/config.h"
#include "common/status_macros.h"

namespace sallyport::authn {
namespace {

std::vector<std::string> CoreSchema() {
  std::vector<std::string> statements = {
      "CREATE TABLE revoked_tokens (jti TEXT NOT NULL PRIMARY KEY, expires_at BIGINT NOT NULL)",
      "CREATE INDEX revoked_tokens_expiry ON revoked_tokens (expires_at)",
      "CREATE TABLE pending_invalidations (id TEXT NOT NULL PRIMARY KEY, kind BIGINT NOT NULL, name TEXT NOT NULL, "
      "at BIGINT NOT NULL)",
      "CREATE INDEX pending_invalidations_age ON pending_invalidations (at)",
      "CREATE TABLE admin_tokens (digest TEXT NOT NULL PRIMARY KEY, created_at BIGINT NOT NULL)",
      "CREATE TABLE admin_redemption (id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1), at BIGINT NOT NULL)",
  };
  std::vector<std::string> audit = AuditOutbox::Schema();
  for (std::string& statement : audit) {
    statements.push_back(std::move(statement));
  }
  return statements;
}

std::vector<std::string> EndedSignInsSchema() {
  return {"CREATE TABLE ended_sign_ins (subject TEXT NOT NULL PRIMARY KEY, ended_at BIGINT NOT NULL)"};
}

}  // namespace

std::vector<Migration> AuthnMigrations() {
  return {
      {1, CoreSchema()}, {2, FlowSchema()}, {3, EndedSignInsSchema()}, {4, SubjectSchema()}, {5, ClientUseSchema()}};
}

absl::StatusOr<std::unique_ptr<Database>> OpenAuthnDatabase(const config::v1::Database& config, const Clock& clock) {
  ASSIGN_OR_RETURN(Database::Options options, DatabaseOptionsFrom(config, clock));
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(std::move(options)));
  RETURN_IF_ERROR(database->Migrate(AuthnMigrations()));
  return database;
}

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/sql/sql.h"
#include "sallyport/config/v1/common.pb.h"

namespace sallyport::authn {

// Authn's database: one for everything it keeps. Migration 1 are the tables of this service's core (revoked tokens,
// invalidations not yet delivered, the admin token, the audit outbox); the others are those of the schemas below, in
// the order of AuthnMigrations. A released migration is never changed: what comes later gets the next number there.
std::vector<Migration> AuthnMigrations();

// Statements of migration 2: transactions, sessions, codes, clients, consents, grants, refresh tokens, attempts
// (flow_schema.cc).
std::vector<std::string> FlowSchema();

// Statements of migration 4: who each subject is, and subjects whose older tokens count no more (subject_schema.cc).
std::vector<std::string> SubjectSchema();

// Statements of migration 5: when clients of the configuration were used, and by client and by server what was agreed
// to (flow_schema.cc).
std::vector<std::string> ClientUseSchema();

// Opens and migrates. INVALID_ARGUMENT names the field of the configuration; else as Database::Open and Migrate.
absl::StatusOr<std::unique_ptr<Database>> OpenAuthnDatabase(const config::v1::Database& config, const Clock& clock);

}  // namespace sallyport::authn

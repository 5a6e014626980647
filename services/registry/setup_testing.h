// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

#include "common/audit/outbox.h"
#include "common/clock.h"
#include "common/sql/sql.h"
#include "services/registry/catalog.h"
#include "services/registry/writer.h"
#include "tests/testing/fakes/passport.h"

// What the tests of the registry and the program they start set up alike.
namespace sallyport::registry {

enum class Engine { kSqlite, kPostgresql };

// `address`: a file on SQLite, a connection string on PostgreSQL.
inline Database::Options DatabaseOptions(Engine engine, const std::string& address, const Clock& clock) {
  Database::Options options;
  options.clock = &clock;
  (engine == Engine::kPostgresql ? options.postgresql : options.sqlite_path) = address;
  return options;
}

inline AuditOutbox::Options OutboxOptions() {
  AuditOutbox::Options options;
  options.source = "registry";
  return options;
}

inline Catalog::Options CatalogOptions() {
  Catalog::Options options;
  options.upstream_networks = {"10.0.0.0/8"};
  options.connectors = [] { return Connectors{{"okta", {"oidc"}}}; };
  options.issuer_auth_methods = [](const std::string& /*issuer*/) { return absl::UnavailableError("nobody answers"); };
  return options;
}

inline Writer Admin() {
  Writer writer;
  writer.subject = "local:ada";
  writer.client_id = "cli";
  writer.passport = sallyport::testing::FakePassport(writer.subject, {"admin"});
  return writer;
}

inline Writer CredentialAdmin() {
  Writer writer = Admin();
  writer.credential_admin = true;
  writer.passport = sallyport::testing::FakePassport(writer.subject, {"admin", "credential-admin"});
  return writer;
}

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/audit_outbox.h"
#include "common/clock.h"
#include "common/sql.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "services/registry/secret_vault.h"
#include "services/registry/store.h"
#include "services/registry/validation.h"

namespace sallyport::registry {

// Who writes, for authorization, the vault and the audit.
struct Writer {
  std::string subject;
  std::string client_id;
  std::string passport;
  bool credential_admin = false;
};

// The writes and reads of servers, apps and credentials: validation, secrets into the vault, one transaction, audit. T
// is v1::McpServer, v1::App or v1::Credential. Answers never hold a secret or a vault record. Thread-safe.
class Catalog {
 public:
  struct Options {
    std::vector<std::string> upstream_networks;
    std::vector<std::string> oauth_networks;
    // Connector ids; nullopt while authn does not answer.
    std::function<std::optional<std::set<std::string>>()> connectors;
  };
  Catalog(Database& database, AuditOutbox& audit, SecretVault& vault, const Clock& clock, Options options);

  template <typename T>
  struct Written {
    T resource;
    std::vector<v1::Warning> warnings;
  };
  template <typename T>
  absl::StatusOr<Written<T>> Create(const T& resource, bool dry_run, const Writer& writer);
  template <typename T>
  absl::StatusOr<Written<T>> Update(const T& resource, bool dry_run, const Writer& writer);
  template <typename T>
  absl::Status Delete(const std::string& slug, int64_t version, const Writer& writer);
  template <typename T>
  absl::StatusOr<T> Get(const std::string& slug);
  // `page_token` is the last slug of the page before.
  template <typename T>
  absl::StatusOr<std::vector<T>> List(int32_t page_size, const std::string& page_token, std::string* next_page_token);

  absl::StatusOr<v1::ApplyResponse> Apply(const v1::ApplyRequest& request, const Writer& writer);

  // Erases secrets of former types whose time is over. For a background thread.
  absl::Status EraseExpiredSecrets();

 private:
  friend class Batch;
  // Erases records from the vault and from the list of retired ones. The first error, after all were tried; what failed
  // stays on the list.
  absl::Status Erase(const std::vector<Store::Retired>& secrets, const std::string& passport);

  Database& database_;
  AuditOutbox& audit_;
  SecretVault& vault_;
  const Clock& clock_;
  const Options options_;
};

}  // namespace sallyport::registry

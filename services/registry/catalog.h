// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/audit/outbox.h"
#include "common/clock.h"
#include "common/sql/sql.h"
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

// A write that its writer may not make, for the audit.
struct Denial {
  absl::string_view kind;
  std::string slug;
  std::string uid;   // Empty if it was to be created.
  std::string rule;  // See Findings::Deny, or the reason an RPC was refused with.
  std::vector<std::string> fields;
  bool dry_run = false;
};

// The writes and reads of servers, apps and credentials: validation, secrets into the vault, one transaction, audit. T
// is v1::McpServer, v1::App or v1::Credential. Answers never hold a secret or a vault record. Thread-safe.
class Catalog {
 public:
  struct Options {
    std::vector<std::string> upstream_networks;
    std::vector<std::string> oauth_networks;
    // nullopt while authn does not answer.
    std::function<std::optional<Connectors>()> connectors;
    // How clients may authenticate at the token endpoint of `issuer`, as it announces (RFC 8414 section 2). An error if
    // that cannot be learnt; UNAVAILABLE if nobody answered.
    std::function<absl::StatusOr<std::vector<std::string>>(const std::string& issuer)> issuer_auth_methods;
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

  // The refusal stands whether or not it can be recorded.
  void RecordDenial(const Denial& denial, const Writer& writer);

  absl::StatusOr<v1::ApplyResponse> Apply(const v1::ApplyRequest& request, const Writer& writer);

  // Erases from the vault what nothing refers to: secrets of former types whose time is over, and what writes that were
  // never stored have left there (begun an hour ago, or known to have failed). Unpins replaced values that are pinned
  // still. For a background thread; several replicas may do it at once, and while others write.
  absl::Status EraseUnusedSecrets();

 private:
  friend class Batch;
  // Erases versions marked kErasing from the vault and from the list of retired ones. The first error, after all were
  // tried; what failed stays on the list.
  absl::Status Erase(const std::vector<Store::Retired>& secrets, const std::string& passport);
  // Releases versions listed as replaced, so that the vault may prune them. As Erase.
  absl::Status Unpin(const std::vector<Store::Replaced>& secrets, const std::string& passport);
  // Takes back what writes that cannot be stored any more have put into the vault. As Erase. `keep_listed`: the vault
  // may still be storing it, so it is tried once more later.
  absl::Status TakeBack(const std::vector<Store::SecretWrite>& writes, const std::string& passport, bool keep_listed);

  Database& database_;
  AuditOutbox& audit_;
  SecretVault& vault_;
  const Clock& clock_;
  const Options options_;
};

}  // namespace sallyport::registry

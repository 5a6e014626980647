// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/audit/outbox.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "common/sql/sql.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "services/registry/batch.h"
#include "services/registry/secret_ledger.h"
#include "services/registry/secret_vault.h"
#include "services/registry/store.h"
#include "services/registry/writer.h"

namespace sallyport::registry {

// The writes and reads of servers, apps and credentials: validation, secrets into the vault, one transaction, audit. T
// is v1::McpServer, v1::App or v1::Credential. Answers never hold a secret or a vault record. Thread-safe.
class Catalog {
 public:
  using Options = WriteOptions;
  Catalog(Database& database, AuditOutbox& audit, SecretVault& vault, const Clock& clock, Options options);

  template <typename T>
  struct Written {
    T resource;
    std::vector<v1::Warning> warnings;
    std::vector<v1::Consequence> consequences;
  };
  template <typename T>
  absl::StatusOr<Written<T>> Create(const T& resource, bool dry_run, const Writer& writer);
  template <typename T>
  absl::StatusOr<Written<T>> Update(const T& resource, bool dry_run, const Writer& writer);
  // What it means for who uses it; a dry run deletes nothing.
  template <typename T>
  absl::StatusOr<std::vector<v1::Consequence>> Delete(const std::string& slug, int64_t version, const Writer& writer,
                                                      bool dry_run = false);
  template <typename T>
  absl::StatusOr<T> Get(const std::string& slug);
  // `page_token` is the last slug of the page before.
  template <typename T>
  absl::StatusOr<std::vector<T>> List(int32_t page_size, const std::string& page_token, std::string* next_page_token);

  // An ending app goes, with its client's secret: nothing is owed to its users' provider any more. OK if there is none
  // of this uid; a live app is none. FAILED_PRECONDITION for kLinksInFlight after its deletion: who was on the way back
  // from its provider links an account still, which ends then.
  absl::Status FinishApp(const std::string& uid);
  // The same for those that have been ending for kKeepEnding, whoever still waits for them: longer than anybody tries
  // to revoke a token. For a background thread; several replicas may do it at once.
  absl::Status FinishOldApps();
  static constexpr absl::Duration kLinksInFlight = absl::Minutes(1);
  static constexpr absl::Duration kKeepEnding = absl::Hours(24 * 30);

  // The refusal stands whether or not it can be recorded.
  void RecordDenial(const Denial& denial, const Writer& writer);

  absl::StatusOr<v1::ApplyResponse> Apply(const v1::ApplyRequest& request, const Writer& writer);

  // Erases from the vault what nothing refers to: secrets of former types whose time is over, and what writes that were
  // never stored have left there (begun an hour ago, or known to have failed). Unpins replaced values that are pinned
  // still. For a background thread; several replicas may do it at once, and while others write.
  absl::Status EraseUnusedSecrets() { return ledger_.Sweep(std::nullopt, ""); }

 private:
  absl::Status Admit(Batch& batch, const absl::Status& drafted, bool dry_run, const Writer& writer);
  template <typename T>
  absl::StatusOr<Written<T>> Write(const T& resource, Batch::Mode mode, bool dry_run, const Writer& writer);
  // Takes a stored resource out of the catalog; answers the records that a sweep is to look at.
  template <typename T>
  absl::StatusOr<std::set<std::string>> TakeOut(Transaction& tx, const Store::Resource& stored);
  absl::Status Finish(const std::string& uid, absl::string_view rule);
  void ShowEndingApps();

  Database& database_;
  AuditOutbox& audit_;
  const Clock& clock_;
  const Options options_;
  SecretLedger ledger_;
  const WriteParts parts_;
  prometheus::Gauge& ending_apps_;
};

}  // namespace sallyport::registry

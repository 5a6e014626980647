// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/registry/catalog.h"
#include "services/registry/draft.h"
#include "services/registry/resource.h"

namespace sallyport::registry {

// One write of the catalog: loads what is there, drafts each resource against it (later drafts see earlier ones), then
// carries all out or nothing. Used once, by one thread.
class Batch {
 public:
  enum class Mode { kCreate, kUpdate, kApply };

  Batch(Catalog& catalog, const Writer& writer) : catalog_(catalog), writer_(writer), now_(catalog.clock_.Now()) {}

  absl::Status Load();
  // Drafts one resource. `prefix` stands before field names ("mcpServers[0]."). NOT_FOUND, ALREADY_EXISTS, ABORTED and
  // PERMISSION_DENIED at once; what is wrong with its fields is collected until Admit.
  template <typename T>
  absl::Status Draft(const T& input, Mode mode, const std::string& prefix);
  // What becomes of the drafts: `drafted`, the first error at once, or INVALID_ARGUMENT naming every field that was
  // refused. What this writer may not do is in the audit then.
  absl::Status Admit(const absl::Status& drafted, bool dry_run);
  // Vault first (new versions that nobody refers to yet do no harm), then one transaction, then the vault's leftovers.
  // ABORTED if somebody else has written meanwhile, or a draft that would change something names another version.
  absl::Status Commit();

  struct Change {
    std::string kind;
    std::string vault_kind;
    std::string uid;
    std::string slug;
    std::string prefix;
    std::unique_ptr<google::protobuf::Message> before;  // Null: created.
    std::unique_ptr<google::protobuf::Message> after;
    int64_t expected_version = 0;
    // The version a file names, if it is not the one that is stored: fine as long as nothing would change.
    int64_t stale_version = 0;
    SecretPlan plan;
    std::vector<Store::Replaced> replaced;  // Versions to unpin.
    // Records that were given a value, and the version of that value.
    std::vector<std::pair<std::string, int64_t>> entered;
    std::vector<v1::Warning> warnings;
    std::vector<v1::ApplyResponse::FieldChange> changes;
    // Not asked for, but follows from another change of the batch.
    bool implied = false;
    bool unchanged() const { return before != nullptr && changes.empty(); }
  };
  // After Admit (dry run: diffs against stored versions) or Commit.
  const std::vector<std::unique_ptr<Change>>& changes() const { return changes_; }
  // For a dry run: fills `changes` and the versions that a write would give. ABORTED as Commit.
  absl::Status Preview();

 private:
  // Fills `changes` of every draft. ABORTED if one that would change was made from another version than is stored;
  // values that only the vault can compare count as equal.
  absl::Status Diff();
  template <typename T>
  std::map<std::string, T>& Working();
  template <typename T>
  void Prepare(T& after, Change& change, Findings& findings);
  // Asks issuers, which may be slow or down: only of apps whose issuer or client_auth this write sets, and no further
  // once one did not answer.
  void CompareWithIssuer(const v1::App* before, const v1::App& after, Findings& findings);
  template <typename T>
  void CompareWithIssuer(const T* /*before*/, const T& /*after*/, Findings& /*findings*/) {}
  void AllowFirstOrigin(const v1::McpServer& server);
  // Lists what PutSecrets is about to store, so that it is taken back should this write not be.
  absl::Status AnnounceSecrets();
  absl::Status PutSecrets(Change& change);
  absl::Status Save(Transaction& tx, Change& change);
  absl::Status CheckAppStillThere(Transaction& tx, const Change& change);
  void CleanUp(const Change& change);
  void Withdraw(bool vault_may_still_store);

  Catalog& catalog_;
  const Writer& writer_;
  const absl::Time now_;
  std::map<std::string, v1::McpServer> servers_;
  std::map<std::string, v1::App> apps_;
  std::map<std::string, v1::Credential> credentials_;
  std::map<std::string, Store::Retired> retired_;
  std::string write_;  // Id of this write in the vault; set once secrets are announced.
  std::vector<Store::SecretWrite> announced_;
  std::optional<Connectors> connectors_;
  bool issuer_silent_ = false;
  std::vector<ErrorDetail::Violation> violations_;
  std::vector<Denial> denials_;
  std::vector<std::unique_ptr<Change>> changes_;
};

}  // namespace sallyport::registry

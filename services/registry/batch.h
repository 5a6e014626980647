// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/audit/outbox.h"
#include "common/clock.h"
#include "common/sql/sql.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "services/registry/binding.h"
#include "services/registry/consequences/consequences.h"
#include "services/registry/draft.h"
#include "services/registry/resource.h"
#include "services/registry/secret_ledger.h"
#include "services/registry/secret_vault.h"
#include "services/registry/writer.h"

namespace sallyport::registry {

// What writes are checked against and carried out with.
struct WriteOptions {
  std::vector<std::string> upstream_networks;
  std::vector<std::string> oauth_networks;
  // nullopt while authn does not answer.
  std::function<std::optional<Connectors>()> connectors;
  // How clients may authenticate at the token endpoint of `issuer`, as it announces (RFC 8414 section 2). An error if
  // that cannot be learnt; UNAVAILABLE if nobody answered.
  std::function<absl::StatusOr<std::vector<std::string>>(const std::string& issuer)> issuer_auth_methods;
  StepHook before_step;
};
struct WriteParts {
  Database& database;
  AuditOutbox& audit;
  SecretVault& vault;
  SecretLedger& ledger;
  const Clock& clock;
  const WriteOptions& options;
};

// One write of the catalog: loads what is there, drafts each resource against it (later drafts see earlier ones), then
// carries all out or nothing. Used once, by one thread.
class Batch {
 public:
  enum class Mode { kCreate, kUpdate, kApply };

  Batch(const WriteParts& parts, const Writer& writer) : parts_(parts), writer_(writer), now_(parts.clock.Now()) {}

  absl::Status Load();
  // The same for a batch without drafts: what is stored, and nobody else is asked.
  absl::Status LoadStored();
  // Drafts one resource. `prefix` stands before field names ("mcpServers[0]."). NOT_FOUND, ALREADY_EXISTS, ABORTED and
  // PERMISSION_DENIED at once; what is wrong with its fields is collected until Admit.
  template <typename T>
  absl::Status Draft(const T& input, Mode mode, const std::string& prefix);
  // What becomes of the drafts: `drafted`, the first error at once, or INVALID_ARGUMENT naming every field that was
  // refused. `denials`: what this writer may not do.
  absl::Status Admit(const absl::Status& drafted, std::vector<Denial>* denials);
  // Vault first (new versions that nobody refers to yet do no harm), then one transaction, then the vault's leftovers.
  // ABORTED if somebody else has written meanwhile, or a draft that would change something names another version.
  absl::Status Commit();

  struct Change {
    absl::string_view kind;
    absl::string_view vault_kind;
    std::string uid;
    std::string slug;
    std::string prefix;
    std::optional<AnyResource> before;  // Absent: created.
    AnyResource after;
    std::optional<ResourceUrls> before_urls;
    std::optional<ResourceUrls> urls;
    int64_t expected_version = 0;
    // The version a file names, if it is not the one that is stored: fine as long as nothing would change.
    int64_t stale_version = 0;
    SecretPlan plan;
    BindingPlan binding;
    std::vector<SecretLedger::Version> live;  // Versions this write has made, which `after` refers to.
    std::vector<v1::Warning> warnings;
    std::vector<v1::Consequence> consequences;
    std::vector<v1::ApplyResponse::FieldChange> changes;
    // Not asked for, but follows from another change of the batch.
    bool implied = false;
    bool unchanged() const { return before && changes.empty(); }
  };
  // After Admit (dry run: diffs against stored versions) or Commit.
  const std::vector<std::unique_ptr<Change>>& changes() const { return changes_; }
  // For a dry run: fills `changes` and the versions that a write would give. ABORTED as Commit.
  absl::Status Preview();
  // Fills `consequences` of every change to what there is. After Admit, and before Commit: numbers are those of today.
  // Where the vault does not answer they are left out.
  void Foretell();
  // What deleting the stored resource means; nothing if there is none.
  template <typename T>
  std::vector<v1::Consequence> ForetellDeletion(const std::string& slug);

 private:
  template <typename T>
  using Resources = std::map<std::string, T>;

  // Fills `changes` of every draft. ABORTED if one that would change was made from another version than is stored;
  // values that only the vault can compare count as equal.
  absl::Status Diff();
  // Among what is stored and drafted; nullptr if it is not there.
  template <typename T>
  const T* Find(absl::string_view slug) {
    const auto found = Working<T>().find(std::string(slug));
    return found == Working<T>().end() ? nullptr : &found->second;
  }
  template <typename T>
  Resources<T>& Working() {
    return std::get<Resources<T>>(working_);
  }
  // The change for `input`, and what is stored already.
  template <typename T>
  absl::StatusOr<std::unique_ptr<Change>> Begin(const T& input, Mode mode, const std::string& prefix);
  template <typename T>
  void Check(Change& change, Findings& findings);
  void Report(const Change& change, Findings findings);
  ValidationContext Context();
  Neighbours Others();
  // Former versions that may be taken into use again.
  RetiredVersion Retired() const;
  void ResolveReferences(Change& change);
  void ChooseForms(v1::McpServer& server);
  void AllowFirstOrigin(const std::string& app_slug, const std::string& origin);
  // Lists what this write is about to store in the vault, so that it is taken back should the write not be stored.
  absl::Status Announce();
  absl::Status PutSecrets(Change& change);
  // What goes by the finished diff: origins of values that are kept, and bindings.
  absl::Status Bind(Change& change);
  absl::StatusOr<int64_t> PutBinding(const Change& change);
  absl::Status FillVault();
  void PlanBindings();
  void Stamp(Change& change) const;
  absl::Status StoreAll();
  absl::Status Save(Transaction& tx, Change& change);
  absl::Status CheckReferencesStillThere(Transaction& tx, Change& change);
  absl::Status Record(Transaction& tx, const Change& change);
  void KeepAdopted(Change& change, const std::string& body) const;
  // This write is certain not to be stored: what it has put into the vault, and nobody else's, goes. Where the vault
  // does not answer now, housekeeping goes on.
  void Withdraw();
  void SweepFormer();

  const WriteParts parts_;
  const Writer& writer_;
  const absl::Time now_;
  std::tuple<Resources<v1::McpServer>, Resources<v1::App>, Resources<v1::Credential>> working_;
  std::map<std::string, SecretLedger::Version> retired_;
  std::string write_;  // Id of this write in the vault; set once it is announced.
  std::vector<SecretLedger::Version> announced_;
  std::optional<Connectors> connectors_;
  bool issuer_silent_ = false;
  std::vector<ErrorDetail::Violation> violations_;
  std::vector<Denial> denials_;
  std::vector<std::unique_ptr<Change>> changes_;
};

}  // namespace sallyport::registry

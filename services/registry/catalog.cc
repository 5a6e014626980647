// SPDX-License-Identifier: Apache-2.0
#include "services/registry/catalog.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/json_log.h"
#include "common/status_macros.h"
#include "services/registry/binding.h"
#include "services/registry/config_event.h"
#include "services/registry/errors.h"
#include "services/registry/references.h"

namespace sallyport::registry {
namespace {

constexpr int kMaxPage = 1000;
constexpr int kDefaultPage = 100;

constexpr GaugeInfo kEndingApps = {
    .name = "sallyport_registry_ending_apps",
    .help = "Deleted apps that are kept until their users' tokens are revoked, as of the last ten minutes",
    .unit = "apps",
    .rise =
        "Apps were deleted. Above 0 for days: a provider does not answer revocations; after 30 days the app is "
        "given up",
    .action = "Look at `sallyport_broker_revocations_total` of the app, and at the provider",
};

// Servers that name it: it cannot go before they do.
absl::StatusOr<std::vector<std::string>> UsersOf(Transaction& tx, const std::string& uid) {
  std::vector<std::string> users;
  ASSIGN_OR_RETURN(const auto all, Store::List(tx, ResourceTraits<v1::McpServer>::kKind));
  for (const Store::Resource& stored : all) {
    v1::McpServer server;
    server.ParseFromString(stored.body);
    bool uses = false;
    ForEachReference(server, [&](const Reference& reference) { uses = uses || *reference.uid == uid; });
    if (uses) users.push_back(server.slug());
  }
  return users;
}

// The stored resource, if it may be deleted.
template <typename T>
absl::StatusOr<Store::Resource> FindDeletable(Transaction& tx, const std::string& slug, int64_t version) {
  ASSIGN_OR_RETURN(const auto stored, Store::FindBySlug(tx, ResourceTraits<T>::kKind, slug));
  if (!stored) return absl::NotFoundError(absl::StrCat("no ", ResourceTraits<T>::kKind, " ", slug.substr(0, 64)));
  if (version != 0 && version != stored->version) {
    return absl::AbortedError(absl::StrCat(slug, " is at version ", stored->version, ": read it again"));
  }
  if (!T().ParseFromString(stored->body)) return error::DamagedResource();
  if constexpr (!std::is_same_v<T, v1::McpServer>) {
    ASSIGN_OR_RETURN(const std::vector<std::string> users, UsersOf(tx, stored->uid));
    if (!users.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(slug, " is used by ", absl::StrJoin(users, ", "), ": change or delete them first"));
    }
  }
  return *stored;
}

}  // namespace

Catalog::Catalog(Database& database, AuditOutbox& audit, SecretVault& vault, const Clock& clock, Options options)
    : database_(database),
      audit_(audit),
      clock_(clock),
      options_(std::move(options)),
      ledger_(database, vault, clock, options_.before_step),
      parts_{database, audit, vault, ledger_, clock, options_},
      ending_apps_(MetricGauge(kEndingApps)) {
  ShowEndingApps();
}

absl::Status Catalog::Admit(Batch& batch, const absl::Status& drafted, bool dry_run, const Writer& writer) {
  std::vector<Denial> denials;
  const absl::Status admitted = batch.Admit(drafted, &denials);
  for (Denial& denial : denials) {
    denial.dry_run = dry_run;
    RecordDenial(denial, writer);
  }
  return admitted;
}

template <typename T>
absl::StatusOr<Catalog::Written<T>> Catalog::Write(const T& resource, Batch::Mode mode, bool dry_run,
                                                   const Writer& writer) {
  Batch batch(parts_, writer);
  RETURN_IF_ERROR(batch.Load());
  RETURN_IF_ERROR(Admit(batch, batch.Draft(resource, mode, ""), dry_run, writer));
  batch.Foretell();
  RETURN_IF_ERROR(dry_run ? batch.Preview() : batch.Commit());
  for (const auto& change : batch.changes()) {
    if (change->implied) continue;
    Written<T> written{std::get<T>(change->after), change->warnings, change->consequences};
    HideSecretInternals(written.resource);
    return written;
  }
  return absl::InternalError("a write without a resource");
}

template <typename T>
absl::StatusOr<Catalog::Written<T>> Catalog::Create(const T& resource, bool dry_run, const Writer& writer) {
  return Write(resource, Batch::Mode::kCreate, dry_run, writer);
}

template <typename T>
absl::StatusOr<Catalog::Written<T>> Catalog::Update(const T& resource, bool dry_run, const Writer& writer) {
  return Write(resource, Batch::Mode::kUpdate, dry_run, writer);
}

template <typename T>
absl::StatusOr<std::set<std::string>> Catalog::TakeOut(Transaction& tx, const Store::Resource& stored) {
  if constexpr (std::is_same_v<T, v1::App>) {
    // Its client and secret stay until its users' tokens are revoked with them (FinishApp). Its binding goes now: from
    // then on its tokens may be sent nowhere, and the vault lets the broker end everybody's connections.
    RETURN_IF_ERROR(Store::EndApp(tx, stored, clock_.Now()));
    return SecretLedger::EraseRecord(tx, BindingRecord(stored.uid));
  } else {
    RETURN_IF_ERROR(Store::Remove(tx, ResourceTraits<T>::kKind, stored));
    return SecretLedger::EraseAll(tx, stored.uid);  // With those of former authentication types.
  }
}

template <typename T>
absl::StatusOr<std::vector<v1::Consequence>> Catalog::Delete(const std::string& slug, int64_t version,
                                                             const Writer& writer, bool dry_run) {
  // Refused before anybody is counted, and looked at again when it is deleted.
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) { return FindDeletable<T>(tx, slug, version).status(); }));
  Batch batch(parts_, writer);
  const absl::Status loaded = batch.LoadStored();
  std::vector<v1::Consequence> consequences;
  if (loaded.ok()) consequences = batch.ForetellDeletion<T>(slug);
  if (dry_run && !loaded.ok()) return loaded;  // A damaged neighbour must not keep this one from going.
  if (dry_run) return consequences;
  std::set<std::string> records;
  RETURN_IF_ERROR(ledger_.Step("delete"));
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const Store::Resource stored, FindDeletable<T>(tx, slug, version));
    ASSIGN_OR_RETURN(records, TakeOut<T>(tx, stored));
    audit::v1::Event event = ConfigEvent("config.deleted", {ResourceTraits<T>::kKind, stored.uid, slug}, writer);
    event.set_decision(audit::v1::DECISION_ALLOWED);
    event.set_rule("admin");
    RETURN_IF_ERROR(audit_.Append(tx, std::move(event)));
    return ledger_.Step("commit transaction");
  }));
  audit_.Kick();
  if constexpr (std::is_same_v<T, v1::App>) ShowEndingApps();
  if (records.empty()) return consequences;
  // Should the vault not answer now, housekeeping goes on.
  if (const absl::Status erased = ledger_.Sweep(records, writer.passport); !erased.ok()) {
    Log(LogLevel::kWarning, "secret_cleanup_failed", {{"status", erased}});
  }
  return consequences;
}

template <typename T>
absl::StatusOr<T> Catalog::Get(const std::string& slug) {
  T resource;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const auto stored, Store::FindBySlug(tx, ResourceTraits<T>::kKind, slug));
    if (!stored) return absl::NotFoundError(absl::StrCat("no ", ResourceTraits<T>::kKind, " ", slug.substr(0, 64)));
    return resource.ParseFromString(stored->body) ? absl::OkStatus() : error::DamagedResource();
  }));
  HideSecretInternals(resource);
  return resource;
}

template <typename T>
absl::StatusOr<std::vector<T>> Catalog::List(int32_t page_size, const std::string& page_token,
                                             std::string* next_page_token) {
  if (page_size < 0 || page_size > kMaxPage) return InvalidField("pageSize", "must be 0 to 1000");
  const size_t page = page_size == 0 ? kDefaultPage : static_cast<size_t>(page_size);
  std::vector<T> resources;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    resources.clear();
    next_page_token->clear();
    ASSIGN_OR_RETURN(const auto all, Store::List(tx, ResourceTraits<T>::kKind));
    for (const Store::Resource& stored : all) {
      if (stored.slug <= page_token && !page_token.empty()) continue;
      if (resources.size() == page) {
        *next_page_token = resources.back().slug();
        break;
      }
      if (!resources.emplace_back().ParseFromString(stored.body)) {
        return error::DamagedResource();
      }
      HideSecretInternals(resources.back());
    }
    return absl::OkStatus();
  }));
  return resources;
}

void Catalog::RecordDenial(const Denial& denial, const Writer& writer) {
  audit::v1::Event event = ConfigEvent("config.denied", {denial.kind, denial.uid, denial.slug}, writer);
  event.set_decision(audit::v1::DECISION_DENIED);
  event.set_rule(denial.rule);
  auto& details = *event.mutable_details();
  if (!denial.fields.empty()) details["fields"] = JoinFields(denial.fields);
  if (denial.dry_run) details["dry_run"] = "true";
  if (const absl::Status recorded = audit_.Record(std::move(event)); !recorded.ok()) {
    Log(LogLevel::kWarning, "denial_not_recorded", {{"status", recorded}});
  }
}

absl::StatusOr<v1::ApplyResponse> Catalog::Apply(const v1::ApplyRequest& request, const Writer& writer) {
  Batch batch(parts_, writer);
  RETURN_IF_ERROR(batch.Load());
  std::set<std::string> seen;
  const auto draft_all = [&](const auto& resources, const std::string& field) -> absl::Status {
    for (int i = 0; i < resources.size(); ++i) {
      const std::string prefix = absl::StrCat(field, "[", i, "].");
      if (!seen.insert(absl::StrCat(field, " ", resources.Get(i).slug())).second) {
        return InvalidField(prefix + "slug", "stands in the file twice");
      }
      RETURN_IF_ERROR(batch.Draft(resources.Get(i), Batch::Mode::kApply, prefix));
    }
    return absl::OkStatus();
  };
  absl::Status drafted = draft_all(request.apps(), "apps");
  if (drafted.ok()) drafted = draft_all(request.credentials(), "credentials");
  if (drafted.ok()) drafted = draft_all(request.mcp_servers(), "mcpServers");
  RETURN_IF_ERROR(Admit(batch, drafted, request.dry_run(), writer));
  batch.Foretell();
  RETURN_IF_ERROR(request.dry_run() ? batch.Preview() : batch.Commit());
  v1::ApplyResponse response;
  for (const auto& change : batch.changes()) {
    v1::ApplyResponse::Result& result = *response.add_results();
    result.set_kind(std::string(change->kind));
    result.set_slug(change->slug);
    result.set_action(!change->before           ? v1::ApplyResponse::CREATED
                      : change->changes.empty() ? v1::ApplyResponse::UNCHANGED
                                                : v1::ApplyResponse::UPDATED);
    for (const auto& entry : change->changes) *result.add_changes() = entry;
    for (const auto& warning : change->warnings) *result.add_warnings() = warning;
    for (const auto& consequence : change->consequences) *result.add_consequences() = consequence;
  }
  return response;
}

#define INSTANTIATE(T)                                                                                                 \
  template absl::StatusOr<Catalog::Written<T>> Catalog::Create(const T&, bool, const Writer&);                         \
  template absl::StatusOr<Catalog::Written<T>> Catalog::Update(const T&, bool, const Writer&);                         \
  template absl::StatusOr<std::vector<v1::Consequence>> Catalog::Delete<T>(const std::string&, int64_t, const Writer&, \
                                                                           bool);                                      \
  template absl::StatusOr<T> Catalog::Get(const std::string&);                                                         \
  template absl::StatusOr<std::vector<T>> Catalog::List(int32_t, const std::string&, std::string*)
INSTANTIATE(v1::McpServer);
INSTANTIATE(v1::App);
INSTANTIATE(v1::Credential);
#undef INSTANTIATE

}  // namespace sallyport::registry

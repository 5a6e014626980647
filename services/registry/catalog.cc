// SPDX-License-Identifier: Apache-2.0
#include "services/registry/catalog.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/json_log.h"
#include "common/status_macros.h"
#include "services/registry/batch.h"
#include "services/registry/config_event.h"
#include "services/registry/errors.h"

namespace sallyport::registry {
namespace {

constexpr int kMaxPage = 1000;
constexpr int kDefaultPage = 100;
// A write whose outcome is unknown after this long is given up.
constexpr absl::Duration kUnsettledWriteKept = absl::Hours(1);

template <typename T>
absl::StatusOr<Catalog::Written<T>> Written(Batch& batch, bool dry_run) {
  RETURN_IF_ERROR(dry_run ? batch.Preview() : batch.Commit());
  for (const auto& change : batch.changes()) {
    if (change->implied) continue;
    Catalog::Written<T> written{dynamic_cast<const T&>(*change->after), change->warnings};
    HideSecretInternals(written.resource);
    return written;
  }
  return absl::InternalError("a write without a resource");
}

// Servers that name an app: it cannot go before they do.
std::vector<std::string> UsersOf(const v1::App& app, const std::vector<v1::McpServer>& servers) {
  std::vector<std::string> users;
  for (const v1::McpServer& server : servers) {
    if (server.app_auth().oauth_authorization().app_uid() == app.uid()) users.push_back(server.slug());
  }
  return users;
}
template <typename T>
std::vector<std::string> UsersOf(const T& /*resource*/, const std::vector<v1::McpServer>& /*servers*/) {
  return {};
}

}  // namespace

Catalog::Catalog(Database& database, AuditOutbox& audit, SecretVault& vault, const Clock& clock, Options options)
    : database_(database), audit_(audit), vault_(vault), clock_(clock), options_(std::move(options)) {}

template <typename T>
absl::StatusOr<Catalog::Written<T>> Catalog::Create(const T& resource, bool dry_run, const Writer& writer) {
  Batch batch(*this, writer);
  RETURN_IF_ERROR(batch.Load());
  RETURN_IF_ERROR(batch.Admit(batch.Draft(resource, Batch::Mode::kCreate, ""), dry_run));
  return registry::Written<T>(batch, dry_run);
}

template <typename T>
absl::StatusOr<Catalog::Written<T>> Catalog::Update(const T& resource, bool dry_run, const Writer& writer) {
  Batch batch(*this, writer);
  RETURN_IF_ERROR(batch.Load());
  RETURN_IF_ERROR(batch.Admit(batch.Draft(resource, Batch::Mode::kUpdate, ""), dry_run));
  return registry::Written<T>(batch, dry_run);
}

template <typename T>
absl::Status Catalog::Delete(const std::string& slug, int64_t version, const Writer& writer) {
  std::vector<Store::Retired> erase;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    T resource;
    ASSIGN_OR_RETURN(const auto stored, Store::FindBySlug(tx, ResourceTraits<T>::kKind, slug));
    if (!stored) return absl::NotFoundError(absl::StrCat("no ", ResourceTraits<T>::kKind, " ", slug.substr(0, 64)));
    if (version != 0 && version != stored->version) {
      return absl::AbortedError(absl::StrCat(slug, " is at version ", stored->version, ": read it again"));
    }
    if (!resource.ParseFromString(stored->body)) return error::DamagedResource();
    ASSIGN_OR_RETURN(const auto all, Store::List(tx, ResourceTraits<v1::McpServer>::kKind));
    std::vector<v1::McpServer> servers(all.size());
    for (size_t i = 0; i < all.size(); ++i) servers[i].ParseFromString(all[i].body);
    if (const auto users = UsersOf(resource, servers); !users.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(slug, " is used by ", absl::StrJoin(users, ", "), ": change or delete them first"));
    }
    RETURN_IF_ERROR(Store::Remove(tx, ResourceTraits<T>::kKind, *stored));
    // Its secrets, those of former authentication types too. Should the vault not answer now, housekeeping goes on.
    ASSIGN_OR_RETURN(erase, Store::AllRetired(tx));
    erase.erase(std::remove_if(erase.begin(), erase.end(),
                               [&](const auto& secret) { return !absl::StartsWith(secret.record, stored->uid + "/"); }),
                erase.end());
    ForEachSecret(resource, [&](const SecretField& field) {
      if (!field.secret->set()) return;
      erase.push_back({field.secret->vault_record(), std::string(ResourceTraits<T>::kSecretKind),
                       field.secret->version(), clock_.Now(), ""});
    });
    for (Store::Retired& secret : erase) {
      secret.until = Store::kErasing;
      RETURN_IF_ERROR(Store::Retire(tx, secret));
    }
    audit::v1::Event event = ConfigEvent("config.deleted", {ResourceTraits<T>::kKind, stored->uid, slug}, writer);
    event.set_decision(audit::v1::DECISION_ALLOWED);
    event.set_rule("admin");
    return audit_.Append(tx, std::move(event));
  }));
  audit_.Kick();
  if (const absl::Status erased = Erase(erase, writer.passport); !erased.ok()) {
    Log(LogLevel::kWarning, "secret_cleanup_failed", {{"status", erased}});
  }
  return absl::OkStatus();
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
  Batch batch(*this, writer);
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
  RETURN_IF_ERROR(batch.Admit(drafted, request.dry_run()));
  RETURN_IF_ERROR(request.dry_run() ? batch.Preview() : batch.Commit());
  v1::ApplyResponse response;
  for (const auto& change : batch.changes()) {
    v1::ApplyResponse::Result& result = *response.add_results();
    result.set_kind(change->kind);
    result.set_slug(change->slug);
    result.set_action(change->before == nullptr ? v1::ApplyResponse::CREATED
                      : change->changes.empty() ? v1::ApplyResponse::UNCHANGED
                                                : v1::ApplyResponse::UPDATED);
    for (const auto& entry : change->changes) *result.add_changes() = entry;
    for (const auto& warning : change->warnings) *result.add_warnings() = warning;
  }
  return response;
}

absl::Status Catalog::EraseUnusedSecrets() {
  std::vector<Store::Retired> expired;
  std::vector<Store::SecretWrite> given_up;
  std::vector<Store::Replaced> replaced;
  const absl::Time now = clock_.Now();
  // Decided in the store first: from here on no write can refer to any of them, so the vault may forget them whenever
  // it answers.
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(expired, Store::ClaimExpired(tx, now));
    ASSIGN_OR_RETURN(given_up, Store::GiveUpSecretWrites(tx, now - kUnsettledWriteKept));
    ASSIGN_OR_RETURN(replaced, Store::AllReplaced(tx));
    return absl::OkStatus();
  }));
  absl::Status first = Erase(expired, "");
  first.Update(TakeBack(given_up, "", false));
  first.Update(Unpin(replaced, ""));
  return first;
}

absl::Status Catalog::Erase(const std::vector<Store::Retired>& secrets, const std::string& passport) {
  absl::Status first;
  for (const Store::Retired& secret : secrets) {
    absl::Status status = vault_.DeleteThrough(secret.vault_kind, secret.record, secret.version, passport);
    if (status.ok()) {
      status = database_.Write([&](Transaction& tx) { return Store::ForgetErased(tx, secret.record, secret.version); });
    }
    first.Update(status);
  }
  return first;
}

absl::Status Catalog::Unpin(const std::vector<Store::Replaced>& secrets, const std::string& passport) {
  absl::Status first;
  for (const Store::Replaced& secret : secrets) {
    absl::Status status = vault_.Unpin(secret.vault_kind, secret.record, secret.version, passport);
    if (status.ok()) {
      status = database_.Write([&](Transaction& tx) { return Store::ForgetReplaced(tx, secret); });
    }
    first.Update(status);
  }
  return first;
}

absl::Status Catalog::TakeBack(const std::vector<Store::SecretWrite>& writes, const std::string& passport,
                               bool keep_listed) {
  absl::Status first;
  for (const Store::SecretWrite& write : writes) {
    absl::Status status = vault_.DeleteWrittenBy(write.vault_kind, write.record, write.write, passport);
    if (status.ok() && !keep_listed) {
      status = database_.Write([&](Transaction& tx) { return Store::ForgetSecretWrite(tx, write); });
    }
    first.Update(status);
  }
  return first;
}

#define INSTANTIATE(T)                                                                         \
  template absl::StatusOr<Catalog::Written<T>> Catalog::Create(const T&, bool, const Writer&); \
  template absl::StatusOr<Catalog::Written<T>> Catalog::Update(const T&, bool, const Writer&); \
  template absl::Status Catalog::Delete<T>(const std::string&, int64_t, const Writer&);        \
  template absl::StatusOr<T> Catalog::Get(const std::string&);                                 \
  template absl::StatusOr<std::vector<T>> Catalog::List(int32_t, const std::string&, std::string*)
INSTANTIATE(v1::McpServer);
INSTANTIATE(v1::App);
INSTANTIATE(v1::Credential);
#undef INSTANTIATE

}  // namespace sallyport::registry

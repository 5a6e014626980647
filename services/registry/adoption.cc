// SPDX-License-Identifier: Apache-2.0
#include "services/registry/adoption.h"

#include <algorithm>

#include "absl/strings/match.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/status_macros.h"
#include "services/registry/binding.h"
#include "services/registry/resource.h"
#include "services/registry/secret_fields.h"
#include "services/registry/secret_ledger.h"
#include "services/registry/store.h"

namespace sallyport::registry {
namespace {

constexpr size_t kBatch = 200;

constexpr GaugeInfo kLeft = {
    .name = "sallyport_registry_secrets_to_adopt",
    .help = "Secrets and bindings of an earlier release that were not given their origins yet",
    .unit = "secrets",
    .rise = "An upgrade is under way. Staying above 0: some cannot be adopted",
    .action = "The log event `secret_adoption_running` of the registry says how many are left and why",
};

template <typename T>
Origins BindingOriginsOf(const T& resource) {
  return ResourceTraits<T>::BindingOrigins(resource, ResourceUrls(resource));
}

// A write that is not settled, or was given up a moment ago, may have put a version there.
absl::StatusOr<bool> IsBeingWritten(Transaction& tx, const std::string& record) {
  ASSIGN_OR_RETURN(const auto versions, SecretLedger::List(tx));
  return std::any_of(versions.begin(), versions.end(), [&](const SecretLedger::Version& version) {
    return version.record == record && !version.write.empty();
  });
}

}  // namespace

Adoption::Adoption(Database& database, SecretVault& vault)
    : database_(database), vault_(vault), left_(MetricGauge(kLeft)) {}

template <typename T>
absl::Status Adoption::Collect(Transaction& tx, std::vector<Item>& items) {
  ASSIGN_OR_RETURN(const auto all, Store::List(tx, ResourceTraits<T>::kKind));
  for (const Store::Resource& stored : all) {
    T resource;
    if (!resource.ParseFromString(stored.body)) continue;
    if constexpr (Bindable<T>) {
      const Origins origins = BindingOriginsOf(resource);
      if (origins.empty() || resource.has_binding()) continue;
      items.push_back({{std::string(ResourceTraits<T>::kBindingKind), BindingRecord(stored.uid), 0, origins},
                       ResourceTraits<T>::kKind,
                       stored.slug,
                       stored.uid});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Adoption::Item>> Adoption::Left() {
  std::vector<Item> items;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    items.clear();
    // The ledger has every version that is referred to, or may be again, with its origins.
    ASSIGN_OR_RETURN(const auto versions, SecretLedger::List(tx));
    for (const SecretLedger::Version& version : versions) {
      const bool used = version.state == SecretLedger::State::kLive || version.state == SecretLedger::State::kRetired;
      if (!used || absl::EndsWith(version.record, BindingRecord("")) || version.origins.empty() ||
          done_.count({version.record, version.version}) > 0)
        continue;
      items.push_back({{version.kind, version.record, version.version, version.origins}, "", "", ""});
    }
    RETURN_IF_ERROR(Collect<v1::McpServer>(tx, items));
    return Collect<v1::App>(tx, items);
  }));
  return items;
}

template <typename T>
absl::Status Adoption::Fill(Transaction& tx, const Item& item, int64_t version) {
  ASSIGN_OR_RETURN(const bool being_written, IsBeingWritten(tx, item.adopted.record));
  if (being_written) return absl::OkStatus();
  SecretLedger::Version made;
  made.record = item.adopted.record;
  made.kind = item.adopted.kind;
  made.version = version;
  made.origins = item.adopted.origins;
  ASSIGN_OR_RETURN(const auto stored, Store::FindBySlug(tx, item.kind, item.slug));
  T resource;
  const bool there = stored && stored->uid == item.uid && resource.ParseFromString(stored->body);
  if (there && resource.binding().version() == version) return absl::OkStatus();  // Another replica was faster.
  if (!there) return SecretLedger::Erase(tx, made);
  // Saved meanwhile, with a binding of its own or without need of one.
  if (resource.has_binding() || BindingOriginsOf(resource) != item.adopted.origins) {
    return SecretLedger::Discard(tx, made);
  }
  resource.mutable_binding()->set_vault_record(item.adopted.record);
  resource.mutable_binding()->set_version(version);
  RETURN_IF_ERROR(SecretLedger::Settle(tx, "", 0, {made}));
  return Store::Amend(tx, item.kind, {stored->uid, stored->slug, stored->version, resource.SerializeAsString()});
}

absl::Status Adoption::AdoptBatch(const std::vector<Item>& batch) {
  std::vector<SecretVault::Adopted> entries;
  for (const Item& item : batch) entries.push_back(item.adopted);
  ASSIGN_OR_RETURN(const std::vector<int64_t> versions, vault_.Adopt(entries, false));
  for (size_t i = 0; i < batch.size(); ++i) {
    const SecretVault::Adopted& adopted = batch[i].adopted;
    if (adopted.version == 0) continue;
    done_.insert({adopted.record, adopted.version});
    if (versions[i] == 0) Log(LogLevel::kWarning, "secret_missing_in_vault", {{"record", adopted.record}});
  }
  return database_.Write([&](Transaction& tx) -> absl::Status {
    for (size_t i = 0; i < batch.size(); ++i) {
      if (batch[i].adopted.version != 0 || versions[i] == 0) continue;
      const bool of_app = batch[i].kind == ResourceTraits<v1::App>::kKind;
      RETURN_IF_ERROR(of_app ? Fill<v1::App>(tx, batch[i], versions[i])
                             : Fill<v1::McpServer>(tx, batch[i], versions[i]));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<bool> Adoption::AdoptAll() {
  RETURN_IF_ERROR(vault_.Adopt({}, false).status());  // Asked first: mostly there is nothing to do.
  ASSIGN_OR_RETURN(std::vector<Item> left, Left());
  if (left.empty()) {
    RETURN_IF_ERROR(vault_.Adopt({}, true).status());
    return true;
  }
  while (!left.empty()) {
    left_.Set(static_cast<double>(left.size()));
    Log(LogLevel::kInfo, "secret_adoption_running", {{"left", left.size()}});
    const auto begin = left.end() - static_cast<ptrdiff_t>(std::min(kBatch, left.size()));
    RETURN_IF_ERROR(AdoptBatch({begin, left.end()}));
    left.erase(begin, left.end());
  }
  return false;  // What was saved meanwhile is looked through once more.
}

absl::StatusOr<bool> Adoption::Run() {
  absl::StatusOr<bool> finished = AdoptAll();
  if (absl::IsFailedPrecondition(finished.status()) && ReasonOf(finished.status()) == "adopted") finished = true;
  if (finished.ok() && *finished) left_.Set(0);
  return finished;
}

}  // namespace sallyport::registry

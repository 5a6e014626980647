// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "absl/strings/str_cat.h"

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/registry/batch.h"
#include "services/registry/config_event.h"
#include "services/registry/store.h"

// The second half of a write: into the vault, into the store, and what is left over.
namespace sallyport::registry {
namespace {

constexpr size_t kBindingNameBytes = 16;

SecretLedger::Version Versioned(const BindingPlan& plan, int64_t version) {
  SecretLedger::Version versioned;
  versioned.record = plan.record;
  versioned.kind = plan.kind;
  versioned.version = version;
  versioned.origins = plan.origins;
  return versioned;
}

bool Writes(const BindingPlan& plan) {
  return plan.step == BindingPlan::Step::kPut || plan.step == BindingPlan::Step::kRebind;
}

void SetBinding(AnyResource& resource, const BindingPlan& plan, int64_t version) {
  std::visit(
      [&](auto& message) {
        if constexpr (Bindable<std::decay_t<decltype(message)>>) {
          message.clear_binding();
          if (version == 0) return;
          message.mutable_binding()->set_vault_record(plan.record);
          message.mutable_binding()->set_version(version);
        }
      },
      resource);
}

}  // namespace

void Batch::PlanBindings() {
  const RetiredVersion retired = Retired();
  for (const auto& change : changes_) {
    if (change->unchanged()) continue;  // A value that is given makes a change until the vault has compared it.
    std::visit(
        [&](const auto& after) {
          using T = std::decay_t<decltype(after)>;
          if constexpr (Bindable<T>) {
            const T* before = change->before ? &std::get<T>(*change->before) : nullptr;
            change->binding = PlanBinding(before, *change->before_urls, after, *change->urls, change->uid, retired);
          }
        },
        change->after);
  }
}

absl::Status Batch::Announce() {
  write_ = RandomToken("", 16);
  const auto announce = [this](const std::string& record, absl::string_view kind) {
    SecretLedger::Version version;
    version.record = record;
    version.kind = std::string(kind);
    version.write = write_;
    announced_.push_back(std::move(version));
  };
  for (const auto& change : changes_) {
    for (const SecretPlan::Put& put : change->plan.puts) announce(put.record, change->vault_kind);
    for (const auto& kept : change->plan.rebind) announce(kept.record, change->vault_kind);
    if (Writes(change->binding)) announce(change->binding.record, change->binding.kind);
  }
  return announced_.empty() ? absl::OkStatus() : parts_.ledger.Announce(announced_);
}

absl::Status Batch::PutSecrets(Change& change) {
  struct Stored {
    int64_t version;
    const SecretPlan::Put* put;
  };
  std::map<std::string, Stored> stored;
  const std::string kind(change.vault_kind);
  for (const SecretPlan::Put& put : change.plan.puts) {
    RETURN_IF_ERROR(parts_.ledger.Step(absl::StrCat("put ", put.record)));
    ASSIGN_OR_RETURN(
        const SecretVault::Stored answer,
        parts_.vault.Put(kind, put.record, {put.value, put.reach.origins, put.base, write_}, writer_.passport));
    stored[put.path] = {answer.version, &put};
  }
  ForEachSecret(MessageOf(change.after), [&](const SecretField& field) {
    const auto entry = stored.find(field.path);
    if (entry == stored.end()) return;
    const std::string record = absl::StrCat(change.uid, "/", field.path);
    const auto& [version, put] = entry->second;
    if (!field.secret->set() || field.secret->version() != version) {
      field.secret->Clear();
      field.secret->set_set(true);
      field.secret->set_version(version);
      field.secret->set_vault_record(record);
      field.secret->set_public_jwk(put->public_jwk);
      *field.secret->mutable_updated_at() = ToTimestamp(now_);
    }
    change.live.push_back({record, kind, version, SecretLedger::State::kLive, "", put->reach.origins,
                           absl::InfinitePast(), FromTimestamp(field.secret->updated_at()), put->reach.onward,
                           put->public_jwk});
  });
  change.plan.puts.clear();  // The values are in the vault now; the diff goes by versions.
  return absl::OkStatus();
}

// The first binding of an app must have no predecessor. What an unsettled write has put there gives way to this one;
// what else is there, and this store does not know, only a credential-admin takes the place of.
absl::StatusOr<int64_t> Batch::PutBinding(const Change& change) {
  const BindingPlan& plan = change.binding;
  const auto put = [&](bool first) -> absl::StatusOr<SecretVault::Stored> {
    return parts_.vault.Put(plan.kind, plan.record, {RandomBytes(kBindingNameBytes), plan.origins, 0, write_, first},
                            writer_.passport);
  };
  absl::StatusOr<SecretVault::Stored> stored = put(plan.first);
  if (plan.first && absl::IsAborted(stored.status())) {
    RETURN_IF_ERROR(parts_.ledger.AbandonOthers(plan.record, write_, writer_.passport));
    stored = put(!writer_.credential_admin);
    if (absl::IsAborted(stored.status())) {
      if (plan.missing) return 0;  // Adoption has made it, and will fill it in.
      return absl::AbortedError(absl::StrCat(change.slug, " was changed meanwhile: read it again"));
    }
  }
  RETURN_IF_ERROR(stored.status());
  return stored->version;
}

absl::Status Batch::Bind(Change& change) {
  const std::string kind(change.vault_kind);
  std::map<std::string, int64_t> rebound;
  for (const SecretLedger::Version& kept : change.plan.rebind) {
    RETURN_IF_ERROR(parts_.ledger.Step(absl::StrCat("rebind ", kept.record)));
    ASSIGN_OR_RETURN(rebound[kept.record],
                     parts_.vault.Rebind(kind, kept.record, kept.version, kept.origins, write_, writer_.passport));
    SecretLedger::Version version = kept;
    version.kind = kind;
    version.version = rebound[kept.record];
    change.live.push_back(std::move(version));
  }
  // The value is the one that was given then: only its version is another.
  ForEachSecret(MessageOf(change.after), [&](const SecretField& field) {
    const auto found = rebound.find(field.secret->vault_record());
    if (field.secret->set() && found != rebound.end()) field.secret->set_version(found->second);
  });
  BindingPlan& plan = change.binding;
  if (Writes(plan)) {
    RETURN_IF_ERROR(parts_.ledger.Step(absl::StrCat("bind ", plan.record)));
    int64_t version = 0;
    if (plan.step == BindingPlan::Step::kPut) {
      ASSIGN_OR_RETURN(version, PutBinding(change));
    } else {
      ASSIGN_OR_RETURN(
          version, parts_.vault.Rebind(plan.kind, plan.record, plan.version, plan.origins, write_, writer_.passport));
    }
    if (version == 0) {
      plan.step = BindingPlan::Step::kNone;
      return absl::OkStatus();
    }
    SetBinding(change.after, plan, version);
    change.live.push_back(Versioned(plan, version));
  }
  if (plan.step == BindingPlan::Step::kResume) SetBinding(change.after, plan, plan.version);
  if (plan.step == BindingPlan::Step::kRetire) SetBinding(change.after, plan, 0);
  return absl::OkStatus();
}

absl::Status Batch::FillVault() {
  for (const auto& change : changes_) RETURN_IF_ERROR(PutSecrets(*change));
  RETURN_IF_ERROR(Diff());  // Now the vault has compared.
  for (const auto& change : changes_) {
    if (!change->unchanged()) RETURN_IF_ERROR(Bind(*change));
  }
  return absl::OkStatus();
}

void Batch::Stamp(Change& change) const {
  std::visit(
      [&](auto& after) {
        after.set_version(change.expected_version + 1);
        *after.mutable_updated_at() = ToTimestamp(now_);
      },
      change.after);
}

// Adoption may have filled in a binding since this was loaded; it makes no version, so nothing else tells.
void Batch::KeepAdopted(Change& change, const std::string& body) const {
  if (change.binding.step != BindingPlan::Step::kNone) return;
  std::visit(
      [&](auto& after) {
        using T = std::decay_t<decltype(after)>;
        if constexpr (Bindable<T>) {
          T stored;
          if (!after.has_binding() && stored.ParseFromString(body) && stored.has_binding()) {
            *after.mutable_binding() = stored.binding();
          }
        }
      },
      change.after);
}

absl::Status Batch::Record(Transaction& tx, const Change& change) {
  audit::v1::Event event =
      ConfigEvent(change.before ? "config.updated" : "config.created", {change.kind, change.uid, change.slug}, writer_);
  event.set_decision(audit::v1::DECISION_ALLOWED);
  event.set_rule(change.implied ? "first_origin" : "admin");
  auto& details = *event.mutable_details();
  details["version"] = absl::StrCat(change.expected_version + 1);
  std::vector<std::string> fields;
  for (const auto& entry : change.changes) fields.push_back(entry.field());
  details["fields"] = JoinFields(fields);
  return parts_.audit.Append(tx, std::move(event));
}

absl::Status Batch::Save(Transaction& tx, Change& change) {
  if (change.before) {
    ASSIGN_OR_RETURN(const auto stored, Store::FindBySlug(tx, change.kind, change.slug));
    if (stored && stored->version == change.expected_version) KeepAdopted(change, stored->body);
  }
  RETURN_IF_ERROR(
      Store::Save(tx, change.kind,
                  {change.uid, change.slug, change.expected_version + 1, MessageOf(change.after).SerializeAsString()},
                  change.expected_version));
  const std::string kind(change.vault_kind);
  for (SecretLedger::Version version : change.plan.retire) {
    version.kind = kind;
    RETURN_IF_ERROR(SecretLedger::Retire(tx, version, now_ + SecretLedger::kKeepRetired));
  }
  for (SecretLedger::Version version : change.plan.erase) {
    version.kind = kind;
    RETURN_IF_ERROR(SecretLedger::Erase(tx, version));
  }
  const BindingPlan& plan = change.binding;
  if (plan.step == BindingPlan::Step::kRetire) {
    RETURN_IF_ERROR(SecretLedger::Retire(tx, Versioned(plan, plan.version), now_ + SecretLedger::kKeepRetired));
  }
  if (plan.step == BindingPlan::Step::kResume) {
    RETURN_IF_ERROR(SecretLedger::Resume(tx, plan.record, plan.version));
  }
  // Whatever is referred to again must not be erased when its retirement ends, and cannot be once that has begun.
  for (const SecretLedger::Version& version : change.plan.resumed) {
    RETURN_IF_ERROR(SecretLedger::Resume(tx, version.record, version.version));
  }
  if (change.before && change.kind == ResourceTraits<v1::Credential>::kKind) {
    // What edges keep of it is not theirs to tell from what it is now: no server's version changes with it.
    google::protobuf::RepeatedPtrField<v1::Invalidation> invalidations;
    invalidations.Add()->set_kind(v1::Invalidation::SECRET);
    invalidations.Mutable(0)->set_key(change.uid);
    RETURN_IF_ERROR(Store::AppendInvalidations(tx, invalidations));
  }
  return Record(tx, change);
}

absl::Status Batch::StoreAll() {
  RETURN_IF_ERROR(parts_.ledger.Step("commit"));
  return parts_.database.Write([&](Transaction& tx) -> absl::Status {
    std::vector<SecretLedger::Version> live;
    for (const auto& change : changes_) {
      if (!change->unchanged()) live.insert(live.end(), change->live.begin(), change->live.end());
    }
    RETURN_IF_ERROR(SecretLedger::Settle(tx, write_, announced_.size(), live));
    for (const auto& change : changes_) {
      if (!change->unchanged()) RETURN_IF_ERROR(Save(tx, *change));
    }
    for (const auto& change : changes_) RETURN_IF_ERROR(CheckReferencesStillThere(tx, *change));
    return parts_.ledger.Step("commit transaction");
  });
}

void Batch::Withdraw() {
  if (announced_.empty()) return;
  std::set<std::string> records;
  for (const SecretLedger::Version& version : announced_) records.insert(version.record);
  absl::Status status = parts_.ledger.Abandon(write_);
  status.Update(parts_.ledger.Sweep(records, writer_.passport));
  if (!status.ok()) Log(LogLevel::kWarning, "secret_cleanup_failed", {{"status", status}});
}

// What this write has put out of use goes at once; should the vault not answer now, housekeeping goes on.
void Batch::SweepFormer() {
  std::set<std::string> records;
  for (const auto& change : changes_) {
    if (change->unchanged()) continue;
    for (const SecretLedger::Version& version : change->plan.erase) records.insert(version.record);
    for (const SecretLedger::Version& version : change->live) {
      if (change->before) records.insert(version.record);
    }
  }
  if (records.empty()) return;
  const absl::Status swept = parts_.ledger.Sweep(records, writer_.passport);
  if (!swept.ok()) Log(LogLevel::kWarning, "secret_cleanup_failed", {{"status", swept}});
}

absl::Status Batch::Commit() {
  RETURN_IF_ERROR(Diff());  // Before the vault is troubled.
  PlanBindings();
  RETURN_IF_ERROR(Announce());
  if (const absl::Status filled = FillVault(); !filled.ok()) {
    Withdraw();
    return filled;
  }
  for (const auto& change : changes_) {
    if (!change->unchanged()) Stamp(*change);
  }
  const absl::Status written = StoreAll();
  // After another UNAVAILABLE it may be there all the same; housekeeping finds out.
  const bool lost =
      absl::IsAborted(written) || absl::IsAlreadyExists(written) || ReasonOf(written) == "audit_unavailable";
  if (lost) Withdraw();
  RETURN_IF_ERROR(written);
  parts_.audit.Kick();
  SweepFormer();
  return absl::OkStatus();
}

}  // namespace sallyport::registry

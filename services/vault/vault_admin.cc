// SPDX-License-Identifier: Apache-2.0
#include "services/vault/vault_admin.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/vault/rewrap.h"

namespace sallyport::vault {
namespace {

constexpr int kRewrapLimit = 2'000;

audit::v1::Event AdminEvent(absl::string_view type, const Caller& caller) {
  return MakeEvent(type, audit::v1::DECISION_ALLOWED, "admin", caller);
}

constexpr GaugeInfo kRemaining = {
    .name = "sallyport_vault_rewrap_remaining",
    .help = "Data keys under a term before the active one, as of the last status or rewrap",
    .unit = "data keys",
    .rise = "The key-encryption key was rotated, and data keys are still under the old one",
    .action = "Run `sallyport vault rewrap` until it is 0, and only then remove the old key",
};

prometheus::Gauge& RemainingGauge() {
  static prometheus::Gauge& gauge = MetricGauge(kRemaining);
  return gauge;
}

}  // namespace

void VaultAdmin::NoteRemaining() {
  prometheus::Gauge& gauge = RemainingGauge();
  int64_t remaining = 0;
  const absl::Status counted = database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(remaining, RewrapJob::Remaining(tx));
    return absl::OkStatus();
  });
  if (counted.ok()) {
    gauge.Set(static_cast<double>(remaining));
  }
}

absl::StatusOr<v1::GetStatusResponse> VaultAdmin::GetStatus() {
  keyring_.EnsureActive(clock_.Now()).IgnoreError();  // Its outcome is what is asked for.
  const Keyring::State state = keyring_.state();
  const std::set<uint32_t> damaged = keyring_.damaged_terms();
  v1::GetStatusResponse response;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    response.Clear();
    ASSIGN_OR_RETURN(const std::vector<TermRow> terms, ListTerms(tx));
    ASSIGN_OR_RETURN(auto keys, CountOwnerKeysByTerm(tx));
    for (const TermRow& term : terms) {
      auto* out = response.add_terms();
      out->set_term(static_cast<int32_t>(term.term));
      out->set_state(damaged.count(term.term) > 0 ? Keyring::kDamaged : term.state);
      out->set_data_keys(keys[term.term]);
      out->set_kek_id(term.wrapped.key_id);
      *out->mutable_created_at() = ToTimestamp(term.created_at);
      if (term.state == "active") {
        response.set_kek_id(term.wrapped.key_id);
      }
    }
    ASSIGN_OR_RETURN(const int64_t remaining, RewrapJob::Remaining(tx));
    response.set_rewrap_remaining(remaining);
    RemainingGauge().Set(static_cast<double>(remaining));
    // Of a sealed store it is not known.
    if (const absl::StatusOr<bool> adopted = keyring_.Adopted(tx); adopted.ok()) {
      response.set_adopted(*adopted);
    }
    return absl::OkStatus();
  }));
  response.set_state(state.state);
  response.set_reason(state.reason);
  response.set_deployment_id(state.deployment_id);
  return response;
}

absl::StatusOr<v1::RotateTermResponse> VaultAdmin::RotateTerm(const Caller& caller) {
  RETURN_IF_ERROR(keyring_.EnsureActive(clock_.Now()));
  const auto record = [&](Transaction& tx, uint32_t term) {
    audit::v1::Event event = AdminEvent("vault.term_rotated", caller);
    (*event.mutable_details())["term"] = absl::StrCat(term);
    return trail_.Append(tx, std::move(event));
  };
  v1::RotateTermResponse response;
  ASSIGN_OR_RETURN(const uint32_t term, keyring_.RotateTerm(record));
  response.set_term(static_cast<int32_t>(term));
  trail_.Kick();
  NoteRemaining();
  Log(LogLevel::kInfo, "vault_term_rotated", {{"term", term}});
  return response;
}

absl::StatusOr<v1::RewrapResponse> VaultAdmin::Rewrap(const Caller& caller) {
  RETURN_IF_ERROR(keyring_.EnsureActive(clock_.Now()));
  RETURN_IF_ERROR(trail_.Record(AdminEvent("vault.rewrap", caller)));
  ASSIGN_OR_RETURN(const RewrapJob::Result done, RewrapJob(database_, keyring_).Run(kRewrapLimit));
  RemainingGauge().Set(static_cast<double>(done.remaining));
  v1::RewrapResponse response;
  response.set_rewrapped(done.terms + done.keys);
  response.set_remaining(done.remaining);
  response.set_damaged(done.damaged);
  response.set_records(done.records);
  return response;
}

absl::StatusOr<v1::DestroyTermResponse> VaultAdmin::DestroyTerm(const Caller& caller,
                                                                const v1::DestroyTermRequest& request) {
  RETURN_IF_ERROR(keyring_.EnsureActive(clock_.Now()));
  if (request.term() < 1) {
    return InvalidField("term", "must be a term's number, as `sallyport vault status` shows them");
  }
  const auto record = [&](Transaction& tx) {
    audit::v1::Event event = AdminEvent("vault.term_destroyed", caller);
    (*event.mutable_details())["term"] = absl::StrCat(request.term());
    return trail_.Append(tx, std::move(event));
  };
  RETURN_IF_ERROR(keyring_.DestroyTerm(static_cast<uint32_t>(request.term()), record));
  trail_.Kick();
  Log(LogLevel::kWarning, "vault_term_destroyed", {{"term", request.term()}});
  return v1::DestroyTermResponse();
}

absl::StatusOr<v1::SealResponse> VaultAdmin::Seal(const Caller& caller) {
  // First the keys: sealing is for emergencies and must not wait for the audit.
  keyring_.Seal();
  Log(LogLevel::kWarning, "vault_sealed", {{"reason", "sealed_by_admin"}});
  RETURN_IF_ERROR(trail_.Record(AdminEvent("vault.sealed", caller)));
  return v1::SealResponse();
}

}  // namespace sallyport::vault

// SPDX-License-Identifier: Apache-2.0
#include "services/vault/vault_admin.h"

#include "absl/strings/str_cat.h"

#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/vault/ledger.h"

namespace sallyport::vault {
namespace {

constexpr int kRewrapLimit = 10'000;

audit::v1::Event AdminEvent(absl::string_view type, const Caller& caller) {
  return MakeEvent(type, audit::v1::DECISION_ALLOWED, "admin", caller);
}

}  // namespace

absl::StatusOr<v1::GetStatusResponse> VaultAdmin::GetStatus() {
  keyring_.EnsureActive(clock_.Now()).IgnoreError();  // Its outcome is what is asked for.
  const Keyring::State state = keyring_.state();
  v1::GetStatusResponse response;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    response.Clear();
    ASSIGN_OR_RETURN(const std::vector<TermRow> terms, ListTerms(tx));
    uint32_t active = 0;
    for (const TermRow& term : terms) {
      auto* out = response.add_terms();
      out->set_term(static_cast<int32_t>(term.term));
      out->set_state(term.state);
      out->set_kek_id(term.wrapped.key_id);
      *out->mutable_created_at() = ToTimestamp(term.created_at);
      if (term.state == "active") {
        active = term.term;
        response.set_kek_id(term.wrapped.key_id);
      }
    }
    ASSIGN_OR_RETURN(const int64_t remaining, CountOwnerKeysNotUnder(tx, active));
    response.set_rewrap_remaining(remaining);
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
  Log(LogLevel::kInfo, "vault_term_rotated", {{"term", term}});
  return response;
}

absl::StatusOr<v1::RewrapResponse> VaultAdmin::Rewrap(const Caller& caller) {
  RETURN_IF_ERROR(keyring_.EnsureActive(clock_.Now()));
  RETURN_IF_ERROR(trail_.Record(AdminEvent("vault.rewrap", caller)));
  ASSIGN_OR_RETURN(const Keyring::Rewrapped done, keyring_.Rewrap(kRewrapLimit));
  v1::RewrapResponse response;
  response.set_rewrapped(done.rewrapped);
  response.set_remaining(done.remaining);
  return response;
}

absl::StatusOr<v1::SealResponse> VaultAdmin::Seal(const Caller& caller) {
  // First the keys: sealing is for emergencies and must not wait for the audit.
  keyring_.Seal();
  Log(LogLevel::kWarning, "vault_sealed", {{"reason", "sealed_by_admin"}});
  RETURN_IF_ERROR(trail_.Record(AdminEvent("vault.sealed", caller)));
  return v1::SealResponse();
}

}  // namespace sallyport::vault

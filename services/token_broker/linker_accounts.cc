// SPDX-License-Identifier: Apache-2.0
// The part of Linker that has tokens in its hands: whether they are the account's that was meant, and where they go.
#include <utility>

#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/token_broker/linker.h"
#include "services/token_broker/provider_binding.h"

namespace sallyport::token_broker {
namespace {

absl::Status NotTaken(AccountVerdict verdict) {
  return WithReason(absl::PermissionDeniedError("this app does not take the account"), RefusalOf(verdict));
}

absl::Status Changed() { return absl::AbortedError("the account is not what was shown any more"); }

}  // namespace

absl::StatusOr<Linker::Former> Linker::FormerOf(const ConnectionKey& key, const Passport& passport) {
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord(key.subject, key.connection);
  const absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(get, passport.jwt);
  // One that cannot be read is mended by being linked anew.
  if (absl::IsNotFound(record.status()) || absl::IsDataLoss(record.status())) {
    return Former();
  }
  if (!record.ok()) {
    return record.status();
  }
  v1::TokenSet tokens;
  Former former;
  former.version = record->version();
  if (StateOf(record->metadata()) == ConnectionView::State::kAbsent || !tokens.ParseFromString(record->payload())) {
    return former;
  }
  former.linked = true;
  former.token_origin = ProvenanceOf(tokens, record->metadata().labels()).token_origin();
  former.account = std::move(*tokens.mutable_account());
  return former;
}

AccountVerdict Linker::Judge(const registry::v1::App& app, const Former& former, const v1::TokenSet& tokens,
                             const Passport& passport) const {
  // Of another provider: its ids say nothing about this one's.
  const bool comparable = former.linked && former.token_origin == tokens.provenance().token_origin();
  return JudgeAccount(app.account_identity(), comparable ? &former.account : nullptr, tokens.account(), passport);
}

absl::Status Linker::Keep(const Given& given, const Provider& provider, const Passport& passport) {
  const absl::Status kept = waiting_.Keep(given.key, {given.tokens, given.bound_to}, passport);
  if (!kept.ok() && !provider.revocation_url.empty()) {
    // They are stored nowhere, and not of the account that is linked: this is the only time they can be revoked.
    const bool renewable = !given.tokens.refresh_token().empty();
    endpoint_.Revoke(provider, Secret::Copy(renewable ? given.tokens.refresh_token() : given.tokens.access_token()),
                     renewable ? "refresh_token" : "access_token");
  }
  return kept;
}

absl::Status Linker::Settle(const Given& given, const Provider& provider, const Passport& passport, Outcome* outcome) {
  ASSIGN_OR_RETURN(const Former former, FormerOf(given.key, passport));
  outcome->account_name = given.tokens.account().name();
  outcome->former_name = former.account.name();
  const AccountVerdict verdict = Judge(given.app, former, given.tokens, passport);
  switch (verdict) {
    case AccountVerdict::kTaken:
      return Store(given, passport);
    case AccountVerdict::kAnother: {
      outcome->unconfirmed = true;
      AuditLog::Entry entry{.type = "link.unconfirmed", .subject = passport.subject};
      entry.client_address = given.client_address;
      entry.server_uid = given.server_uid;
      entry.actor = given.platform;
      entry.details = {{"app", given.app.slug()}};
      RETURN_IF_ERROR(Keep(given, provider, passport));
      return audit_.Record(entry);
    }
    default:
      // Kept first: what is revoked from there is tried again until it is done.
      RETURN_IF_ERROR(Keep(given, provider, passport));
      RETURN_IF_ERROR(waiting_.Refuse(given.key, passport));
      RETURN_IF_ERROR(Refuse(given.app, given.client_address, passport, RefusalOf(verdict)));
      return NotTaken(verdict);
  }
}

absl::Status Linker::Store(const Given& given, const Passport& passport) {
  const absl::Time now = clock_.Now();
  vault::v1::PutRequest put;
  *put.mutable_record() = ConnectionRecord(given.key.subject, given.key.connection);
  put.set_payload(given.tokens.SerializeAsString());
  for (const auto& [name, value] : LabelsOf(given.tokens, given.key.connection)) {
    (*put.mutable_labels())[name] = value;
  }
  (*put.mutable_labels())[kBoundTo] = given.bound_to;
  const absl::Duration due_in = given.tokens.refresh_token().empty() ? idle_.revoke_after : idle_.refresh;
  if (due_in != absl::InfiniteDuration()) {
    *put.mutable_next_at() = ToTimestamp(now + due_in);
  }
  absl::StatusOr<vault::v1::PutResponse> stored = vault_.Put(put, passport.jwt);
  if (!stored.ok()) {
    // Not revoked: they may be stored after all, and many providers would end the user's former link with them.
    return stored.status();
  }
  invalidations_.Connection(given.key, stored->generation(), now);
  AuditLog::Entry entry{.type = "link.completed", .subject = passport.subject, .client_address = given.client_address};
  entry.server_uid = given.server_uid;
  entry.actor = given.platform;
  entry.credentials = {UseOf(given.key.connection, stored->generation(), stored->version())};
  entry.details = {{"app", given.app.slug()}, {"scopes", absl::StrJoin(given.tokens.scopes(), " ")}};
  if (const std::string account = AccountLabelOf(given.key.connection); !account.empty()) {
    entry.details.emplace_back("account", account);
  }
  return audit_.Record(entry);
}

absl::StatusOr<Linker::Unconfirmed> Linker::Find(const registry::v1::App& app, const std::string& account,
                                                 const Passport& passport) {
  const ConnectionKey key = {passport.subject, ConnectionName(app.uid(), account)};
  ASSIGN_OR_RETURN(const WaitingLinks::Waiting waiting, waiting_.Find(key, passport));
  ASSIGN_OR_RETURN(const Former former, FormerOf(key, passport));
  return Unconfirmed{waiting.tokens.account().name(), former.account.name(), waiting.version, former.version};
}

absl::Status Linker::Confirm(const Choice& choice, const Passport& passport) {
  const ConnectionKey key = {passport.subject, ConnectionName(choice.app->uid(), choice.account)};
  ASSIGN_OR_RETURN(const Former former, FormerOf(key, passport));
  ASSIGN_OR_RETURN(const WaitingLinks::Waiting shown, waiting_.Find(key, passport));
  if (shown.version != choice.version || former.version != choice.former_version) {
    return Changed();
  }
  // What the app takes may have changed since.
  const AccountVerdict verdict = Judge(*choice.app, former, shown.tokens, passport);
  if (!RefusalOf(verdict).empty()) {
    RETURN_IF_ERROR(waiting_.Refuse(key, passport));
    RETURN_IF_ERROR(Refuse(*choice.app, choice.client_address, passport, RefusalOf(verdict)));
    return NotTaken(verdict);
  }
  if (former.linked) {
    // Another account's: nothing of the one that comes ends with it.
    vault::v1::OweRevocationRequest owe;
    *owe.mutable_record() = ConnectionRecord(key.subject, key.connection);
    owe.set_expected_version(former.version);
    RETURN_IF_ERROR(vault_.OweRevocation(owe, passport.jwt).status());
  }
  ASSIGN_OR_RETURN(WaitingLinks::Waiting waiting, waiting_.Take(key, choice.version, passport));
  Given given{.app = *choice.app, .key = key, .tokens = std::move(waiting.tokens)};
  given.bound_to = waiting.bound_to;
  given.server_uid = choice.server->uid();
  given.client_address = choice.client_address;
  RETURN_IF_ERROR(Store(given, passport));
  CountLink(choice.app->slug(), "completed");
  return absl::OkStatus();
}

absl::Status Linker::Decline(const Choice& choice, const Passport& passport) {
  const ConnectionKey key = {passport.subject, ConnectionName(choice.app->uid(), choice.account)};
  ASSIGN_OR_RETURN(const WaitingLinks::Waiting shown, waiting_.Find(key, passport));
  if (shown.version != choice.version) {
    return Changed();
  }
  RETURN_IF_ERROR(waiting_.Refuse(key, passport));
  CountLink(choice.app->slug(), "declined");
  return Refuse(*choice.app, choice.client_address, passport, "account_declined");
}

}  // namespace sallyport::token_broker

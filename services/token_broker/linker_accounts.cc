// SPDX-License-Identifier: Apache-2.0
// The part of Linker that has tokens in its hands: whether they are the account's that was meant, and where they go.
#include <utility>

#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/linker.h"
#include "services/token_broker/provider_binding.h"

namespace sallyport::token_broker {
namespace {

// How often an account is judged anew because what is linked has changed meanwhile.
constexpr int kAttempts = 5;

absl::Status NotTaken(AccountVerdict verdict) {
  return WithReason(absl::PermissionDeniedError("this app does not take the account"), RefusalOf(verdict));
}

absl::Status Changed() { return absl::AbortedError("the account is not what was shown any more"); }

// Of the provider that `tokens` are of: the ids of another one's accounts say nothing about this one's.
bool IsComparable(bool linked, const std::string& token_origin, const v1::TokenSet& tokens) {
  return linked && token_origin == tokens.provenance().token_origin();
}

}  // namespace

absl::StatusOr<Linker::Former> Linker::FormerOf(const ConnectionKey& key, const Passport& passport) {
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord(key.subject, key.connection);
  const absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(get, passport.jwt);
  Former former;
  if (absl::IsNotFound(record.status())) {
    return former;
  }
  if (absl::IsDataLoss(record.status())) {
    former.version.reset();  // It is mended by being linked anew.
    return former;
  }
  if (!record.ok()) {
    return record.status();
  }
  v1::TokenSet tokens;
  former.version = record->version();
  former.generation = record->metadata().generation();
  former.revoke_pending = record->metadata().state() == "REVOKE_PENDING";
  if (StateOf(record->metadata()) == ConnectionView::State::kAbsent || !tokens.ParseFromString(record->payload())) {
    return former;
  }
  former.linked = true;
  former.token_origin = ProvenanceOf(tokens, record->metadata().labels()).token_origin();
  former.account = std::move(*tokens.mutable_account());
  return former;
}

bool Linker::IsAnother(const Former& former, const v1::TokenSet& tokens) {
  return IsComparable(former.linked, former.token_origin, tokens) && !former.account.id().empty() &&
         !tokens.account().id().empty() && former.account.id() != tokens.account().id();
}

AccountVerdict Linker::Judge(const registry::v1::App& app, const Former& former, const v1::TokenSet& tokens,
                             const Passport& passport) const {
  const bool comparable = IsComparable(former.linked, former.token_origin, tokens);
  return JudgeAccount(app.account_identity(), comparable ? &former.account : nullptr, tokens.account(), passport);
}

AuditLog::Entry Linker::EntryOf(const Given& given, const std::string& type, const Passport& passport) {
  AuditLog::Entry entry{.type = type, .subject = passport.subject, .client_address = given.client_address};
  entry.server_uid = given.server_uid;
  entry.actor = given.platform;
  entry.details = {{"app", given.app.slug()}};
  if (const std::string account = AccountLabelOf(given.key.connection); !account.empty()) {
    entry.details.emplace_back("account", account);
  }
  return entry;
}

absl::Status Linker::Keep(Given& given, const Provider& provider, const Passport& passport) {
  if (given.waiting.has_value()) {
    return absl::OkStatus();
  }
  const absl::StatusOr<int64_t> kept = waiting_.Keep(given.key, {given.tokens, given.bound_to}, passport);
  if (!kept.ok() && !provider.revocation_url.empty()) {
    // They are stored nowhere, and not of the account that is linked: this is the only time they can be revoked.
    const bool renewable = !given.tokens.refresh_token().empty();
    endpoint_.Revoke(provider, Secret::Copy(renewable ? given.tokens.refresh_token() : given.tokens.access_token()),
                     renewable ? "refresh_token" : "access_token");
  }
  RETURN_IF_ERROR(kept.status());
  given.waiting = *kept;
  if (ended_.Include(passport)) {
    RETURN_IF_ERROR(waiting_.Refuse(given.key, passport));
    return error::PassportMismatch();
  }
  return absl::OkStatus();
}

absl::Status Linker::GiveUp(Given& given, const Former& former, const Provider& provider, const Passport& passport) {
  const bool may_be_linked =
      IsComparable(former.linked, former.token_origin, given.tokens) && !IsAnother(former, given.tokens);
  if (may_be_linked && !given.waiting.has_value()) {
    // At many providers a revocation ends all that the account has given, and so what is linked.
    return absl::OkStatus();
  }
  // Kept first: what is revoked from there is tried again until it is done.
  RETURN_IF_ERROR(Keep(given, provider, passport));
  return waiting_.Refuse(given.key, passport);
}

absl::Status Linker::Settle(Given& given, const Provider& provider, const Passport& passport, Outcome* outcome) {
  outcome->account_name = given.tokens.account().name();
  Former former;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(former, FormerOf(given.key, passport));
    outcome->former_name = former.account.name();
    const absl::Status settled = SettleOver(given, former, provider, passport, outcome);
    if (!absl::IsAborted(settled)) {
      return settled;
    }
  }
  RETURN_IF_ERROR(GiveUp(given, former, provider, passport));
  return WithRetryAfter(absl::UnavailableError("the account is being linked elsewhere, too"), absl::Seconds(1));
}

absl::Status Linker::SettleOver(Given& given, const Former& former, const Provider& provider, const Passport& passport,
                                Outcome* outcome) {
  const AccountVerdict verdict = Judge(given.app, former, given.tokens, passport);
  switch (verdict) {
    case AccountVerdict::kTaken:
      if (IsAnother(former, given.tokens) || former.revoke_pending) {
        // While the former one ends, its own tokens are to be somewhere.
        RETURN_IF_ERROR(Keep(given, provider, passport));
      }
      return TakePlace(given, former, passport);
    case AccountVerdict::kAnother:
      outcome->unconfirmed = true;
      RETURN_IF_ERROR(Keep(given, provider, passport));
      return audit_.Record(EntryOf(given, "link.unconfirmed", passport));
    default:
      RETURN_IF_ERROR(GiveUp(given, former, provider, passport));
      RETURN_IF_ERROR(Refuse(given.app, given.client_address, passport, RefusalOf(verdict)));
      return NotTaken(verdict);
  }
}

absl::Status Linker::EndFormer(const Given& given, const Former& former, const Passport& passport) {
  vault::v1::OweRevocationRequest owe;
  *owe.mutable_record() = ConnectionRecord(given.key.subject, given.key.connection);
  owe.set_expected_version(former.version.value_or(0));
  // Before, too: should the answer be lost, it is read anew everywhere.
  invalidations_.Connection(given.key, former.generation + 1, clock_.Now());
  ASSIGN_OR_RETURN(const vault::v1::OweRevocationResponse owed, vault_.OweRevocation(owe, passport.jwt));
  for (const auto& one : owed.owed()) {
    invalidations_.Connection(given.key, one.generation(), clock_.Now());
  }
  AuditLog::Entry entry = EntryOf(given, "link.disconnected", passport);
  entry.rule = "replaced";
  return audit_.Record(entry);
}

absl::Status Linker::TakePlace(const Given& given, const Former& former, const Passport& passport) {
  std::optional<int64_t> expected_version = former.version;
  if (IsAnother(former, given.tokens) || former.revoke_pending) {
    // Nothing of the one that comes ends with it.
    RETURN_IF_ERROR(EndFormer(given, former, passport));
    expected_version = 0;
  }
  RETURN_IF_ERROR(Store(given, expected_version, passport));
  if (!given.waiting.has_value()) {
    return absl::OkStatus();
  }
  const absl::Status taken = waiting_.Take(given.key, *given.waiting, passport).status();
  if (taken.ok()) {
    return absl::OkStatus();
  }
  // They wait still, or were given up meanwhile: what is linked now would be revoked some day, without a word.
  Log(LogLevel::kWarning, "waiting_link_not_taken", {{"app", given.app.slug()}, {"status", taken}});
  Undo(given, "not_taken", passport);
  return WithRetryAfter(absl::UnavailableError("the account could not be linked; connect it again"), absl::Seconds(1));
}

void Linker::Undo(const Given& given, const std::string& rule, const Passport& passport) {
  const absl::StatusOr<Revoker::Ended> ended = revoker_.Disconnect(given.key, passport.jwt);
  if (!ended.ok()) {
    if (!absl::IsNotFound(ended.status())) {
      Log(LogLevel::kError, "link_not_undone", {{"app", given.app.slug()}, {"status", ended.status()}});
    }
    return;
  }
  AuditLog::Entry entry = EntryOf(given, "link.disconnected", passport);
  entry.rule = rule;
  entry.credentials = {UseOf(given.key.connection, ended->generation, 0)};
  audit_.Record(entry).IgnoreError();  // It has ended; that the record is missing is logged where it is written.
}

absl::Status Linker::Store(const Given& given, std::optional<int64_t> expected_version, const Passport& passport) {
  const absl::Time now = clock_.Now();
  vault::v1::PutRequest put;
  *put.mutable_record() = ConnectionRecord(given.key.subject, given.key.connection);
  put.set_payload(given.tokens.SerializeAsString());
  for (const auto& [name, value] : LabelsOf(given.tokens, given.key.connection)) {
    (*put.mutable_labels())[name] = value;
  }
  (*put.mutable_labels())[kBoundTo] = given.bound_to;
  if (expected_version.has_value()) {
    put.set_expected_version(*expected_version);
  }
  const absl::Duration due_in = given.tokens.refresh_token().empty() ? idle_.revoke_after : idle_.refresh;
  if (due_in != absl::InfiniteDuration()) {
    *put.mutable_next_at() = ToTimestamp(now + due_in);
  }
  const absl::StatusOr<vault::v1::PutResponse> stored = vault_.Put(put, passport.jwt);
  if (stored.ok() && stored->has_owed()) {
    // The vault knew before this process that everything of theirs had ended, and has stored nothing.
    revoker_.Revoke(stored->owed().revocation());
    AuditLog::Entry ended = EntryOf(given, "link.disconnected", passport);
    ended.rule = "user_ended";
    ended.credentials = {UseOf(given.key.connection, stored->generation(), 0)};
    audit_.Record(ended).IgnoreError();  // It has ended; that the record is missing is logged where it is written.
    return error::PassportMismatch();
  }
  if (ended_.Include(passport) && !absl::IsAborted(stored.status())) {
    // Whatever ended everything of theirs may have been over by then. Also if it only may be stored.
    Undo(given, "user_ended", passport);
    return error::PassportMismatch();
  }
  if (!stored.ok()) {
    // Not revoked: they may be stored after all, and many providers would end the user's former link with them.
    return stored.status();
  }
  invalidations_.Connection(given.key, stored->generation(), now);
  AuditLog::Entry entry = EntryOf(given, "link.completed", passport);
  entry.credentials = {UseOf(given.key.connection, stored->generation(), stored->version())};
  entry.details.insert(entry.details.begin() + 1, {"scopes", absl::StrJoin(given.tokens.scopes(), " ")});
  return audit_.Record(entry);
}

absl::StatusOr<Linker::Unconfirmed> Linker::Find(const registry::v1::App& app, const std::string& account,
                                                 const Passport& passport) {
  const ConnectionKey key = {passport.subject, ConnectionName(app.uid(), account)};
  ASSIGN_OR_RETURN(const WaitingLinks::Waiting waiting, waiting_.Find(key, passport));
  ASSIGN_OR_RETURN(const Former former, FormerOf(key, passport));
  return Unconfirmed{waiting.tokens.account().name(), former.account.name(), waiting.version,
                     former.version.value_or(0)};
}

absl::Status Linker::Confirm(const Choice& choice, const Passport& passport) {
  const ConnectionKey key = {passport.subject, ConnectionName(choice.app->uid(), choice.account)};
  ASSIGN_OR_RETURN(const Former former, FormerOf(key, passport));
  ASSIGN_OR_RETURN(WaitingLinks::Waiting shown, waiting_.Find(key, passport));
  if (shown.version != choice.version || former.version.value_or(0) != choice.former_version) {
    return Changed();
  }
  // What the app takes may have changed since.
  const AccountVerdict verdict = Judge(*choice.app, former, shown.tokens, passport);
  if (!RefusalOf(verdict).empty()) {
    RETURN_IF_ERROR(waiting_.Refuse(key, passport));
    RETURN_IF_ERROR(Refuse(*choice.app, choice.client_address, passport, RefusalOf(verdict)));
    return NotTaken(verdict);
  }
  Given given{.app = *choice.app, .key = key, .tokens = std::move(shown.tokens)};
  given.bound_to = shown.bound_to;
  given.server_uid = choice.server->uid();
  given.client_address = choice.client_address;
  given.waiting = shown.version;
  const absl::Status taken = TakePlace(given, former, passport);
  if (absl::IsAborted(taken)) {
    return Changed();
  }
  RETURN_IF_ERROR(taken);
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

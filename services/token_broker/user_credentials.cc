// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/user_credentials.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "common/error.h"
#include "common/http/field.h"
#include "common/metrics.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/string_view.h"
#include "common/text/utf8.h"
#include "sallyport/token_broker/v1/state.pb.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/names.h"

namespace sallyport::token_broker {
namespace {

using registry::v1::Credential;

// The vault takes 4 KiB of labels; what does not fit is not shown.
constexpr size_t kMaxLabelBytes = 1'500;

constexpr CounterInfo kCredentials = {
    .name = "sallyport_broker_user_credentials_total",
    .help = "Credentials that users entered or cleared",
    .unit = "credentials",
    .labels = {{"outcome", "entered, cleared, refused, failed"}},
    .rise = "refused: what was entered is no credential, or not theirs to enter. failed: it could not be stored",
    .action = "For failed look at the vault",
};

vault::v1::RecordName RecordOf(const std::string& subject, const std::string& uid) {
  vault::v1::RecordName record;
  record.set_owner_type(vault::v1::USER);
  record.set_owner_id(subject);
  record.set_kind("credential");
  record.set_name(uid);
  return record;
}

// Whose it may be: one's own, or anybody's for a credential-admin.
absl::Status CheckWho(const std::string& subject, const Passport& by) {
  // A passport that a call came with must not change what later calls go out with.
  if (by.purpose != Passport::Purpose::kApi && by.purpose != Passport::Purpose::kLink) {
    return error::PassportMismatch();
  }
  if (subject == by.subject || by.HasRole("credential-admin")) {
    return absl::OkStatus();
  }
  return WithReason(absl::PermissionDeniedError("subject: another user's credential needs the role credential-admin"),
                    "role_missing");
}

absl::StatusOr<std::string> ValueOf(const Credential& credential, absl::string_view given) {
  // Passwords are what was typed. Keys and tokens are pasted, often with a space or line break too many.
  const std::string value(credential.kind() == Credential::PASSWORD ? given : absl::StripAsciiWhitespace(given));
  if (value.empty()) {
    return InvalidField("value", "is required");
  }
  if (value.size() > kMaxCredentialBytes) {
    return InvalidField("value", "is longer than 4096 bytes");
  }
  return IsFieldValue(value) ? absl::StatusOr<std::string>(value)
                             : InvalidField("value", "holds control characters, which no header may");
}

absl::Status CheckUsername(const Credential& credential, absl::string_view username) {
  if (credential.kind() != Credential::PASSWORD) {
    return username.empty() ? absl::OkStatus() : InvalidField("username", "goes with a password only: leave it out");
  }
  if (username.empty()) {
    return InvalidField("username", "is required");
  }
  const bool fits = username.size() <= 256 && username.find(':') == absl::string_view::npos &&
                    IsFieldValue(ToStd(username)) && IsValidUtf8(username);
  return fits ? absl::OkStatus()
              : InvalidField("username", "must be text of at most 256 bytes without ':' and control characters");
}

prometheus::Counter& Outcomes(const char* outcome) { return MetricCounter(kCredentials, {{"outcome", outcome}}); }

void Count(const absl::Status& status, const char* done) {
  const bool refused = absl::IsInvalidArgument(status) || absl::IsPermissionDenied(status);
  Outcomes(status.ok() ? done : refused ? "refused" : "failed").Increment();
}

std::string LabelOf(const vault::v1::RecordMetadata& metadata, const char* name) {
  const auto label = metadata.labels().find(name);
  return label == metadata.labels().end() ? "" : label->second;
}

}  // namespace

UserCredentials::UserCredentials(const ControlStream& control, VaultClient& vault, Invalidations& invalidations,
                                 const AuditLog& audit, const Clock& clock)
    : control_(control), vault_(vault), invalidations_(invalidations), audit_(audit), clock_(clock) {
  // An alert must see the first one as a rise from 0.
  for (const char* outcome : {"entered", "cleared", "refused", "failed"}) Outcomes(outcome);
}

bool UserCredentials::Stored::Allows(absl::string_view origin) const {
  return std::any_of(origins.begin(), origins.end(), [&](const std::string& one) { return one == origin; });
}

absl::StatusOr<std::optional<UserCredentials::Stored>> UserCredentials::Read(const std::string& credential_uid,
                                                                             const Passport& passport) {
  vault::v1::GetRequest get;
  *get.mutable_record() = RecordOf(passport.subject, credential_uid);
  absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(get, passport.jwt);
  if (absl::IsNotFound(record.status())) {
    return std::optional<Stored>();
  }
  RETURN_IF_ERROR(record.status());
  v1::UserCredential payload;
  if (!payload.ParseFromString(record->payload())) {
    return absl::DataLossError("the stored credential does not parse");
  }
  Stored stored;
  stored.value = Secret(std::move(*payload.mutable_value()));
  stored.username = payload.username();
  stored.generation = record->metadata().generation();
  stored.version = record->version();
  if (record->bound() == vault::v1::BOUND) {
    stored.origins.assign(record->origins().begin(), record->origins().end());
  }
  return std::optional<Stored>(std::move(stored));
}

absl::Status UserCredentials::Admit(const Entry& entry, const std::string& name, const Passport& by) const {
  const absl::Status status = CheckWho(entry.subject, by);
  if (!status.ok()) {
    AuditLog::Entry record{.type = "credential.denied", .decision = audit::v1::DECISION_DENIED};
    record.rule = ReasonOf(status);
    record.subject = by.subject;
    record.client_address = entry.client_address;
    record.details = {{"credential", std::string(Utf8Prefix(name, 128))},
                      {"user", std::string(Utf8Prefix(entry.subject, 256))}};
    audit_.Record(record).IgnoreError();  // It is refused either way.
  }
  return status;
}

absl::Status UserCredentials::Record(const char* type, const Entry& entry, const std::string& name, const Passport& by,
                                     int64_t generation) const {
  AuditLog::Entry record{.type = type, .subject = by.subject, .client_address = entry.client_address};
  record.credentials = {UseOf(entry.credential == nullptr ? name : entry.credential->uid(), generation, 0)};
  record.details = {{"credential", name}, {"user", entry.subject}};
  return audit_.Record(record);
}

absl::Status UserCredentials::Set(const Entry& entry, const Passport& by) {
  const absl::Status status = Store(entry, by);
  Count(status, "entered");
  return status;
}

absl::Status UserCredentials::Store(const Entry& entry, const Passport& by) {
  const Credential& credential = *entry.credential;
  RETURN_IF_ERROR(Admit(entry, credential.slug(), by));
  ASSIGN_OR_RETURN(std::string value, ValueOf(credential, entry.value));
  RETURN_IF_ERROR(CheckUsername(credential, entry.username));
  v1::UserCredential payload;
  payload.set_value(std::move(value));
  payload.set_username(std::string(entry.username));
  vault::v1::PutRequest put;
  *put.mutable_record() = RecordOf(entry.subject, credential.uid());
  put.set_payload(payload.SerializeAsString());
  *put.mutable_origins() = credential.allowed_upstream_origins();
  const absl::Time now = clock_.Now();
  (*put.mutable_labels())["entered_at"] = absl::FormatTime(absl::RFC3339_full, now, absl::UTCTimeZone());
  if (std::string origins = absl::StrJoin(put.origins(), " "); origins.size() <= kMaxLabelBytes) {
    (*put.mutable_labels())["origins"] = std::move(origins);
  }
  ASSIGN_OR_RETURN(const vault::v1::PutResponse stored, vault_.Put(put, by.jwt));
  invalidations_.Connection({entry.subject, credential.uid()}, stored.generation(), now);
  return Record("credential.entered", entry, credential.slug(), by, stored.generation());
}

absl::StatusOr<v1::ListOwnCredentialsResponse> UserCredentials::List(const Passport& passport) {
  vault::v1::ListRequest request;
  request.set_owner_type(vault::v1::USER);
  request.set_owner_id(passport.subject);
  request.set_kind("credential");
  ASSIGN_OR_RETURN(const vault::v1::ListResponse records, vault_.List(request, passport.jwt));
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  v1::ListOwnCredentialsResponse response;
  for (const vault::v1::RecordMetadata& metadata : records.records()) {
    const Credential* credential = snapshot->CredentialByUid(metadata.record().name());
    v1::OwnCredential* own = response.add_credentials();
    own->set_credential(credential == nullptr ? metadata.record().name() : credential->slug());
    own->set_display_name(credential == nullptr ? "a credential that is no longer here" : NameOf(*credential));
    absl::Time entered_at;
    if (absl::ParseTime(absl::RFC3339_full, LabelOf(metadata, "entered_at"), &entered_at, nullptr)) {
      *own->mutable_entered_at() = ToTimestamp(entered_at);
    }
    const std::vector<std::string> origins = absl::StrSplit(LabelOf(metadata, "origins"), ' ', absl::SkipEmpty());
    own->mutable_origins()->Assign(origins.begin(), origins.end());
    const bool complete = credential == nullptr || origins.empty() ||
                          std::all_of(credential->allowed_upstream_origins().begin(),
                                      credential->allowed_upstream_origins().end(), [&](const std::string& origin) {
                                        return std::find(origins.begin(), origins.end(), origin) != origins.end();
                                      });
    own->set_state(complete ? "entered" : "needs_entry");
  }
  return response;
}

absl::StatusOr<v1::SetCredentialResponse> UserCredentials::Set(const v1::SetCredentialRequest& request,
                                                               const Passport& passport) {
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  const Credential* credential = snapshot->CredentialBySlug(request.credential());
  if (credential == nullptr) {
    return absl::NotFoundError("credential: no such credential");
  }
  if (credential->owner() != Credential::USER) {
    return absl::NotFoundError("credential: it is the organization's; a credential-admin sets its value with apply");
  }
  Entry entry{.credential = credential, .value = request.value().value(), .username = request.username()};
  entry.subject = request.subject().empty() ? passport.subject : request.subject();
  RETURN_IF_ERROR(Set(entry, passport));
  v1::SetCredentialResponse response;
  *response.mutable_origins() = credential->allowed_upstream_origins();
  return response;
}

absl::StatusOr<v1::ClearCredentialResponse> UserCredentials::Clear(const v1::ClearCredentialRequest& request,
                                                                   const Passport& passport) {
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  const Credential* credential = snapshot->CredentialBySlug(request.credential());
  // The uid of one that is gone, as List names it. Slugs hold no underscore.
  if (credential == nullptr && !absl::StartsWith(request.credential(), "crd_")) {
    return absl::NotFoundError("credential: no such credential");
  }
  Entry entry{.credential = credential};
  entry.subject = request.subject().empty() ? passport.subject : request.subject();
  const absl::Status status = Erase(entry, request.credential(), passport);
  Count(status, "cleared");
  RETURN_IF_ERROR(status);
  return v1::ClearCredentialResponse();
}

absl::Status UserCredentials::Erase(const Entry& entry, const std::string& name, const Passport& passport) {
  RETURN_IF_ERROR(Admit(entry, name, passport));
  const std::string uid = entry.credential == nullptr ? name : entry.credential->uid();
  vault::v1::DeleteRequest erase;
  *erase.mutable_record() = RecordOf(entry.subject, uid);
  const absl::StatusOr<vault::v1::DeleteResponse> erased = vault_.Delete(erase, passport.jwt);
  if (absl::IsNotFound(erased.status())) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(erased.status());
  invalidations_.Connection({entry.subject, uid}, erased->generation(), clock_.Now());
  return Record("credential.cleared", entry, name, passport, erased->generation());
}

}  // namespace sallyport::token_broker

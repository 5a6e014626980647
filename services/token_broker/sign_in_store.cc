// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sign_in_store.h"

#include <string>
#include <utility>

#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/linker.h"

namespace sallyport::token_broker {
namespace {

v1::TokenSet ToTokenSet(const v1::StoreTokensRequest& request) {
  v1::TokenSet tokens;
  tokens.set_access_token(request.access_token());
  tokens.set_refresh_token(request.refresh_token());
  tokens.set_id_token(request.id_token());
  tokens.set_token_type("Bearer");
  *tokens.mutable_scopes() = request.scopes();
  if (request.has_expires_at()) {
    *tokens.mutable_expires_at() = request.expires_at();
  }
  *tokens.mutable_obtained_at() = request.obtained_at();
  *tokens.mutable_linked_at() = request.obtained_at();
  if (!request.consent_server_uid().empty()) {
    tokens.mutable_consent()->set_server_uid(request.consent_server_uid());
    *tokens.mutable_consent()->mutable_at() = request.obtained_at();
  }
  if (tokens.ByteSizeLong() > kMaxTokenSetBytes) {
    tokens.clear_id_token();
  }
  return tokens;
}

}  // namespace

absl::Status SignInStore::RecordConsent(const v1::StoreTokensRequest& request, const ConnectionKey& key,
                                        const vault::v1::PutResponse& stored) const {
  if (request.consent_server_uid().empty()) {
    return absl::OkStatus();
  }
  CountLink(key.connection, "completed");
  AuditLog::Entry entry{.type = "link.completed", .subject = key.subject};
  entry.server_uid = request.consent_server_uid();
  entry.credentials = {UseOf(key.connection, stored.generation(), stored.version())};
  entry.details = {{"connector", request.connector()}, {"scopes", absl::StrJoin(request.scopes(), " ")}};
  return audit_.Record(entry);
}

absl::Status SignInStore::Undo(vault::v1::PutRequest put, const Passport& passport) {
  // This passport is for a Put and for nothing else.
  const absl::Time now = clock_.Now();
  put.set_state("REVOKE_PENDING");
  *put.mutable_next_at() = ToTimestamp(now);
  ASSIGN_OR_RETURN(const vault::v1::PutResponse ended, vault_.Put(put, passport.jwt));
  invalidations_.Connection({put.record().owner_id(), put.record().name()}, ended.generation(), now);
  return absl::OkStatus();
}

absl::StatusOr<v1::StoreTokensResponse> SignInStore::Store(const v1::StoreTokensRequest& request,
                                                           const std::optional<Passport>& passport) {
  if (!passport.has_value() || passport->purpose != Passport::Purpose::kSignIn) {
    return error::PassportMismatch();
  }
  if (request.connector().empty() || passport->subject.substr(0, passport->subject.find(':')) != request.connector()) {
    return InvalidField("connector", "must be the one the person signs in with");
  }
  const ConnectionKey key = {passport->subject, SignInName(request.connector())};
  const v1::TokenSet tokens = ToTokenSet(request);
  vault::v1::PutRequest put;
  *put.mutable_record() = ConnectionRecord(key.subject, key.connection);
  put.set_payload(tokens.SerializeAsString());
  for (const auto& [name, value] : LabelsOf(tokens, key.connection)) {
    (*put.mutable_labels())[name] = value;
  }
  const absl::Time now = clock_.Now();
  if (!tokens.refresh_token().empty()) {
    *put.mutable_next_at() = ToTimestamp(now + idle_refresh_);
  }
  const absl::StatusOr<vault::v1::PutResponse> put_result = vault_.Put(put, passport->jwt);
  if (put_result.ok() && put_result->has_owed()) {
    return error::PassportMismatch();  // The vault knew before this process, and keeps them to be revoked.
  }
  if (ended_.Include(*passport)) {
    RETURN_IF_ERROR(Undo(std::move(put), *passport));
    return error::PassportMismatch();
  }
  ASSIGN_OR_RETURN(const vault::v1::PutResponse stored, put_result);
  if (stored.generation() > 1) {
    // What was made from the tokens before is not to be used on.
    invalidations_.Connection(key, stored.generation(), now);
  }
  // The tokens are stored; that the record is missing is logged and counted where it is written.
  RecordConsent(request, key, stored).IgnoreError();
  return v1::StoreTokensResponse();
}

}  // namespace sallyport::token_broker

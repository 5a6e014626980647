// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/waiting_links.h"

#include <utility>

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/link_ticket.h"
#include "services/token_broker/provider_binding.h"

namespace sallyport::token_broker {
namespace {

constexpr char kRevokePending[] = "REVOKE_PENDING";
constexpr char kSession[] = "session";

ConnectionKey WaitingKey(const ConnectionKey& key) {
  return {key.subject, WaitingName(AppUidOf(key.connection), AccountLabelOf(key.connection))};
}

std::string SessionOf(const Passport& passport) { return HexEncode(Sha256(passport.session_id)); }

std::string LabelOf(const vault::v1::RecordMetadata& metadata, const char* name) {
  const auto label = metadata.labels().find(name);
  return label == metadata.labels().end() ? "" : label->second;
}

absl::Status NothingWaits() { return absl::NotFoundError("no account waits to be confirmed"); }

}  // namespace

absl::StatusOr<int64_t> WaitingLinks::Keep(const ConnectionKey& key, const Waiting& waiting, const Passport& passport) {
  const ConnectionKey place = WaitingKey(key);
  vault::v1::PutRequest put;
  *put.mutable_record() = ConnectionRecord(place.subject, place.connection);
  put.set_payload(waiting.tokens.SerializeAsString());
  put.set_state(kRevokePending);
  for (const auto& [name, value] : LabelsOf(waiting.tokens, place.connection)) {
    (*put.mutable_labels())[name] = value;
  }
  (*put.mutable_labels())[kBoundTo] = waiting.bound_to;
  (*put.mutable_labels())[kSession] = SessionOf(passport);
  put.set_expected_version(0);
  *put.mutable_next_at() = ToTimestamp(clock_.Now() + kLinkLifetime);
  for (int attempt = 0; attempt < 3; ++attempt) {
    const absl::StatusOr<vault::v1::PutResponse> kept = vault_.Put(put, passport.jwt);
    if (kept.ok() && kept->has_owed()) {
      revoker_.Revoke(kept->owed().revocation());
      return error::PassportMismatch();
    }
    if (kept.ok()) {
      return kept->version();
    }
    if (!absl::IsAborted(kept.status())) {
      return kept.status();
    }
    // One of before, which nobody has answered. Its tokens are given up, not lost.
    if (const absl::Status refused = Refuse(key, passport); !refused.ok() && !absl::IsNotFound(refused)) {
      return refused;
    }
  }
  return WithRetryAfter(absl::UnavailableError("the account is being linked elsewhere, too"), absl::Seconds(1));
}

absl::StatusOr<WaitingLinks::Waiting> WaitingLinks::Find(const ConnectionKey& key, const Passport& passport) {
  const ConnectionKey place = WaitingKey(key);
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord(place.subject, place.connection);
  ASSIGN_OR_RETURN(const vault::v1::GetResponse record, vault_.Get(get, passport.jwt));
  const vault::v1::RecordMetadata& metadata = record.metadata();
  if (metadata.state() != kRevokePending || FromTimestamp(metadata.next_at()) <= clock_.Now() ||
      LabelOf(metadata, kSession) != SessionOf(passport)) {
    return NothingWaits();
  }
  Waiting waiting;
  if (!waiting.tokens.ParseFromString(record.payload())) {
    return error::DamagedConnection();
  }
  waiting.bound_to = LabelOf(metadata, kBoundTo);
  waiting.version = record.version();
  return waiting;
}

absl::StatusOr<WaitingLinks::Waiting> WaitingLinks::Take(const ConnectionKey& key, int64_t version,
                                                         const Passport& passport) {
  ASSIGN_OR_RETURN(Waiting waiting, Find(key, passport));
  if (waiting.version != version) {
    return absl::AbortedError("another account waits to be confirmed");
  }
  const ConnectionKey place = WaitingKey(key);
  vault::v1::DeleteRequest take;
  *take.mutable_record() = ConnectionRecord(place.subject, place.connection);
  take.set_expected_version(version);
  RETURN_IF_ERROR(vault_.Delete(take, passport.jwt).status());
  return waiting;
}

absl::Status WaitingLinks::Refuse(const ConnectionKey& key, const Passport& passport) {
  return revoker_.Disconnect(WaitingKey(key), passport.jwt).status();
}

}  // namespace sallyport::token_broker

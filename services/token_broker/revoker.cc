// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/revoker.h"

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/provider_binding.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kFirstRetry = absl::Seconds(60);
constexpr absl::Duration kRetry = absl::Minutes(30);
constexpr absl::Duration kGiveUp = absl::Hours(24 * 7);
constexpr char kSince[] = "revoke_since";

}  // namespace

RevocationResult Revoker::RevokeAt(const Provider& provider, const v1::TokenSet& tokens, const Labels& labels) {
  if (provider.revocation_url.empty() && provider.metadata_missing) {
    return RevocationResult::kRetry;  // Whether it has a revocation endpoint is not known now.
  }
  if (!MayRevokeAt(ProvenanceOf(tokens, labels), provider)) {
    return RevocationResult::kUnsupported;
  }
  // The refresh token first: it is what could make new ones. Ending it ends the grant at most providers; the access
  // token is asked for as well, and its outcome does not count then.
  if (!tokens.refresh_token().empty()) {
    const RevocationResult result = endpoint_.Revoke(provider, Secret::Copy(tokens.refresh_token()), "refresh_token");
    if (result == RevocationResult::kRevoked) {
      endpoint_.Revoke(provider, Secret::Copy(tokens.access_token()), "access_token");
    }
    return result;
  }
  return endpoint_.Revoke(provider, Secret::Copy(tokens.access_token()), "access_token");
}

absl::Status Revoker::Forget(const ConnectionKey& key, int64_t version, const std::string& passport) {
  vault::v1::DeleteRequest request;
  *request.mutable_record() = ConnectionRecord(key.subject, key.connection);
  request.set_expected_version(version);
  return vault_.Delete(request, passport).status();
}

absl::StatusOr<Revoker::Outcome> Revoker::Disconnect(const ConnectionKey& key, const Provider* provider,
                                                     const std::string& passport) {
  const absl::Time now = clock_.Now();
  for (int attempt = 0; attempt < 3; ++attempt) {
    vault::v1::GetRequest get;
    *get.mutable_record() = ConnectionRecord(key.subject, key.connection);
    ASSIGN_OR_RETURN(const vault::v1::GetResponse record, vault_.Get(get, passport));
    const bool pending_already = record.metadata().state() == "REVOKE_PENDING";
    v1::TokenSet tokens;
    if (!tokens.ParseFromString(record.payload())) {
      return error::DamagedConnection();
    }
    vault::v1::PutRequest put;
    *put.mutable_record() = get.record();
    put.set_payload(record.payload());
    put.set_expected_version(record.version());
    put.set_state("REVOKE_PENDING");
    *put.mutable_labels() = record.metadata().labels();
    (*put.mutable_labels())[kSince] = absl::FormatTime(absl::RFC3339_full, now, absl::UTCTimeZone());
    *put.mutable_next_at() = ToTimestamp(now + kFirstRetry);
    if (pending_already) {
      // Said again: the first word may have got lost with the process that had it.
      invalidations_.Connection(key, record.metadata().generation(), now);
      return Outcome{.revocation = "pending", .generation = record.metadata().generation()};
    }
    // A new generation: what a refresh in flight brings home now is refused, and revoked by the one who holds it.
    absl::StatusOr<vault::v1::PutResponse> stored = vault_.Put(put, passport);
    if (absl::IsAborted(stored.status())) {
      continue;  // A refresh was faster: end what it brought.
    }
    if (!stored.ok()) {
      return stored.status();
    }
    Outcome outcome{.revocation = "pending", .generation = stored->generation()};
    invalidations_.Connection(key, stored->generation(), now);
    if (provider == nullptr) {
      return outcome;
    }
    const RevocationResult result = RevokeAt(*provider, tokens, record.metadata().labels());
    if (result == RevocationResult::kRetry) {
      return outcome;
    }
    outcome.revocation = result == RevocationResult::kRevoked ? "revoked" : "unsupported";
    // If this fails the background retries a revocation that is done already, which providers answer with 200.
    Forget(key, stored->version(), passport).IgnoreError();
    return outcome;
  }
  return WithRetryAfter(absl::UnavailableError("the connection keeps changing; try again"), absl::Seconds(1));
}

void Revoker::Retry(const ConnectionKey& key, const Provider* provider) {
  vault::v1::AcquireLeaseRequest acquire;
  *acquire.mutable_record() = ConnectionRecord(key.subject, key.connection);
  acquire.mutable_ttl()->set_seconds(30);
  acquire.set_maintenance(true);
  absl::StatusOr<vault::v1::AcquireLeaseResponse> response = vault_.AcquireLease(acquire, "");
  if (!response.ok() || !response->has_lease()) {
    return;  // Another replica is at it, or was, or it is gone.
  }
  const vault::v1::AcquireLeaseResponse::Lease& lease = response->lease();
  if (lease.metadata().state() != "REVOKE_PENDING") {
    // Linked anew meanwhile. Nothing of that link is ours to change.
    vault::v1::ReleaseRequest release;
    *release.mutable_record() = acquire.record();
    release.set_lease(lease.id());
    vault_.Release(release).IgnoreError();  // The lease lapses by itself if this is lost.
    return;
  }
  v1::TokenSet tokens;
  const bool readable = tokens.ParseFromString(lease.payload());
  const absl::Time now = clock_.Now();
  absl::Time since = now;
  if (const auto label = lease.metadata().labels().find(kSince); label != lease.metadata().labels().end()) {
    absl::ParseTime(absl::RFC3339_full, label->second, &since, nullptr);
  }
  const RevocationResult result = !readable || provider == nullptr
                                      ? RevocationResult::kRetry
                                      : RevokeAt(*provider, tokens, lease.metadata().labels());
  if (result != RevocationResult::kRetry || now - since > kGiveUp) {
    vault::v1::DeleteRequest forget;
    *forget.mutable_record() = acquire.record();
    forget.set_lease(lease.id());
    if (vault_.Delete(forget, "").ok()) {
      invalidations_.Connection(key, lease.generation(), now);
      return;
    }
  }
  vault::v1::PutStatusRequest status;
  *status.mutable_record() = acquire.record();
  status.set_lease(lease.id());
  status.set_state(lease.metadata().state());
  status.set_reason("provider_unavailable");
  *status.mutable_next_at() = ToTimestamp(now + kRetry);
  // The lease lapses by itself if this is lost.
  vault_.PutStatus(status).IgnoreError();
}

}  // namespace sallyport::token_broker

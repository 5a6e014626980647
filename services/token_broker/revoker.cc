// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/revoker.h"

#include <vector>

#include "common/status_macros.h"
#include "services/token_broker/owed.h"

namespace sallyport::token_broker {

void Revoker::Foretell(const ConnectionKey& key, const std::string& passport) {
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord(key.subject, key.connection);
  if (const absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(get, passport); record.ok()) {
    invalidations_.Connection(key, record->metadata().generation() + 1, clock_.Now());
  }
}

absl::StatusOr<Revoker::Ended> Revoker::Disconnect(const ConnectionKey& key, const std::string& passport) {
  Foretell(key, passport);
  vault::v1::OweRevocationRequest owe;
  *owe.mutable_record() = ConnectionRecord(key.subject, key.connection);
  const absl::StatusOr<vault::v1::OweRevocationResponse> done = vault_.OweRevocation(owe, passport);
  if (!done.ok() && !absl::IsNotFound(done.status())) {
    return done.status();
  }
  Ended ended;
  bool damaged = false;
  for (int i = 0; done.ok() && i < done->owed_size(); ++i) {
    ended.generation = done->owed(i).generation();
    damaged = damaged || done->owed(i).damaged();
    invalidations_.Connection(key, ended.generation, clock_.Now());
  }
  ASSIGN_OR_RETURN(const std::vector<vault::v1::RecordMetadata> owed, OwedBy(vault_, key));
  if (owed.empty()) {
    // One without a token, or with one that nobody can revoke any more: nothing is left of it here.
    ended.revocation = damaged ? "unsupported" : "revoked";
    return ended.generation == 0 ? absl::StatusOr<Ended>(absl::NotFoundError("this account is not connected"))
                                 : std::move(ended);
  }
  bool pending = false;
  bool unsupported = damaged;
  for (const vault::v1::RecordMetadata& one : owed) {
    if (GenerationOf(one) + 1 != ended.generation) {
      // Owed before; whoever has owed it may not have come to tell.
      invalidations_.Connection(key, GenerationOf(one) + 1, clock_.Now());
    }
    // Once a provider has not answered, the caller does not wait for it again.
    const std::string outcome = Revocations::NameOf(revocations_.Attempt(one, /*insist=*/!pending));
    pending = pending || outcome == "pending";
    unsupported = unsupported || outcome == "unsupported";
  }
  ended.revocation = pending ? "pending" : unsupported ? "unsupported" : "revoked";
  return ended;
}

}  // namespace sallyport::token_broker

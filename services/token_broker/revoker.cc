// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/revoker.h"

#include <vector>

#include "common/status_macros.h"
#include "services/token_broker/owed.h"

namespace sallyport::token_broker {

absl::StatusOr<Revoker::Ended> Revoker::Disconnect(const ConnectionKey& key, const std::string& passport) {
  vault::v1::OweRevocationRequest owe;
  *owe.mutable_record() = ConnectionRecord(key.subject, key.connection);
  const absl::StatusOr<vault::v1::OweRevocationResponse> done = vault_.OweRevocation(owe, passport);
  if (!done.ok() && !absl::IsNotFound(done.status())) {
    return done.status();
  }
  Ended ended;
  for (int i = 0; done.ok() && i < done->owed_size(); ++i) {
    ended.generation = done->owed(i).generation();
    invalidations_.Connection(key, ended.generation, clock_.Now());
  }
  ASSIGN_OR_RETURN(const std::vector<vault::v1::RecordMetadata> owed, OwedBy(vault_, key));
  if (owed.empty()) {
    // One without a token: nothing is left of it anywhere.
    ended.revocation = "revoked";
    return ended.generation == 0 ? absl::StatusOr<Ended>(absl::NotFoundError("this account is not connected"))
                                 : std::move(ended);
  }
  bool pending = false;
  bool unsupported = false;
  for (const vault::v1::RecordMetadata& one : owed) {
    // Once a provider has not answered, the caller does not wait for it again.
    const std::string outcome = Revocations::NameOf(revocations_.Attempt(one, /*insist=*/!pending));
    pending = pending || outcome == "pending";
    unsupported = unsupported || outcome == "unsupported";
  }
  ended.revocation = pending ? "pending" : unsupported ? "unsupported" : "revoked";
  return ended;
}

}  // namespace sallyport::token_broker

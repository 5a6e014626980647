// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/broker_key.h"

#include <utility>

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/status_macros.h"

namespace sallyport::token_broker {

absl::StatusOr<std::shared_ptr<const Secret>> BrokerKey::Root() {
  {
    MutexLock lock(mu_);
    if (root_ != nullptr) {
      return root_;
    }
  }
  vault::v1::GetRequest get;
  *get.mutable_record() = BrokerRecord("broker_key", "links");
  absl::StatusOr<vault::v1::GetResponse> stored = vault_.Get(get, "");
  if (absl::IsNotFound(stored.status())) {
    vault::v1::PutRequest put;
    *put.mutable_record() = get.record();
    put.set_payload(RandomBytes(32));
    put.set_expected_version(0);
    // Another replica may be first (ABORTED): then its key is everybody's.
    absl::StatusOr<vault::v1::PutResponse> made = vault_.Put(put, "");
    if (!made.ok() && !absl::IsAborted(made.status())) {
      return made.status();
    }
    stored = vault_.Get(get, "");
  }
  if (!stored.ok()) {
    return stored.status();
  }
  if (stored->payload().size() != 32) {
    return absl::DataLossError("the broker's key has a wrong size");
  }
  MutexLock lock(mu_);
  root_ = std::make_shared<const Secret>(std::move(*stored->mutable_payload()));
  return root_;
}

absl::StatusOr<Secret> BrokerKey::For(absl::string_view purpose) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const Secret> root, Root());
  return HkdfExpandSha256(root->Expose(), purpose, 32);
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/secret.h"
#include "sallyport/vault/v1/vault.grpc.pb.h"

namespace sallyport::authn {

// The vault as authn uses it: its own SYSTEM records, and Put of sign-in tokens (kind "connection", name
// "sso:<connector>") with a passport of the user. Virtual for tests. Thread-safe. Errors are the vault's; UNAVAILABLE
// when it cannot be reached.
class VaultClient {
 public:
  struct Value {
    Secret payload;
    int64_t version = 0;
  };

  virtual ~VaultClient() = default;
  // NOT_FOUND if there is none.
  virtual absl::StatusOr<Value> Get(const vault::v1::RecordName& record) = 0;
  // `passport` only for records of a USER.
  virtual absl::StatusOr<vault::v1::PutResponse> Put(const vault::v1::PutRequest& request,
                                                     const std::string& passport) = 0;
  virtual absl::Status Delete(const vault::v1::RecordName& record, const std::string& passport) = 0;
};

// Lazy: `channel` may lead nowhere yet. Each call is bounded by 5 s.
std::unique_ptr<VaultClient> MakeVaultClient(const std::shared_ptr<grpc::Channel>& channel);

// Records of owner SYSTEM "authn".
vault::v1::RecordName SystemRecord(const std::string& kind, const std::string& name);

}  // namespace sallyport::authn

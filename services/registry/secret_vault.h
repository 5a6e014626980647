// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include <grpcpp/channel.h>

#include "sallyport/vault/v1/vault.grpc.pb.h"

namespace sallyport::registry {

// The registry's side of the vault: values go in, none ever comes back. Owner of everything is the organization.
class SecretVault {
 public:
  explicit SecretVault(const std::shared_ptr<grpc::Channel>& vault);

  struct Stored {
    int64_t version = 0;
    bool unchanged = false;
  };
  // Stores and pins; an equal value makes no new version. `passport` names the administrator in the vault's audit.
  absl::StatusOr<Stored> Put(const std::string& kind, const std::string& record, const std::string& value,
                             const std::string& passport);
  absl::Status Unpin(const std::string& kind, const std::string& record, int64_t version, const std::string& passport);
  // OK if it is gone already.
  absl::Status Delete(const std::string& kind, const std::string& record, const std::string& passport);

 private:
  std::unique_ptr<vault::v1::Vault::Stub> stub_;
};

}  // namespace sallyport::registry

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
  struct Value {
    std::string text;
    // The version the writer's resource refers to now: a value equal to it makes no new version. 0: always a new one.
    int64_t base = 0;
    // Id of the write, by which what it stored can be taken back.
    std::string write;
  };
  // Stores and pins. `passport` names the administrator in the vault's audit.
  absl::StatusOr<Stored> Put(const std::string& kind, const std::string& record, const Value& value,
                             const std::string& passport);
  // OK if it is gone already.
  absl::Status Unpin(const std::string& kind, const std::string& record, int64_t version, const std::string& passport);
  // Destroys the versions up to `version`; what another writer puts meanwhile has a higher one and stays. OK if they
  // are gone already.
  absl::Status DeleteThrough(const std::string& kind, const std::string& record, int64_t version,
                             const std::string& passport);
  // Destroys what this write has stored in the record and nothing else. OK if there is nothing.
  absl::Status DeleteWrittenBy(const std::string& kind, const std::string& record, const std::string& write,
                               const std::string& passport);

 private:
  static absl::Status OkIfGone(absl::Status status);
  absl::Status Delete(const vault::v1::DeleteRequest& request, const std::string& passport);
  std::unique_ptr<vault::v1::Vault::Stub> stub_;
};

}  // namespace sallyport::registry

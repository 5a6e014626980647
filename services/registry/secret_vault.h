// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

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
    // Where it may be sent; sealed with it.
    std::vector<std::string> origins;
    // The version the writer's resource refers to now: a value equal to it, with equal origins, makes no new version.
    // 0: always a new one.
    int64_t base = 0;
    // Id of the write, by which what it stored can be taken back.
    std::string write;
    // ABORTED if the record holds anything.
    bool first = false;
  };
  // Stores and pins. `passport` names the administrator in the vault's audit; for a binding it must be an admin's.
  absl::StatusOr<Stored> Put(const std::string& kind, const std::string& record, const Value& value,
                             const std::string& passport);
  // Says anew where the payload of a version may be sent: a new version, pinned. The passport must be a
  // credential-admin's.
  absl::StatusOr<int64_t> Rebind(const std::string& kind, const std::string& record, int64_t version,
                                 const std::vector<std::string>& origins, const std::string& write,
                                 const std::string& passport);
  struct Adopted {
    std::string kind;
    std::string record;
    int64_t version = 0;  // 0, of a binding: makes one unless there is one.
    std::vector<std::string> origins;
  };
  // The versions that are bound now, as in `entries` (at most 200); 0 for one that is not there. FAILED_PRECONDITION,
  // reason "adopted", once it was said to be complete.
  absl::StatusOr<std::vector<int64_t>> Adopt(const std::vector<Adopted>& entries, bool complete);
  // OK if it is gone already.
  absl::Status Unpin(const std::string& kind, const std::string& record, int64_t version, const std::string& passport);
  // Destroys the versions up to `version`; what another writer puts meanwhile has a higher one and stays. OK if they
  // are gone already.
  absl::Status DeleteThrough(const std::string& kind, const std::string& record, int64_t version,
                             const std::string& passport);
  // Destroys what this write has stored in the record and nothing else. OK if there is nothing.
  absl::Status DeleteWrittenBy(const std::string& kind, const std::string& record, const std::string& write,
                               const std::string& passport);
  // How many users have something of their own, never who. The passport must be an admin's or a credential-admin's.
  absl::StatusOr<vault::v1::CountUsersResponse> CountUsers(const vault::v1::CountUsersRequest& request,
                                                           const std::string& passport);

 private:
  static absl::Status OkIfGone(absl::Status status);
  absl::Status Delete(const vault::v1::DeleteRequest& request, const std::string& passport);
  std::unique_ptr<vault::v1::Vault::Stub> stub_;
};

}  // namespace sallyport::registry

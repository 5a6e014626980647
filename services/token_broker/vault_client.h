// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>

#include "sallyport/vault/v1/vault.grpc.pb.h"

namespace sallyport::token_broker {

// The vault as the broker uses it; the seam behind which tests put one of their own. Errors are those of the proto with
// their details restored. `passport` is attached to calls about a user's records and may be empty otherwise.
// Thread-safe.
class VaultClient {
 public:
  virtual ~VaultClient() = default;
  virtual absl::StatusOr<vault::v1::GetResponse> Get(const vault::v1::GetRequest& request,
                                                     const std::string& passport) = 0;
  virtual absl::StatusOr<vault::v1::PutResponse> Put(const vault::v1::PutRequest& request,
                                                     const std::string& passport) = 0;
  virtual absl::StatusOr<vault::v1::DeleteResponse> Delete(const vault::v1::DeleteRequest& request,
                                                           const std::string& passport) = 0;
  virtual absl::StatusOr<vault::v1::ListResponse> List(const vault::v1::ListRequest& request,
                                                       const std::string& passport) = 0;
  virtual absl::StatusOr<vault::v1::AcquireLeaseResponse> AcquireLease(const vault::v1::AcquireLeaseRequest& request,
                                                                       const std::string& passport) = 0;
  // The lease alone authorises these two, and a Delete that names one.
  virtual absl::Status Release(const vault::v1::ReleaseRequest& request) = 0;
  virtual absl::Status PutStatus(const vault::v1::PutStatusRequest& request) = 0;
  virtual absl::StatusOr<vault::v1::ListDueResponse> ListDue(const vault::v1::ListDueRequest& request) = 0;
  // Without a passport for the connections of an app that is gone, and for one whose lease is named.
  virtual absl::StatusOr<vault::v1::OweRevocationResponse> OweRevocation(const vault::v1::OweRevocationRequest& request,
                                                                         const std::string& passport) = 0;
  virtual absl::StatusOr<vault::v1::DeleteOwnerResponse> DeleteOwner(const vault::v1::DeleteOwnerRequest& request,
                                                                     const std::string& passport) = 0;
  virtual absl::StatusOr<vault::v1::GetCacheRootsResponse> GetCacheRoots(const vault::v1::GetCacheRootsRequest& request,
                                                                         const std::string& passport) = 0;
  virtual absl::StatusOr<vault::v1::RenameResponse> Rename(const vault::v1::RenameRequest& request,
                                                           const std::string& passport) = 0;
};

// Over gRPC; every call ends within 5 s.
std::unique_ptr<VaultClient> MakeVaultClient(const std::shared_ptr<grpc::Channel>& vault);

// Names of the records the broker knows.
vault::v1::RecordName ConnectionRecord(const std::string& subject, const std::string& connection);
vault::v1::RecordName OrganizationRecord(const std::string& kind, const std::string& name);
vault::v1::RecordName BrokerRecord(const std::string& kind, const std::string& name);

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker::testing {

// Another one, of which a test lets calls fail: before they reach it, or once they are done, as if the answer were
// lost.
class FailingVaultClient final : public VaultClient {
 public:
  using Hook = std::function<absl::Status()>;

  explicit FailingVaultClient(VaultClient& vault) : vault_(vault) {}

  absl::StatusOr<vault::v1::GetResponse> Get(const vault::v1::GetRequest& request,
                                             const std::string& passport) override {
    return vault_.Get(request, passport);
  }
  absl::StatusOr<vault::v1::PutResponse> Put(const vault::v1::PutRequest& request,
                                             const std::string& passport) override {
    return vault_.Put(request, passport);
  }
  absl::StatusOr<vault::v1::DeleteResponse> Delete(const vault::v1::DeleteRequest& request,
                                                   const std::string& passport) override {
    return vault_.Delete(request, passport);
  }
  absl::StatusOr<vault::v1::ListResponse> List(const vault::v1::ListRequest& request,
                                               const std::string& passport) override {
    return vault_.List(request, passport);
  }
  absl::StatusOr<vault::v1::AcquireLeaseResponse> AcquireLease(const vault::v1::AcquireLeaseRequest& request,
                                                               const std::string& passport) override {
    return vault_.AcquireLease(request, passport);
  }
  absl::Status Release(const vault::v1::ReleaseRequest& request) override { return vault_.Release(request); }
  absl::Status PutStatus(const vault::v1::PutStatusRequest& request) override { return vault_.PutStatus(request); }
  absl::StatusOr<vault::v1::ListDueResponse> ListDue(const vault::v1::ListDueRequest& request) override {
    return vault_.ListDue(request);
  }
  absl::StatusOr<vault::v1::OweRevocationResponse> OweRevocation(const vault::v1::OweRevocationRequest& request,
                                                                 const std::string& passport) override {
    if (absl::Status failed = Ask(before_owe_); !failed.ok()) return failed;
    absl::StatusOr<vault::v1::OweRevocationResponse> response = vault_.OweRevocation(request, passport);
    if (absl::Status failed = Ask(after_owe_); !failed.ok()) return failed;
    return response;
  }
  absl::StatusOr<vault::v1::DeleteOwnerResponse> DeleteOwner(const vault::v1::DeleteOwnerRequest& request,
                                                             const std::string& passport) override {
    if (absl::Status failed = Ask(before_destroy_); !failed.ok()) return failed;
    return vault_.DeleteOwner(request, passport);
  }
  absl::StatusOr<vault::v1::GetCacheRootsResponse> GetCacheRoots(const vault::v1::GetCacheRootsRequest& request,
                                                                 const std::string& passport) override {
    if (absl::Status failed = Ask(before_roots_); !failed.ok()) return failed;
    return vault_.GetCacheRoots(request, passport);
  }
  absl::StatusOr<vault::v1::RenameResponse> Rename(const vault::v1::RenameRequest& request,
                                                   const std::string& passport) override {
    return vault_.Rename(request, passport);
  }

  Hook before_owe_;
  Hook after_owe_;
  Hook before_destroy_;
  Hook before_roots_;

 private:
  static absl::Status Ask(const Hook& hook) { return hook == nullptr ? absl::OkStatus() : hook(); }

  VaultClient& vault_;
};

}  // namespace sallyport::token_broker::testing

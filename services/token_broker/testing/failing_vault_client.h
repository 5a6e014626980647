// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "services/token_broker/testing/forwarding_vault_client.h"

namespace sallyport::token_broker::testing {

// Another one, of which a test lets calls fail: before they reach it, or once they are done, as if the answer were
// lost.
class FailingVaultClient final : public ForwardingVaultClient {
 public:
  using Hook = std::function<absl::Status()>;
  using ForwardingVaultClient::ForwardingVaultClient;

  absl::StatusOr<vault::v1::OweRevocationResponse> OweRevocation(const vault::v1::OweRevocationRequest& request,
                                                                 const std::string& passport) override {
    if (absl::Status failed = Ask(before_owe_); !failed.ok()) return failed;
    absl::StatusOr<vault::v1::OweRevocationResponse> response = ForwardingVaultClient::OweRevocation(request, passport);
    if (absl::Status failed = Ask(after_owe_); !failed.ok()) return failed;
    return response;
  }
  absl::StatusOr<vault::v1::DeleteOwnerResponse> DeleteOwner(const vault::v1::DeleteOwnerRequest& request,
                                                             const std::string& passport) override {
    if (absl::Status failed = Ask(before_destroy_); !failed.ok()) return failed;
    return ForwardingVaultClient::DeleteOwner(request, passport);
  }
  absl::StatusOr<vault::v1::GetCacheRootsResponse> GetCacheRoots(const vault::v1::GetCacheRootsRequest& request,
                                                                 const std::string& passport) override {
    if (absl::Status failed = Ask(before_roots_); !failed.ok()) return failed;
    return ForwardingVaultClient::GetCacheRoots(request, passport);
  }

  Hook before_owe_;
  Hook after_owe_;
  Hook before_destroy_;
  Hook before_roots_;

 private:
  static absl::Status Ask(const Hook& hook) { return hook == nullptr ? absl::OkStatus() : hook(); }
};

}  // namespace sallyport::token_broker::testing

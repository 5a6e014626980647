// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "services/token_broker/vault_client.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/fakes/passport.h"

namespace sallyport::token_broker::testing {

// The fake vault as the broker calls it.
class FakeVaultClient final : public VaultClient, public ::sallyport::testing::FakeVault {
 public:
  using Base = ::sallyport::testing::FakeVault;
  using Base::Base;
  using Base::Delete;
  using Base::Get;
  using Base::Put;

  absl::StatusOr<vault::v1::GetResponse> Get(const vault::v1::GetRequest& request,
                                             const std::string& passport) override {
    return Base::Get(Broker(passport), request);
  }
  absl::StatusOr<vault::v1::PutResponse> Put(const vault::v1::PutRequest& request,
                                             const std::string& passport) override {
    return Base::Put(Broker(passport), request);
  }
  absl::StatusOr<vault::v1::DeleteResponse> Delete(const vault::v1::DeleteRequest& request,
                                                   const std::string& passport) override {
    return Base::Delete(Broker(passport), request);
  }
  absl::StatusOr<vault::v1::ListResponse> List(const vault::v1::ListRequest& request,
                                               const std::string& passport) override {
    return Base::List(Broker(passport), request);
  }
  absl::StatusOr<vault::v1::AcquireLeaseResponse> AcquireLease(const vault::v1::AcquireLeaseRequest& request,
                                                               const std::string& passport) override {
    return Base::AcquireLease(Broker(passport), request);
  }
  absl::Status Release(const vault::v1::ReleaseRequest& request) override {
    return Base::Release(Broker(""), request).status();
  }
  absl::Status PutStatus(const vault::v1::PutStatusRequest& request) override {
    return Base::PutStatus(Broker(""), request).status();
  }
  absl::StatusOr<vault::v1::ListDueResponse> ListDue(const vault::v1::ListDueRequest& request) override {
    return Base::ListDue(Broker(""), request);
  }
  absl::StatusOr<vault::v1::OweRevocationResponse> OweRevocation(const vault::v1::OweRevocationRequest& request,
                                                                 const std::string& passport) override {
    return Base::OweRevocation(Broker(passport), request);
  }
  absl::StatusOr<vault::v1::DeleteOwnerResponse> DeleteOwner(const vault::v1::DeleteOwnerRequest& request,
                                                             const std::string& passport) override {
    return Base::DeleteOwner(Broker(passport), request);
  }
  absl::StatusOr<vault::v1::GetCacheRootsResponse> GetCacheRoots(const vault::v1::GetCacheRootsRequest& request,
                                                                 const std::string& passport) override {
    return Base::GetCacheRoots(Broker(passport), request);
  }
  absl::StatusOr<vault::v1::RenameResponse> Rename(const vault::v1::RenameRequest& request,
                                                   const std::string& passport) override {
    return Base::Rename(Broker(passport), request);
  }

  // The registry, for an administrator.
  static Caller Registry() {
    return {"registry", ::sallyport::testing::FakePassport("local:root", {"admin", "credential-admin"})};
  }

 private:
  static Caller Broker(const std::string& passport) { return {"token_broker", passport}; }
};

}  // namespace sallyport::token_broker::testing

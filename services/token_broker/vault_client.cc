// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/vault_client.h"

#include <utility>

#include "common/error.h"
#include "common/rpc/server.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(5);

class GrpcVaultClient final : public VaultClient {
 public:
  explicit GrpcVaultClient(const std::shared_ptr<grpc::Channel>& channel) : stub_(vault::v1::Vault::NewStub(channel)) {}

  absl::StatusOr<vault::v1::GetResponse> Get(const vault::v1::GetRequest& request,
                                             const std::string& passport) override {
    return Call<vault::v1::GetResponse>(&vault::v1::Vault::Stub::Get, request, passport);
  }
  absl::StatusOr<vault::v1::PutResponse> Put(const vault::v1::PutRequest& request,
                                             const std::string& passport) override {
    return Call<vault::v1::PutResponse>(&vault::v1::Vault::Stub::Put, request, passport);
  }
  absl::StatusOr<vault::v1::DeleteResponse> Delete(const vault::v1::DeleteRequest& request,
                                                   const std::string& passport) override {
    return Call<vault::v1::DeleteResponse>(&vault::v1::Vault::Stub::Delete, request, passport);
  }
  absl::StatusOr<vault::v1::ListResponse> List(const vault::v1::ListRequest& request,
                                               const std::string& passport) override {
    return Call<vault::v1::ListResponse>(&vault::v1::Vault::Stub::List, request, passport);
  }
  absl::StatusOr<vault::v1::AcquireLeaseResponse> AcquireLease(const vault::v1::AcquireLeaseRequest& request,
                                                               const std::string& passport) override {
    return Call<vault::v1::AcquireLeaseResponse>(&vault::v1::Vault::Stub::AcquireLease, request, passport);
  }
  absl::Status Release(const vault::v1::ReleaseRequest& request) override {
    return Call<vault::v1::ReleaseResponse>(&vault::v1::Vault::Stub::Release, request, "").status();
  }
  absl::Status PutStatus(const vault::v1::PutStatusRequest& request) override {
    return Call<vault::v1::PutStatusResponse>(&vault::v1::Vault::Stub::PutStatus, request, "").status();
  }
  absl::StatusOr<vault::v1::ListDueResponse> ListDue(const vault::v1::ListDueRequest& request) override {
    return Call<vault::v1::ListDueResponse>(&vault::v1::Vault::Stub::ListDue, request, "");
  }
  absl::StatusOr<vault::v1::OweRevocationResponse> OweRevocation(const vault::v1::OweRevocationRequest& request,
                                                                 const std::string& passport) override {
    return Call<vault::v1::OweRevocationResponse>(&vault::v1::Vault::Stub::OweRevocation, request, passport);
  }
  absl::StatusOr<vault::v1::DeleteOwnerResponse> DeleteOwner(const vault::v1::DeleteOwnerRequest& request,
                                                             const std::string& passport) override {
    return Call<vault::v1::DeleteOwnerResponse>(&vault::v1::Vault::Stub::DeleteOwner, request, passport);
  }
  absl::StatusOr<vault::v1::GetCacheRootsResponse> GetCacheRoots(const vault::v1::GetCacheRootsRequest& request,
                                                                 const std::string& passport) override {
    return Call<vault::v1::GetCacheRootsResponse>(&vault::v1::Vault::Stub::GetCacheRoots, request, passport);
  }
  absl::StatusOr<vault::v1::RenameResponse> Rename(const vault::v1::RenameRequest& request,
                                                   const std::string& passport) override {
    return Call<vault::v1::RenameResponse>(&vault::v1::Vault::Stub::Rename, request, passport);
  }

 private:
  template <typename Response, typename Request>
  absl::StatusOr<Response> Call(grpc::Status (vault::v1::Vault::Stub::*method)(grpc::ClientContext*, const Request&,
                                                                               Response*),
                                const Request& request, const std::string& passport) {
    std::unique_ptr<grpc::ClientContext> context = MakeClientContext(kTimeout, passport);
    Response response;
    if (grpc::Status status = ((*stub_).*method)(context.get(), request, &response); !status.ok()) {
      return FromGrpcStatus(status);
    }
    return response;
  }

  std::unique_ptr<vault::v1::Vault::Stub> stub_;
};

vault::v1::RecordName Record(vault::v1::OwnerType type, const std::string& owner, const std::string& kind,
                             const std::string& name) {
  vault::v1::RecordName record;
  record.set_owner_type(type);
  record.set_owner_id(owner);
  record.set_kind(kind);
  record.set_name(name);
  return record;
}

}  // namespace

std::unique_ptr<VaultClient> MakeVaultClient(const std::shared_ptr<grpc::Channel>& vault) {
  return std::make_unique<GrpcVaultClient>(vault);
}

vault::v1::RecordName ConnectionRecord(const std::string& subject, const std::string& connection) {
  return Record(vault::v1::USER, subject, "connection", connection);
}

vault::v1::RecordName OrganizationRecord(const std::string& kind, const std::string& name) {
  return Record(vault::v1::ORG, "default", kind, name);
}

vault::v1::RecordName BrokerRecord(const std::string& kind, const std::string& name) {
  return Record(vault::v1::SYSTEM, "token_broker", kind, name);
}

}  // namespace sallyport::token_broker

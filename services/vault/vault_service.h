// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "common/rpc/handler.h"
#include "sallyport/vault/v1/vault.grpc.pb.h"
#include "services/vault/vault.h"
#include "services/vault/vault_admin.h"

namespace sallyport::vault {

// gRPC to domain; no logic. One object a listener.
class VaultService final : public v1::Vault::Service {
 public:
  VaultService(vault::Vault& vault, RpcHandler::Options options) : vault_(vault), rpc_(std::move(options)) {}

  grpc::Status Put(grpc::ServerContext* context, const v1::PutRequest* request, v1::PutResponse* response) override;
  grpc::Status Get(grpc::ServerContext* context, const v1::GetRequest* request, v1::GetResponse* response) override;
  grpc::Status List(grpc::ServerContext* context, const v1::ListRequest* request, v1::ListResponse* response) override;
  grpc::Status Delete(grpc::ServerContext* context, const v1::DeleteRequest* request,
                      v1::DeleteResponse* response) override;
  grpc::Status Pin(grpc::ServerContext* context, const v1::PinRequest* request, v1::PinResponse* response) override;
  grpc::Status Rebind(grpc::ServerContext* context, const v1::RebindRequest* request,
                      v1::RebindResponse* response) override;
  grpc::Status Adopt(grpc::ServerContext* context, const v1::AdoptRequest* request,
                     v1::AdoptResponse* response) override;
  grpc::Status AcquireLease(grpc::ServerContext* context, const v1::AcquireLeaseRequest* request,
                            v1::AcquireLeaseResponse* response) override;
  grpc::Status Release(grpc::ServerContext* context, const v1::ReleaseRequest* request,
                       v1::ReleaseResponse* response) override;
  grpc::Status PutStatus(grpc::ServerContext* context, const v1::PutStatusRequest* request,
                         v1::PutStatusResponse* response) override;
  grpc::Status ListDue(grpc::ServerContext* context, const v1::ListDueRequest* request,
                       v1::ListDueResponse* response) override;
  grpc::Status OweRevocation(grpc::ServerContext* context, const v1::OweRevocationRequest* request,
                             v1::OweRevocationResponse* response) override;
  grpc::Status Rename(grpc::ServerContext* context, const v1::RenameRequest* request,
                      v1::RenameResponse* response) override;
  grpc::Status DeleteOwner(grpc::ServerContext* context, const v1::DeleteOwnerRequest* request,
                           v1::DeleteOwnerResponse* response) override;
  grpc::Status GetCacheRoots(grpc::ServerContext* context, const v1::GetCacheRootsRequest* request,
                             v1::GetCacheRootsResponse* response) override;
  grpc::Status CountUsers(grpc::ServerContext* context, const v1::CountUsersRequest* request,
                          v1::CountUsersResponse* response) override;

 private:
  vault::Vault& vault_;
  const RpcHandler rpc_;
};

class VaultAdminService final : public v1::VaultAdmin::Service {
 public:
  VaultAdminService(vault::VaultAdmin& admin, RpcHandler::Options options) : admin_(admin), rpc_(std::move(options)) {}

  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest* request,
                         v1::GetStatusResponse* response) override;
  grpc::Status RotateTerm(grpc::ServerContext* context, const v1::RotateTermRequest* request,
                          v1::RotateTermResponse* response) override;
  grpc::Status Rewrap(grpc::ServerContext* context, const v1::RewrapRequest* request,
                      v1::RewrapResponse* response) override;
  grpc::Status DestroyTerm(grpc::ServerContext* context, const v1::DestroyTermRequest* request,
                           v1::DestroyTermResponse* response) override;
  grpc::Status Seal(grpc::ServerContext* context, const v1::SealRequest* request, v1::SealResponse* response) override;

 private:
  vault::VaultAdmin& admin_;
  const RpcHandler rpc_;
};

}  // namespace sallyport::vault

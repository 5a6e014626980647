// SPDX-License-Identifier: Apache-2.0
#include "services/vault/vault_service.h"

namespace sallyport::vault {

grpc::Status VaultService::Put(grpc::ServerContext* context, const v1::PutRequest* request, v1::PutResponse* response) {
  return rpc_.Handle("Put", context, response, [&](const Caller& caller) { return vault_.Put(caller, *request); });
}

grpc::Status VaultService::Get(grpc::ServerContext* context, const v1::GetRequest* request, v1::GetResponse* response) {
  return rpc_.Handle("Get", context, response, [&](const Caller& caller) { return vault_.Get(caller, *request); });
}

grpc::Status VaultService::List(grpc::ServerContext* context, const v1::ListRequest* request,
                                v1::ListResponse* response) {
  return rpc_.Handle("List", context, response, [&](const Caller& caller) { return vault_.List(caller, *request); });
}

grpc::Status VaultService::Delete(grpc::ServerContext* context, const v1::DeleteRequest* request,
                                  v1::DeleteResponse* response) {
  return rpc_.Handle("Delete", context, response,
                     [&](const Caller& caller) { return vault_.Delete(caller, *request); });
}

grpc::Status VaultService::Pin(grpc::ServerContext* context, const v1::PinRequest* request, v1::PinResponse* response) {
  return rpc_.Handle("Pin", context, response, [&](const Caller& caller) { return vault_.Pin(caller, *request); });
}

grpc::Status VaultService::Rebind(grpc::ServerContext* context, const v1::RebindRequest* request,
                                  v1::RebindResponse* response) {
  return rpc_.Handle("Rebind", context, response,
                     [&](const Caller& caller) { return vault_.Rebind(caller, *request); });
}

grpc::Status VaultService::Adopt(grpc::ServerContext* context, const v1::AdoptRequest* request,
                                 v1::AdoptResponse* response) {
  return rpc_.Handle("Adopt", context, response, [&](const Caller& caller) { return vault_.Adopt(caller, *request); });
}

grpc::Status VaultService::AcquireLease(grpc::ServerContext* context, const v1::AcquireLeaseRequest* request,
                                        v1::AcquireLeaseResponse* response) {
  return rpc_.Handle("AcquireLease", context, response,
                     [&](const Caller& caller) { return vault_.AcquireLease(caller, *request); });
}

grpc::Status VaultService::Release(grpc::ServerContext* context, const v1::ReleaseRequest* request,
                                   v1::ReleaseResponse* response) {
  return rpc_.Handle("Release", context, response,
                     [&](const Caller& caller) { return vault_.Release(caller, *request); });
}

grpc::Status VaultService::PutStatus(grpc::ServerContext* context, const v1::PutStatusRequest* request,
                                     v1::PutStatusResponse* response) {
  return rpc_.Handle("PutStatus", context, response,
                     [&](const Caller& caller) { return vault_.PutStatus(caller, *request); });
}

grpc::Status VaultService::ListDue(grpc::ServerContext* context, const v1::ListDueRequest* request,
                                   v1::ListDueResponse* response) {
  return rpc_.Handle("ListDue", context, response,
                     [&](const Caller& caller) { return vault_.ListDue(caller, *request); });
}

grpc::Status VaultService::OweRevocation(grpc::ServerContext* context, const v1::OweRevocationRequest* request,
                                         v1::OweRevocationResponse* response) {
  return rpc_.Handle("OweRevocation", context, response,
                     [&](const Caller& caller) { return vault_.OweRevocation(caller, *request); });
}

grpc::Status VaultService::Rename(grpc::ServerContext* context, const v1::RenameRequest* request,
                                  v1::RenameResponse* response) {
  return rpc_.Handle("Rename", context, response,
                     [&](const Caller& caller) { return vault_.Rename(caller, *request); });
}

grpc::Status VaultService::DeleteOwner(grpc::ServerContext* context, const v1::DeleteOwnerRequest* request,
                                       v1::DeleteOwnerResponse* response) {
  return rpc_.Handle("DeleteOwner", context, response,
                     [&](const Caller& caller) { return vault_.DeleteOwner(caller, *request); });
}

grpc::Status VaultService::GetCacheRoots(grpc::ServerContext* context, const v1::GetCacheRootsRequest* request,
                                         v1::GetCacheRootsResponse* response) {
  return rpc_.Handle("GetCacheRoots", context, response,
                     [&](const Caller& caller) { return vault_.GetCacheRoots(caller, *request); });
}

grpc::Status VaultService::CountUsers(grpc::ServerContext* context, const v1::CountUsersRequest* request,
                                      v1::CountUsersResponse* response) {
  return rpc_.Handle("CountUsers", context, response,
                     [&](const Caller& caller) { return vault_.CountUsers(caller, *request); });
}

grpc::Status VaultAdminService::GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest* /*request*/,
                                          v1::GetStatusResponse* response) {
  return rpc_.Handle("GetStatus", context, response, [&](const Caller& /*caller*/) { return admin_.GetStatus(); });
}

grpc::Status VaultAdminService::RotateTerm(grpc::ServerContext* context, const v1::RotateTermRequest* /*request*/,
                                           v1::RotateTermResponse* response) {
  return rpc_.Handle("RotateTerm", context, response, [&](const Caller& caller) { return admin_.RotateTerm(caller); });
}

grpc::Status VaultAdminService::Rewrap(grpc::ServerContext* context, const v1::RewrapRequest* /*request*/,
                                       v1::RewrapResponse* response) {
  return rpc_.Handle("Rewrap", context, response, [&](const Caller& caller) { return admin_.Rewrap(caller); });
}

grpc::Status VaultAdminService::DestroyTerm(grpc::ServerContext* context, const v1::DestroyTermRequest* request,
                                            v1::DestroyTermResponse* response) {
  return rpc_.Handle("DestroyTerm", context, response,
                     [&](const Caller& caller) { return admin_.DestroyTerm(caller, *request); });
}

grpc::Status VaultAdminService::Seal(grpc::ServerContext* context, const v1::SealRequest* /*request*/,
                                     v1::SealResponse* response) {
  return rpc_.Handle("Seal", context, response, [&](const Caller& caller) { return admin_.Seal(caller); });
}

}  // namespace sallyport::vault

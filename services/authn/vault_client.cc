// SPDX-License-Identifier: Apache-2.0
#include "services/authn/vault_client.h"

#include <utility>

#include "common/error.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"

namespace sallyport::authn {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(5);

class GrpcVaultClient final : public VaultClient {
 public:
  explicit GrpcVaultClient(const std::shared_ptr<grpc::Channel>& channel) : stub_(vault::v1::Vault::NewStub(channel)) {}

  absl::StatusOr<Value> Get(const vault::v1::RecordName& record) override {
    vault::v1::GetRequest request;
    *request.mutable_record() = record;
    vault::v1::GetResponse response;
    auto context = MakeClientContext(kTimeout);
    RETURN_IF_ERROR(FromGrpcStatus(stub_->Get(context.get(), request, &response)));
    Value value;
    value.payload = Secret(std::move(*response.mutable_payload()));
    value.version = response.version();
    return value;
  }

  absl::StatusOr<vault::v1::PutResponse> Put(const vault::v1::PutRequest& request,
                                             const std::string& passport) override {
    vault::v1::PutResponse response;
    auto context = MakeClientContext(kTimeout, passport);
    RETURN_IF_ERROR(FromGrpcStatus(stub_->Put(context.get(), request, &response)));
    return response;
  }

  absl::Status Delete(const vault::v1::RecordName& record, const std::string& passport) override {
    vault::v1::DeleteRequest request;
    *request.mutable_record() = record;
    vault::v1::DeleteResponse response;
    auto context = MakeClientContext(kTimeout, passport);
    return FromGrpcStatus(stub_->Delete(context.get(), request, &response));
  }

 private:
  std::unique_ptr<vault::v1::Vault::Stub> stub_;
};

}  // namespace

std::unique_ptr<VaultClient> MakeVaultClient(const std::shared_ptr<grpc::Channel>& channel) {
  return std::make_unique<GrpcVaultClient>(channel);
}

vault::v1::RecordName SystemRecord(const std::string& kind, const std::string& name) {
  vault::v1::RecordName record;
  record.set_owner_type(vault::v1::SYSTEM);
  record.set_owner_id("authn");
  record.set_kind(kind);
  record.set_name(name);
  return record;
}

}  // namespace sallyport::authn

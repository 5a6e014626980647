// SPDX-License-Identifier: Apache-2.0
#include "services/registry/secret_vault.h"

#include "common/error.h"
#include "common/rpc/server.h"

namespace sallyport::registry {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(5);
// Seals up to 200 values.
constexpr absl::Duration kAdoptTimeout = absl::Seconds(30);
// Nobody's write waits longer for a number.
constexpr absl::Duration kCountTimeout = absl::Seconds(3);
// Label of a version: the id of the write that stored it.
constexpr char kWriteLabel[] = "write";

vault::v1::RecordName Name(const std::string& kind, const std::string& record) {
  vault::v1::RecordName name;
  name.set_owner_type(vault::v1::ORG);
  name.set_owner_id("default");
  name.set_kind(kind);
  name.set_name(record);
  return name;
}

}  // namespace

SecretVault::SecretVault(const std::shared_ptr<grpc::Channel>& vault) : stub_(vault::v1::Vault::NewStub(vault)) {}

absl::StatusOr<SecretVault::Stored> SecretVault::Put(const std::string& kind, const std::string& record,
                                                     const Value& value, const std::string& passport) {
  vault::v1::PutRequest request;
  *request.mutable_record() = Name(kind, record);
  request.set_payload(value.text);
  *request.mutable_origins() = {value.origins.begin(), value.origins.end()};
  if (value.first) request.set_expected_version(0);
  request.set_keep_generation(true);
  if (value.base != 0) {
    request.set_only_if_changed(true);
    request.set_compare_version(value.base);
  }
  request.set_pin(true);
  (*request.mutable_labels())[kWriteLabel] = value.write;
  vault::v1::PutResponse response;
  const auto context = MakeClientContext(kTimeout, passport);
  const grpc::Status status = stub_->Put(context.get(), request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return Stored{response.version(), response.unchanged()};
}

absl::StatusOr<int64_t> SecretVault::Rebind(const std::string& kind, const std::string& record, int64_t version,
                                            const std::vector<std::string>& origins, const std::string& write,
                                            const std::string& passport) {
  vault::v1::RebindRequest request;
  *request.mutable_record() = Name(kind, record);
  request.set_version(version);
  *request.mutable_origins() = {origins.begin(), origins.end()};
  (*request.mutable_labels())[kWriteLabel] = write;
  vault::v1::RebindResponse response;
  const auto context = MakeClientContext(kTimeout, passport);
  const grpc::Status status = stub_->Rebind(context.get(), request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response.version();
}

absl::StatusOr<std::vector<int64_t>> SecretVault::Adopt(const std::vector<Adopted>& entries, bool complete) {
  vault::v1::AdoptRequest request;
  request.set_complete(complete);
  for (const Adopted& adopted : entries) {
    auto& entry = *request.add_entries();
    *entry.mutable_record() = Name(adopted.kind, adopted.record);
    entry.set_version(adopted.version);
    *entry.mutable_origins() = {adopted.origins.begin(), adopted.origins.end()};
  }
  vault::v1::AdoptResponse response;
  const auto context = MakeClientContext(kAdoptTimeout);
  const grpc::Status status = stub_->Adopt(context.get(), request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  if (static_cast<size_t>(response.versions_size()) != entries.size()) {
    return absl::InternalError("the vault has answered another number of versions");
  }
  return std::vector<int64_t>(response.versions().begin(), response.versions().end());
}

absl::Status SecretVault::Unpin(const std::string& kind, const std::string& record, int64_t version,
                                const std::string& passport) {
  vault::v1::PinRequest request;
  *request.mutable_record() = Name(kind, record);
  request.set_version(version);
  request.set_pinned(false);
  vault::v1::PinResponse response;
  const auto context = MakeClientContext(kTimeout, passport);
  return OkIfGone(FromGrpcStatus(stub_->Pin(context.get(), request, &response)));
}

absl::Status SecretVault::DeleteThrough(const std::string& kind, const std::string& record, int64_t version,
                                        const std::string& passport) {
  vault::v1::DeleteRequest request;
  *request.mutable_record() = Name(kind, record);
  request.set_through_version(version);
  return Delete(request, passport);
}

absl::Status SecretVault::DeleteWrittenBy(const std::string& kind, const std::string& record, const std::string& write,
                                          const std::string& passport) {
  vault::v1::DeleteRequest request;
  *request.mutable_record() = Name(kind, record);
  (*request.mutable_labels())[kWriteLabel] = write;
  return Delete(request, passport);
}

absl::Status SecretVault::Delete(const vault::v1::DeleteRequest& request, const std::string& passport) {
  vault::v1::DeleteResponse response;
  const auto context = MakeClientContext(kTimeout, passport);
  return OkIfGone(FromGrpcStatus(stub_->Delete(context.get(), request, &response)));
}

absl::StatusOr<vault::v1::CountUsersResponse> SecretVault::CountUsers(const vault::v1::CountUsersRequest& request,
                                                                      const std::string& passport) {
  vault::v1::CountUsersResponse response;
  const auto context = MakeClientContext(kCountTimeout, passport);
  const grpc::Status status = stub_->CountUsers(context.get(), request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response;
}

absl::Status SecretVault::OkIfGone(absl::Status status) { return absl::IsNotFound(status) ? absl::OkStatus() : status; }

}  // namespace sallyport::registry

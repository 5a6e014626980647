// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/background.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/random.h"
#include "common/rpc_server.h"

namespace sallyport::token_broker {
namespace {

constexpr int kBatch = 50;

}  // namespace

Background::Background(const std::shared_ptr<grpc::Channel>& authn, VaultClient& vault, Connections& connections,
                       Refresher& refresher, Revoker& revoker, TaskRunner& runner, const Clock& clock,
                       absl::Duration interval)
    : authn_(authn::v1::Authn::NewStub(authn)),
      vault_(vault),
      connections_(connections),
      refresher_(refresher),
      revoker_(revoker),
      runner_(runner),
      clock_(clock),
      interval_(interval) {}

void Background::Start() { Schedule(); }

void Background::Schedule() {
  // Spread, so that replicas that started together do not all ask at once.
  runner_.PostAfter(interval_ * (0.75 + RandomUnit() / 2), [this] {
    if (!stopping_) {
      RunOnce();
      Schedule();
    }
  });
}

int Background::RunOnce() {
  vault::v1::ListDueRequest request;
  request.add_kinds("connection");
  request.add_kinds("link_flow");
  request.set_limit(kBatch);
  const absl::StatusOr<vault::v1::ListDueResponse> due = vault_.ListDue(request);
  if (!due.ok()) {
    Log(LogLevel::kDebug, "list_due_failed", {{"status", due.status()}});
    return 0;
  }
  for (const vault::v1::RecordMetadata& metadata : due->records()) {
    if (stopping_) {
      break;
    }
    Take(metadata);
  }
  return due->records_size();
}

absl::StatusOr<std::string> Background::Mint(const vault::v1::RecordName& record,
                                             authn::v1::MintMaintenancePassportRequest::Purpose purpose) {
  authn::v1::MintMaintenancePassportRequest request;
  *request.mutable_record() = record;
  request.set_purpose(purpose);
  authn::v1::MintMaintenancePassportResponse response;
  std::unique_ptr<grpc::ClientContext> context = MakeClientContext(absl::Seconds(5));
  if (grpc::Status status = authn_->MintMaintenancePassport(context.get(), request, &response); !status.ok()) {
    return FromGrpcStatus(status);
  }
  return response.passport();
}

void Background::Take(const vault::v1::RecordMetadata& metadata) {
  if (metadata.record().kind() == "link_flow") {
    vault::v1::DeleteRequest request;
    *request.mutable_record() = metadata.record();
    request.set_expected_version(metadata.head());
    vault_.Delete(request, "").status().IgnoreError();  // Consumed meanwhile: as good.
    return;
  }
  const bool revoke = metadata.state() == "REVOKE_PENDING";
  if (!revoke && StateOf(metadata) != ConnectionView::State::kLinked) {
    return;
  }
  const ConnectionKey key{metadata.record().owner_id(), metadata.record().name()};
  const absl::StatusOr<std::string> passport =
      Mint(metadata.record(), revoke ? authn::v1::MintMaintenancePassportRequest::REVOKE
                                     : authn::v1::MintMaintenancePassportRequest::REFRESH);
  if (!passport.ok()) {
    Log(LogLevel::kDebug, "maintenance_passport_refused", {{"status", passport.status()}});
    return;
  }
  if (!revoke) {
    RefreshWish wish;
    wish.reason = RefreshWish::Reason::kDue;
    refresher_.Refresh(key, wish, *passport, connections_.SourceFor(key.connection), [](const auto& /*result*/) {});
    return;
  }
  absl::StatusOr<Provider> provider = connections_.SourceFor(key.connection)();
  revoker_.Retry(key, provider.ok() ? &*provider : nullptr, *passport);
}

}  // namespace sallyport::token_broker

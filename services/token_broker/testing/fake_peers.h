// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include <grpcpp/grpcpp.h>

#include "common/caller/caller.h"
#include "common/caller/passport.h"
#include "common/error.h"
#include "common/jose/jwk.h"
#include "common/jose/jwt.h"
#include "common/mutex.h"
#include "sallyport/audit/v1/audit.grpc.pb.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"
#include "services/token_broker/testing/fake_vault.h"

namespace sallyport::token_broker::testing {

inline constexpr char kPublicUrl[] = "https://gw.example.com";

// The vault over gRPC.
class FakeVaultService final : public vault::v1::Vault::Service {
 public:
  explicit FakeVaultService(FakeVault& vault) : vault_(vault) {}
  using Context = grpc::ServerContext;

  grpc::Status Get(Context* context, const vault::v1::GetRequest* request, vault::v1::GetResponse* response) override {
    return Answer(vault_.Get(*request, PassportOf(context)), response);
  }
  grpc::Status Put(Context* context, const vault::v1::PutRequest* request, vault::v1::PutResponse* response) override {
    return Answer(vault_.Put(*request, PassportOf(context)), response);
  }
  grpc::Status Delete(Context* context, const vault::v1::DeleteRequest* request,
                      vault::v1::DeleteResponse* response) override {
    return Answer(vault_.Delete(*request, PassportOf(context)), response);
  }
  grpc::Status List(Context* context, const vault::v1::ListRequest* request,
                    vault::v1::ListResponse* response) override {
    return Answer(vault_.List(*request, PassportOf(context)), response);
  }
  grpc::Status AcquireLease(Context* context, const vault::v1::AcquireLeaseRequest* request,
                            vault::v1::AcquireLeaseResponse* response) override {
    return Answer(vault_.AcquireLease(*request, PassportOf(context)), response);
  }
  grpc::Status Release(Context* /*context*/, const vault::v1::ReleaseRequest* request,
                       vault::v1::ReleaseResponse*) override {
    return ToGrpcStatus(vault_.Release(*request));
  }
  grpc::Status PutStatus(Context* /*context*/, const vault::v1::PutStatusRequest* request,
                         vault::v1::PutStatusResponse*) override {
    return ToGrpcStatus(vault_.PutStatus(*request));
  }
  grpc::Status ListDue(Context* /*context*/, const vault::v1::ListDueRequest* request,
                       vault::v1::ListDueResponse* response) override {
    return Answer(vault_.ListDue(*request), response);
  }
  grpc::Status GetCacheRoots(Context* context, const vault::v1::GetCacheRootsRequest* request,
                             vault::v1::GetCacheRootsResponse* response) override {
    return Answer(vault_.GetCacheRoots(*request, PassportOf(context)), response);
  }

 private:
  static std::string PassportOf(const grpc::ServerContext* context) {
    const auto found = context->client_metadata().find(kPassportMetadata);
    return found == context->client_metadata().end() ? "" : std::string(found->second.data(), found->second.size());
  }
  template <typename Response>
  static grpc::Status Answer(absl::StatusOr<Response> result, Response* response) {
    if (!result.ok()) return ToGrpcStatus(result.status());
    *response = *std::move(result);
    return grpc::Status::OK;
  }
  FakeVault& vault_;
};

// Configuration that a test sets, sent to every watcher.
class FakeRegistry final : public registry::v1::Registry::Service {
 public:
  registry::v1::McpServer* AddServer() {
    MutexLock lock(mu_);
    return snapshot_.add_mcp_servers();
  }
  registry::v1::App* AddApp() {
    MutexLock lock(mu_);
    return snapshot_.add_apps();
  }
  void Change(const std::function<void(registry::v1::WatchEvent::Snapshot&)>& how) {
    MutexLock lock(mu_);
    how(snapshot_);
    ++revision_;
  }
  std::vector<registry::v1::Invalidation> invalidations() {
    MutexLock lock(mu_);
    return invalidations_;
  }

  grpc::Status Watch(grpc::ServerContext* context, const registry::v1::WatchRequest* /*request*/,
                     grpc::ServerWriter<registry::v1::WatchEvent>* writer) override {
    int64_t sent = -1;
    size_t told = 0;
    while (!context->IsCancelled()) {
      registry::v1::WatchEvent event;
      {
        MutexLock lock(mu_);
        event.set_store_id("store");
        event.set_revision(revision_ + static_cast<int64_t>(invalidations_.size()));
        if (sent != revision_) {
          *event.mutable_snapshot() = snapshot_;
          sent = revision_;
        } else if (told < invalidations_.size()) {
          *event.mutable_delta()->add_invalidations() = invalidations_[told++];
        }
      }
      if (event.event_case() != registry::v1::WatchEvent::EVENT_NOT_SET) {
        writer->Write(event);
      } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    }
    return grpc::Status::OK;
  }
  grpc::Status PublishInvalidations(grpc::ServerContext* /*context*/,
                                    const registry::v1::PublishInvalidationsRequest* request,
                                    registry::v1::PublishInvalidationsResponse* /*response*/) override {
    MutexLock lock(mu_);
    for (const auto& invalidation : request->invalidations()) invalidations_.push_back(invalidation);
    return grpc::Status::OK;
  }

 private:
  Mutex mu_;
  registry::v1::WatchEvent::Snapshot snapshot_ ABSL_GUARDED_BY(mu_);
  int64_t revision_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<registry::v1::Invalidation> invalidations_ ABSL_GUARDED_BY(mu_);
};

class FakeAudit final : public audit::v1::Audit::Service {
 public:
  grpc::Status Append(grpc::ServerContext* /*context*/, const audit::v1::AppendRequest* request,
                      audit::v1::AppendResponse* response) override {
    MutexLock lock(mu_);
    for (const auto& event : request->events()) {
      events_.push_back(event);
      response->set_stored_through(event.sequence());
    }
    return grpc::Status::OK;
  }
  // Waits for an event of this type and rule.
  bool Await(const std::string& type, const std::string& rule) {
    for (int i = 0; i < 500; ++i) {
      {
        MutexLock lock(mu_);
        for (const auto& event : events_) {
          if (event.type() == type && event.rule() == rule) return true;
        }
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

 private:
  Mutex mu_;
  std::vector<audit::v1::Event> events_ ABSL_GUARDED_BY(mu_);
};

// Keys, passports, connectors.
class FakeAuthn final : public authn::v1::Authn::Service {
 public:
  explicit FakeAuthn(const Clock& clock) : clock_(clock), key_(*PrivateKey::GenerateP256()) {}

  std::string Sign(const Passport& passport) { return *SignPassport(passport, kPublicUrl, key_, clock_.Now()); }

  grpc::Status GetKeys(grpc::ServerContext* /*context*/, const authn::v1::GetKeysRequest* /*request*/,
                       authn::v1::GetKeysResponse* response) override {
    response->set_jwks_json(JwkSet({key_.public_key()}).ToJson());
    return grpc::Status::OK;
  }
  grpc::Status GetConnector(grpc::ServerContext* /*context*/, const authn::v1::GetConnectorRequest* /*request*/,
                            authn::v1::Connector* response) override {
    *response = connector;
    return grpc::Status::OK;
  }

  // Local accounts have no tokens that could end.
  grpc::Status EndSignIn(grpc::ServerContext* context, const authn::v1::EndSignInRequest* /*request*/,
                         authn::v1::EndSignInResponse* /*response*/) override {
    const auto found = context->client_metadata().find(kPassportMetadata);
    if (found == context->client_metadata().end()) return {grpc::StatusCode::UNAUTHENTICATED, "no passport"};
    const auto jws = ParseJws(absl::string_view(found->second.data(), found->second.size()));
    const std::string subject = Jwt::FromJws(*jws)->subject();
    MutexLock lock(mu_);
    if (!end_sign_in_.ok()) return ToGrpcStatus(end_sign_in_);
    if (absl::StartsWith(subject, "local:")) {
      return ToGrpcStatus(WithReason(absl::FailedPreconditionError("no tokens"), "no_caller_token"));
    }
    ended_.push_back(subject);
    return grpc::Status::OK;
  }
  // What EndSignIn answers from now on.
  void SetEndSignIn(absl::Status status) {
    MutexLock lock(mu_);
    end_sign_in_ = std::move(status);
  }
  // Subjects whose sign-in has ended.
  std::vector<std::string> ended() {
    MutexLock lock(mu_);
    return ended_;
  }

  authn::v1::Connector connector;

 private:
  Mutex mu_;
  absl::Status end_sign_in_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> ended_ ABSL_GUARDED_BY(mu_);
  const Clock& clock_;
  PrivateKey key_;
};

// All of them behind one port on loopback.
class FakePeers {
 public:
  explicit FakePeers(const Clock& clock) : vault(clock), authn(clock), vault_service_(vault) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&vault_service_);
    builder.RegisterService(&registry);
    builder.RegisterService(&audit);
    builder.RegisterService(&authn);
    server_ = builder.BuildAndStart();
    target_ = absl::StrCat("127.0.0.1:", port);
  }
  ~FakePeers() { server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200)); }

  std::shared_ptr<grpc::Channel> Channel() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(target_, grpc::InsecureChannelCredentials(), arguments);
  }

  FakeVault vault;
  FakeRegistry registry;
  FakeAudit audit;
  FakeAuthn authn;

 private:
  FakeVaultService vault_service_;
  std::unique_ptr<grpc::Server> server_;
  std::string target_;
};

}  // namespace sallyport::token_broker::testing

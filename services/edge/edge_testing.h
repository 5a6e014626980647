// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "common/caller/caller.h"
#include "common/error.h"
#include "common/mutex.h"
#include "common/proto_time.h"
#include "common/rpc/client_address.h"
#include "sallyport/audit/v1/audit.grpc.pb.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"
#include "sallyport/token_broker/v1/token_broker.grpc.pb.h"
#include "sallyport/web/v1/web.grpc.pb.h"
#include "tests/testing/fake_clock.h"

// The services around an edge, as small as its tests need them. All thread-safe.
namespace sallyport::edge {

template <typename T>
T FromJson(const std::string& json) {
  T message;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &message);
  EXPECT_TRUE(status.ok()) << status.ToString() << " " << json;
  return message;
}

inline std::string PassportOf(const grpc::ServerContext& context) {
  const auto found = context.client_metadata().find(kPassportMetadata);
  return found == context.client_metadata().end() ? "" : std::string(found->second.data(), found->second.size());
}

// Lets calls through, or holds them until opened.
class Gate {
 public:
  void Close() {
    MutexLock lock(mu_);
    open_ = false;
  }
  void Open() {
    MutexLock lock(mu_);
    open_ = true;
    changed_.notify_all();
  }
  void Pass() {
    MutexLock lock(mu_);
    ++arrived_;
    changed_.notify_all();
    while (!open_) changed_.wait(mu_);
  }
  int arrived() {
    MutexLock lock(mu_);
    return arrived_;
  }
  // Until so many calls came in all.
  bool AwaitArrivals(int count) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    MutexLock lock(mu_);
    while (arrived_ < count) {
      if (changed_.wait_until(mu_, until) == std::cv_status::timeout) return false;
    }
    return true;
  }

 private:
  Mutex mu_;
  std::condition_variable_any changed_;
  bool open_ ABSL_GUARDED_BY(mu_) = true;
  int arrived_ ABSL_GUARDED_BY(mu_) = 0;
};

// Token "ours-<subject>" is a token of sallyport's, "idp-<subject>" the provider's own; all others are refused.
class FakeAuthn final : public authn::v1::Authn::Service {
 public:
  explicit FakeAuthn(const Clock& clock) : clock_(clock) {}

  grpc::Status Authenticate(grpc::ServerContext* /*context*/, const authn::v1::AuthenticateRequest* request,
                            authn::v1::AuthenticateResponse* response) override {
    gate.Pass();
    MutexLock lock(mu_);
    ++calls_;
    if (!status_.ok()) return status_;
    const std::string& token = request->token();
    const bool ours = absl::StartsWith(token, "ours-");
    if (!ours && !absl::StartsWith(token, "idp-")) return {grpc::StatusCode::UNAUTHENTICATED, "no"};
    const std::string name = token.substr(token.find('-') + 1);
    if (name == "stranger") return {grpc::StatusCode::PERMISSION_DENIED, "not on the list"};
    authn::v1::Principal& principal = *response->mutable_principal();
    principal.set_subject("okta:" + name);
    principal.set_email(name + "@example.com");
    principal.set_token_kind(ours ? authn::v1::SALLYPORT : authn::v1::CONNECTOR_ACCESS);
    if (name == "evil") (*principal.mutable_claims())["email"] = "a\r\nX-Evil: 1";
    *principal.mutable_expires_at() = ToTimestamp(clock_.Now() + token_life_);
    response->set_passport("passport-" + name);
    response->set_session_id("session-" + name);
    response->set_rule("interactive.allow.everyone");
    *response->mutable_valid_until() = ToTimestamp(clock_.Now() + std::min(absl::Minutes(5), token_life_));
    return grpc::Status::OK;
  }
  grpc::Status GetEdgeKeys(grpc::ServerContext* /*context*/, const authn::v1::GetEdgeKeysRequest* /*request*/,
                           authn::v1::GetEdgeKeysResponse* response) override {
    response->add_session_tag_keys(std::string(32, 'k'));
    *response->mutable_refresh_after() = ToTimestamp(clock_.Now() + absl::Hours(24));
    return grpc::Status::OK;
  }
  grpc::Status GetPassport(grpc::ServerContext* /*context*/, const authn::v1::GetPassportRequest* request,
                           authn::v1::GetPassportResponse* response) override {
    {
      MutexLock lock(mu_);
      passport_requests_.push_back(*request);
    }
    if (absl::StrContains(request->cookie(), "session=ada") || request->api_token() == "api-ada") {
      response->set_passport("passport-ada");
      return grpc::Status::OK;
    }
    return {grpc::StatusCode::UNAUTHENTICATED, "no session"};
  }

  // Gives the client's address back in place of a token.
  grpc::Status RedeemAdminToken(grpc::ServerContext* context, const authn::v1::RedeemAdminTokenRequest* /*request*/,
                                authn::v1::RedeemAdminTokenResponse* response) override {
    response->set_access_token(ClientAddressOf(*context));
    return grpc::Status::OK;
  }

  void SetStatus(const grpc::Status& status) {
    MutexLock lock(mu_);
    status_ = status;
  }
  void SetTokenLife(absl::Duration life) {
    MutexLock lock(mu_);
    token_life_ = life;
  }
  int calls() const {
    MutexLock lock(mu_);
    return calls_;
  }
  std::vector<authn::v1::GetPassportRequest> passport_requests() const {
    MutexLock lock(mu_);
    return passport_requests_;
  }
  Gate gate;

 private:
  const Clock& clock_;
  mutable Mutex mu_;
  std::vector<authn::v1::GetPassportRequest> passport_requests_ ABSL_GUARDED_BY(mu_);
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
  absl::Duration token_life_ ABSL_GUARDED_BY(mu_) = absl::Hours(1);
  int calls_ ABSL_GUARDED_BY(mu_) = 0;
};

// Servers whose uid begins with "srv_org" have one API key; those with "srv_user" need a linked account; to those with
// "srv_signin" the token of the sign-in goes as X-Token.
class FakeBroker final : public token_broker::v1::TokenBroker::Service {
 public:
  using Request = token_broker::v1::ResolveCredentialsRequest;
  using Response = token_broker::v1::ResolveCredentialsResponse;

  grpc::Status ResolveCredentials(grpc::ServerContext* context, const Request* request, Response* response) override {
    gate.Pass();
    MutexLock lock(mu_);
    ++calls_;
    requests_.push_back(*request);
    passports_.push_back(PassportOf(*context));
    if (!status_.ok()) return status_;
    Response::Piece piece;
    piece.set_piece("app_auth");
    piece.set_location(Response::HEADER);
    if (absl::StartsWith(request->server_uid(), "srv_user")) {
      const std::string subject = PassportOf(*context).substr(std::string("passport-").size());
      if (!linked_.contains(subject)) {
        SetLink(response->mutable_link());
        return grpc::Status::OK;
      }
      if (request->refused_version() == version_ && renewals_left_-- <= 0) {
        if (!no_renewal_.ok()) return no_renewal_;
        SetLink(response->mutable_link());
        return grpc::Status::OK;
      }
      if (request->refused_version() == version_) ++version_;
      piece.set_scope(token_broker::v1::USER);
      piece.set_connection("app_x");
      piece.set_generation(generation_);
      piece.set_version(version_);
      piece.set_name("Authorization");
      piece.set_value(absl::StrCat("Bearer app-token-of-", subject, "-v", version_));
    } else if (absl::StartsWith(request->server_uid(), "srv_signin")) {
      if (request->refused_version() == version_ && !renews_) {
        return ToGrpcStatus(WithReason(absl::FailedPreconditionError("no token"), "no_caller_token"));
      }
      if (request->refused_version() == version_) ++version_;
      piece.set_piece("outbound_headers[x-token]");
      piece.set_scope(token_broker::v1::TOKEN);
      piece.set_connection("sso:okta");
      piece.set_generation(generation_);
      piece.set_version(version_);
      piece.set_name("X-Token");
      piece.set_value(absl::StrCat("sign-in-v", version_));
    } else {
      piece.set_scope(scope_);
      piece.set_name(key_name_);
      if (key_name_.empty()) piece.set_location(Response::QUERY);
      piece.set_value("org-key");
    }
    *response->add_pieces() = piece;
    return grpc::Status::OK;
  }
  grpc::Status StartLink(grpc::ServerContext* /*context*/, const token_broker::v1::StartLinkRequest* request,
                         token_broker::v1::StartLinkResponse* response) override {
    MutexLock lock(mu_);
    response->set_url("https://gw.example.com/connect/user?for=x");
    response->set_elicitation_id("e-1");
    if (request->has_call()) response->set_request_state("sp1.state");
    response->set_message("Connect your GitHub account to continue.");
    started_ = *request;
    return grpc::Status::OK;
  }
  grpc::Status ResumeLink(grpc::ServerContext* /*context*/, const token_broker::v1::ResumeLinkRequest* request,
                          token_broker::v1::ResumeLinkResponse* response) override {
    MutexLock lock(mu_);
    if (request->request_state() != "sp1.state" ||
        request->call().SerializeAsString() != started_.call().SerializeAsString()) {
      return {grpc::StatusCode::INVALID_ARGUMENT, "request_state_mismatch"};
    }
    response->set_app_uid("app_x");
    return grpc::Status::OK;
  }

  void Link(const std::string& name) {
    MutexLock lock(mu_);
    linked_.insert(name);
    ++generation_;
  }
  void Unlink(const std::string& name) {
    MutexLock lock(mu_);
    linked_.erase(name);
  }
  void SetStatus(const grpc::Status& status) {
    MutexLock lock(mu_);
    status_ = status;
  }
  void SetScope(token_broker::v1::Scope scope) {
    MutexLock lock(mu_);
    scope_ = scope;
  }
  // A user's token that was refused is renewed so often; then the answer is `status`, or the link if that is OK.
  void SetRenewals(int count, const grpc::Status& status = grpc::Status::OK) {
    MutexLock lock(mu_);
    renewals_left_ = count;
    no_renewal_ = status;
  }
  // False: a sign-in's token that was refused cannot be had newer.
  void SetRenews(bool renews) {
    MutexLock lock(mu_);
    renews_ = renews;
  }
  // Empty: in the query.
  void SetKeyName(const std::string& name) {
    MutexLock lock(mu_);
    key_name_ = name;
  }
  int calls() const {
    MutexLock lock(mu_);
    return calls_;
  }
  std::vector<Request> requests() const {
    MutexLock lock(mu_);
    return requests_;
  }
  std::vector<std::string> passports() const {
    MutexLock lock(mu_);
    return passports_;
  }
  Gate gate;

 private:
  static void SetLink(token_broker::v1::LinkRequired* link) {
    link->set_app_uid("app_x");
    link->set_app_slug("github");
    link->set_app_display_name("GitHub");
  }

  mutable Mutex mu_;
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
  token_broker::v1::Scope scope_ ABSL_GUARDED_BY(mu_) = token_broker::v1::ORG;
  std::string key_name_ ABSL_GUARDED_BY(mu_) = "X-Api-Key";
  std::set<std::string> linked_ ABSL_GUARDED_BY(mu_);
  int64_t generation_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t version_ ABSL_GUARDED_BY(mu_) = 1;
  bool renews_ ABSL_GUARDED_BY(mu_) = true;
  int renewals_left_ ABSL_GUARDED_BY(mu_) = 1000;
  grpc::Status no_renewal_ ABSL_GUARDED_BY(mu_);
  int calls_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<Request> requests_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> passports_ ABSL_GUARDED_BY(mu_);
  token_broker::v1::StartLinkRequest started_ ABSL_GUARDED_BY(mu_);
};

// The control stream, a few methods for the API, and where audit events end up.
class FakeRegistry final : public registry::v1::Registry::Service {
 public:
  grpc::Status Watch(grpc::ServerContext* context, const registry::v1::WatchRequest* /*request*/,
                     grpc::ServerWriter<registry::v1::WatchEvent>* writer) override {
    size_t sent = 0;
    uint64_t epoch = 0;
    {
      MutexLock lock(mu_);
      if (down_) return {grpc::StatusCode::UNAVAILABLE, "down"};
      epoch = epoch_;
      sent = events_.size();
      registry::v1::WatchEvent first;
      first.set_store_id("store");
      first.set_revision(revision_);
      *first.mutable_snapshot() = snapshot_;
      writer->Write(first);
    }
    while (!context->IsCancelled()) {
      registry::v1::WatchEvent next;
      {
        MutexLock lock(mu_);
        if (epoch != epoch_) return {grpc::StatusCode::UNAVAILABLE, "cut"};
        if (sent == events_.size()) {
          changed_.wait_for(mu_, std::chrono::milliseconds(20));
          continue;
        }
        next = events_[sent++];
      }
      writer->Write(next);
    }
    return grpc::Status::OK;
  }
  grpc::Status GetMcpServer(grpc::ServerContext* context, const registry::v1::GetMcpServerRequest* request,
                            registry::v1::McpServer* response) override {
    if (PassportOf(*context) != "passport-ada") return {grpc::StatusCode::PERMISSION_DENIED, "no role"};
    response->set_slug(request->slug());
    return grpc::Status::OK;
  }
  grpc::Status DeleteMcpServer(grpc::ServerContext* /*context*/,
                               const registry::v1::DeleteMcpServerRequest* /*request*/,
                               registry::v1::DeleteMcpServerResponse* /*response*/) override {
    return grpc::Status::OK;
  }

  // Before or after watchers came.
  void Put(const registry::v1::McpServer& server) {
    MutexLock lock(mu_);
    *snapshot_.add_mcp_servers() = server;
    registry::v1::WatchEvent event;
    *event.mutable_delta()->add_mcp_servers() = server;
    Push(event);
  }
  void PutApp(const registry::v1::App& app) {
    MutexLock lock(mu_);
    *snapshot_.add_apps() = app;
    registry::v1::WatchEvent event;
    *event.mutable_delta()->add_apps() = app;
    Push(event);
  }
  void Invalidate(registry::v1::Invalidation::Kind kind, const std::string& key, int64_t generation = 0) {
    MutexLock lock(mu_);
    registry::v1::WatchEvent event;
    auto& invalidation = *event.mutable_delta()->add_invalidations();
    invalidation.set_kind(kind);
    invalidation.set_key(key);
    invalidation.set_generation(generation);
    Push(event);
  }
  void Heartbeat() {
    MutexLock lock(mu_);
    registry::v1::WatchEvent event;
    event.set_store_id("store");
    event.set_revision(revision_);
    event.mutable_heartbeat();
    events_.push_back(event);
    changed_.notify_all();
  }
  void SetDown(bool down) {
    MutexLock lock(mu_);
    down_ = down;
    ++epoch_;
    changed_.notify_all();
  }

 private:
  void Push(registry::v1::WatchEvent& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    event.set_store_id("store");
    event.set_revision(++revision_);
    events_.push_back(event);
    changed_.notify_all();
  }

  Mutex mu_;
  std::condition_variable_any changed_;
  bool down_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t revision_ ABSL_GUARDED_BY(mu_) = 1;
  registry::v1::WatchEvent::Snapshot snapshot_ ABSL_GUARDED_BY(mu_);
  std::vector<registry::v1::WatchEvent> events_ ABSL_GUARDED_BY(mu_);
};

// Where audit events end up.
class FakeAudit final : public audit::v1::Audit::Service {
 public:
  grpc::Status Append(grpc::ServerContext* /*context*/, const audit::v1::AppendRequest* request,
                      audit::v1::AppendResponse* response) override {
    MutexLock lock(mu_);
    for (const auto& event : request->events()) events_.push_back(event);
    response->set_stored_through(request->events().rbegin()->sequence());
    return grpc::Status::OK;
  }
  std::vector<audit::v1::Event> events() const {
    MutexLock lock(mu_);
    return events_;
  }

 private:
  mutable Mutex mu_;
  std::vector<audit::v1::Event> events_ ABSL_GUARDED_BY(mu_);
};

// Pages: remembers what was asked for.
class FakeWeb final : public web::v1::Web::Service {
 public:
  grpc::Status Handle(grpc::ServerContext* /*context*/, const web::v1::WebRequest* request,
                      web::v1::WebResponse* response) override {
    MutexLock lock(mu_);
    requests_.push_back(*request);
    response->set_status(200);
    response->set_body("page");
    for (const auto& [name, value] : headers_) {
      web::v1::Header& header = *response->add_headers();
      header.set_name(name);
      header.set_value(value);
    }
    return status_;
  }
  // Of every page from now on.
  void SetHeaders(std::vector<std::pair<std::string, std::string>> headers) {
    MutexLock lock(mu_);
    headers_ = std::move(headers);
  }
  void SetStatus(const grpc::Status& status) {
    MutexLock lock(mu_);
    status_ = status;
  }
  std::vector<web::v1::WebRequest> requests() const {
    MutexLock lock(mu_);
    return requests_;
  }

 private:
  mutable Mutex mu_;
  std::vector<web::v1::WebRequest> requests_ ABSL_GUARDED_BY(mu_);
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
  std::vector<std::pair<std::string, std::string>> headers_ ABSL_GUARDED_BY(mu_);
};

// In-process, for one or more fakes.
class FakeServer {
 public:
  explicit FakeServer(const std::vector<grpc::Service*>& services) {
    grpc::ServerBuilder builder;
    for (grpc::Service* service : services) builder.RegisterService(service);
    server_ = builder.BuildAndStart();
    channel_ = server_->InProcessChannel(grpc::ChannelArguments());
  }
  ~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

// Waits for a condition, at most a minute.
inline bool Soon(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace sallyport::edge

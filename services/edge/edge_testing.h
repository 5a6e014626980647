// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
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
#include "sallyport/registry/v1/registry.grpc.pb.h"
#include "sallyport/token_broker/v1/token_broker.grpc.pb.h"
#include "sallyport/web/v1/web.grpc.pb.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/fake_audit.h"
#include "tests/testing/fakes/fake_authn.h"
#include "tests/testing/fakes/fake_registry.h"
#include "tests/testing/fakes/gate.h"
#include "tests/testing/fakes/in_process.h"
#include "tests/testing/fakes/lowered.h"

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

using sallyport::testing::FakeAudit;
using sallyport::testing::FakeAuthn;
using sallyport::testing::Gate;

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
      // With the account that was chosen, "ada/work".
      const std::string account = request->account().empty() ? "" : "/" + request->account();
      const std::string subject = PassportOf(*context).substr(std::string("passport-").size()) + account;
      if (!linked_.contains(subject)) {
        SetLink(response->mutable_link());
        response->mutable_link()->set_account(request->account());
        return grpc::Status::OK;
      }
      if (request->refused_version() == version_ && renewals_left_-- <= 0) {
        if (!no_renewal_.ok()) return no_renewal_;
        SetLink(response->mutable_link());
        return grpc::Status::OK;
      }
      if (request->refused_version() == version_) ++version_;
      piece.set_scope(token_broker::v1::USER);
      piece.set_connection("app_x" + account);
      piece.set_generation(generation_);
      piece.set_version(version_);
      piece.set_name("Authorization");
      piece.set_value(absl::StrCat("Bearer app-token-of-", subject, "-v", version_));
    } else if (absl::StartsWith(request->server_uid(), "srv_consent")) {
      token_broker::v1::LinkRequired& link = *response->mutable_link();
      link.set_app_uid("sso:okta");
      link.set_app_slug("okta");
      link.set_app_display_name("okta");
      link.set_reason(token_broker::v1::LinkRequired::NEEDS_CONSENT);
      link.set_claims(R"({"a":1})");
      return grpc::Status::OK;
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
  token_broker::v1::StartLinkRequest started() const {
    MutexLock lock(mu_);
    return started_;
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

// With a few methods for the API.
class FakeRegistry final : public sallyport::testing::FakeRegistry {
 public:
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

using FakeServer = sallyport::testing::InProcessServer;

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

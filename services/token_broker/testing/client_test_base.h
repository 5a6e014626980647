// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "common/mutex.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker::testing {

// A broker whose provider gives the gateway's own clients tokens: "<grant>-<n>", good for an hour.
class ClientTestBase : public BrokerTestBase {
 protected:
  ClientTestBase() : BrokerTestBase(clock_for_all_) {
    provider_.SetHandler([this](const HttpProvider::Request& request) { return Answer(request); });
  }

  // With its client secret and where its tokens may go.
  template <typename Client>
  void FillClient(const std::string& uid, const std::string& path, Client* client) {
    client->set_client_id("me");
    SetSecret(client->mutable_client_secret(), uid + "/" + path, "s3cret");
    Bind(uid, {kOrigin});
  }
  void SetSecret(common::v1::Secret* secret, const std::string& record, const std::string& value) {
    PutSecret("server_secret", record, value, {Url::Parse(provider_.Url("/"))->origin()});
    secret->set_set(true);
    secret->set_version(1);
    secret->set_vault_record(record);
  }
  void Bind(const std::string& uid, const std::vector<std::string>& origins) {
    PutSecret("server_binding", uid + "/binding", "binding-of-" + uid, origins);
  }
  registry::v1::McpServer* NewServer(const std::string& uid, bool interactive = false) {
    registry::v1::McpServer* server = AddServer(uid, uid.substr(4));
    server->mutable_binding()->set_version(1);
    if (interactive) {
      server->mutable_agent_auth()->mutable_interactive();
    } else {
      server->mutable_agent_auth()->mutable_passthrough();
    }
    return server;
  }
  absl::StatusOr<v1::ResolveCredentialsResponse> Ask(const std::string& uid, const std::string& passport = "",
                                                     v1::ResolveCredentialsRequest request = {}) {
    request.set_server_uid(uid);
    return Resolve(*brokers_.back(), request, passport);
  }
  // Of a caller who signed in.
  std::string PassportOf(const std::string& subject, const std::string& uid) const {
    return peers_.authn.Sign(CallPassport(subject, uid));
  }
  // Of one with a token of their identity provider.
  std::string PassportWithoutSession(const std::string& subject, const std::string& uid) const {
    Passport passport = CallPassport(subject, uid);
    passport.session_id.clear();
    return peers_.authn.Sign(passport);
  }

  HttpProvider::Response Answer(const HttpProvider::Request& request) {
    MutexLock lock(mu_);
    requests_.push_back(request);
    if (!answers_.empty()) {
      HttpProvider::Response answer = answers_.front();
      answers_.erase(answers_.begin());
      return answer;
    }
    const auto grant = request.form.find("grant_type");
    const std::string name = grant == request.form.end() ? "none" : grant->second.substr(grant->second.rfind(':') + 1);
    return {200, absl::StrCat(R"({"access_token":")", name, "-", requests_.size(),
                              R"(","token_type":"Bearer","expires_in":3600})")};
  }
  // What the provider answers next, before it gives tokens again.
  void AnswerNext(int status, const std::string& body) {
    MutexLock lock(mu_);
    answers_.push_back({status, body});
  }
  std::vector<HttpProvider::Request> Requests() {
    MutexLock lock(mu_);
    return requests_;
  }

  FakeClock clock_for_all_{absl::FromUnixSeconds(1'700'000'000)};
  Mutex mu_;
  std::vector<HttpProvider::Request> requests_ ABSL_GUARDED_BY(mu_);
  std::vector<HttpProvider::Response> answers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker::testing

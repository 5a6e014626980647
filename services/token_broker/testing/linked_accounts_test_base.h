// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/http/url.h"
#include "common/mutex.h"
#include "sallyport/token_broker/v1/endings.grpc.pb.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker::testing {

// Users who link accounts of one app that says which account it is, and come back with another one.
class LinkedAccountsTestBase : public BrokerTestBase {
 protected:
  LinkedAccountsTestBase() : BrokerTestBase(clock_for_all_) {
    app_->mutable_account_identity()->set_userinfo_url(provider_.Url("/user"));
    // Codes are named after the account that gives them.
    provider_.SetHandler([this](const HttpProvider::Request& request) -> HttpProvider::Response {
      std::function<void()> meanwhile;
      if (request.form.count("code") > 0) {
        MutexLock lock(mu_);
        meanwhile = std::exchange(meanwhile_, nullptr);
      }
      if (meanwhile != nullptr) meanwhile();
      MutexLock lock(mu_);
      if (request.path == "/revoke") {
        if (revoke_status_ == 200) revoked_.insert(request.form.at("token"));
        return {revoke_status_, "{}"};
      }
      if (request.path == "/user") {
        if (user_status_ != 200) return {user_status_, "{}"};
        const std::string name = request.authorization.substr(request.authorization.find("at-") + 3);
        return {200, absl::StrCat(R"({"sub":"id-of-)", name, R"(","preferred_username":")", name, R"(","email":")",
                                  name, R"(@)", domain_, R"(","email_verified":true})")};
      }
      const std::string name = request.form.count("code") > 0 ? request.form.at("code") : "";
      return {200, absl::StrCat(R"({"access_token":"at-)", name, R"(","refresh_token":"rt-)", name,
                                R"(","expires_in":3600,"scope":"repo"})")};
    });
  }

  static std::string Between(const std::string& text, const std::string& before, const std::string& after) {
    const size_t begin = text.find(before);
    if (begin == std::string::npos) return "";
    return text.substr(begin + before.size(), text.find(after, begin + before.size()) - begin - before.size());
  }
  static std::string Csrf(const web::v1::WebResponse& page) {
    return Between(page.body(), "name=\"csrf\" value=\"", "\"");
  }
  static Passport Session(const std::string& session, const std::string& subject = "corp:ada") {
    Passport passport;
    passport.subject = subject;
    passport.session_id = session;
    passport.purpose = Passport::Purpose::kLink;
    passport.link_server_uids = {kServer};
    passport.email = "ada@example.com";
    passport.email_verified = true;
    return passport;
  }
  std::string Browser(const Passport& user = Session("ses_1")) const { return peers_.authn.Sign(user); }

  // From the page to the provider; its state.
  std::string Leave(TokenBrokerServer& broker, const std::string& label = "", const Passport& user = Session("ses_1")) {
    const std::string query = label.empty() ? "" : absl::StrCat("account=", PercentEncode(label));
    const web::v1::WebResponse page =
        Browse(broker, "GET", absl::StrCat("/connect/gh", query.empty() ? "" : "?", query), Browser(user));
    const web::v1::WebResponse on = Browse(broker, "POST", "/connect/gh", Browser(user),
                                           absl::StrCat("csrf=", PercentEncode(Csrf(page)), "&", query));
    EXPECT_EQ(on.status(), 200) << page.body();
    return Between(on.body(), "state=", "&");
  }
  // Back with the code of `account`.
  web::v1::WebResponse Return(TokenBrokerServer& broker, const std::string& state, const std::string& account,
                              const Passport& user = Session("ses_1")) {
    return Browse(broker, "GET", absl::StrCat("/callback/github?code=", account, "&state=", state), Browser(user));
  }
  web::v1::WebResponse Link(TokenBrokerServer& broker, const std::string& account, const std::string& label = "",
                            const Passport& user = Session("ses_1")) {
    return Return(broker, Leave(broker, label, user), account, user);
  }
  web::v1::WebResponse Answer(TokenBrokerServer& broker, const std::string& page, const std::string& answer,
                              const Passport& user = Session("ses_1"), const std::string& label = "") {
    const std::string csrf = Csrf(Browse(broker, "GET", page, Browser(user)));
    return Browse(broker, "POST", "/connect/gh/confirm", Browser(user),
                  absl::StrCat("answer=", answer, "&csrf=", PercentEncode(csrf), "&account=", label));
  }
  v1::TokenSet Stored(const std::string& label = "") {
    v1::TokenSet tokens;
    tokens.ParseFromString(peers_.vault.Head(ConnectionRecord("corp:ada", ConnectionName(kApp, label))));
    return tokens;
  }
  // What goes out for a call that chooses this account; of an account that is missing its label, in brackets.
  std::string Goes(TokenBrokerServer& broker, const std::string& account = "",
                   const std::string& subject = "corp:ada") {
    v1::ResolveCredentialsRequest request;
    request.set_account(account);
    const auto response = Resolve(broker, request, peers_.authn.Sign(CallPassport(subject)));
    if (!response.ok()) return std::string(absl::StatusCodeToString(response.status().code()));
    return response->has_link() ? absl::StrCat("[", response->link().account(), "]") : response->pieces(0).value();
  }
  std::set<std::string> revoked() {
    MutexLock lock(mu_);
    return revoked_;
  }
  bool AwaitRevoked(const std::string& token) {
    for (int i = 0; i < 1'000 && revoked().count(token) == 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return revoked().count(token) > 0;
  }
  // Already, or it is owed.
  bool WillBeRevoked(const std::string& refresh_token) {
    if (revoked().count(refresh_token) > 0) return true;
    for (const auto& owed : peers_.vault.Revocations()) {
      v1::TokenSet tokens;
      if (tokens.ParseFromString(peers_.vault.Head(owed.record())) && tokens.refresh_token() == refresh_token)
        return true;
    }
    return false;
  }
  // Connections that are there, whatever their state.
  int CountConnections(const std::string& subject = "corp:ada") {
    int count = 0;
    for (const auto& name : peers_.vault.Live()) {
      count += name.owner_id() == subject && name.kind() == "connection" ? 1 : 0;
    }
    return count;
  }
  // As authn has it done for an administrator.
  void EndEverythingOf(TokenBrokerServer& broker, const std::string& subject) {
    Passport passport;
    passport.subject = "local:root";
    passport.purpose = Passport::Purpose::kEnd;
    passport.end.subject = subject;
    v1::EndConnectionsRequest request;
    request.set_subject(subject);
    request.set_whole_user(true);
    v1::EndConnectionsResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(passport));
    const grpc::Status ended =
        v1::Endings::NewStub(broker.InProcessChannel("authn"))->EndConnections(context.get(), request, &response);
    EXPECT_TRUE(ended.ok()) << ended.error_message();
    EXPECT_TRUE(response.keys_destroyed());
  }
  // While the provider makes the tokens of the next code.
  void Meanwhile(std::function<void()> what) {
    MutexLock lock(mu_);
    meanwhile_ = std::move(what);
  }
  // Tokens of it are stored as nobody's connection, and will be revoked.
  size_t Waiting() {
    size_t count = 0;
    for (const auto& name : peers_.vault.Live()) {
      count += name.kind() == "connection" && KindOf(name.name()) == ConnectionKind::kWaiting ? size_t{1} : 0;
    }
    return count;
  }

  FakeClock clock_for_all_{absl::FromUnixSeconds(1'700'000'000)};
  Mutex mu_;
  std::function<void()> meanwhile_ ABSL_GUARDED_BY(mu_);
  int user_status_ ABSL_GUARDED_BY(mu_) = 200;
  int revoke_status_ ABSL_GUARDED_BY(mu_) = 200;
  std::string domain_ ABSL_GUARDED_BY(mu_) = "example.com";
  std::set<std::string> revoked_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker::testing

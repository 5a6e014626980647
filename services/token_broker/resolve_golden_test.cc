// SPDX-License-Identifier: Apache-2.0
// What the broker answers for each kind of credential, byte for byte: it stays so, whatever becomes of the code.
#include "absl/strings/str_join.h"
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

class ResolveGoldenTest : public testing::BrokerTestBase {
 protected:
  ResolveGoldenTest() : BrokerTestBase(clock_for_all_) {}

  void SetSecret(common::v1::Secret* secret, const std::string& record, const std::string& value, int version = 1) {
    for (int i = 0; i < version; ++i) PutSecret("server_secret", record, absl::StrCat(value, i + 1));
    secret->set_set(true);
    secret->set_version(version);
    secret->set_vault_record(record);
  }
  registry::v1::McpServer* Open(const std::string& uid) {
    registry::v1::McpServer* server = AddServer(uid, uid.substr(4));
    server->mutable_agent_auth()->mutable_passthrough();
    return server;
  }
  registry::v1::McpServer* Interactive(const std::string& uid) {
    registry::v1::McpServer* server = AddServer(uid, uid.substr(4));
    server->mutable_agent_auth()->mutable_interactive();
    return server;
  }
  // A line for each piece, or for the error.
  std::vector<std::string> Answer(const std::string& uid, const std::string& subject = "") {
    v1::ResolveCredentialsRequest request;
    request.set_server_uid(uid);
    const std::string passport = subject.empty() ? "" : peers_.authn.Sign(CallPassport(subject, uid));
    const auto response = Resolve(*brokers_.back(), request, passport);
    if (!response.ok()) {
      return {absl::StrCat(absl::StatusCodeToString(response.status().code()), " ", ReasonOf(response.status()))};
    }
    std::vector<std::string> lines;
    google::protobuf::TextFormat::Printer printer;
    printer.SetSingleLineMode(true);
    for (const auto& piece : response->pieces()) printer.PrintToString(piece, &lines.emplace_back());
    if (response->has_link()) printer.PrintToString(response->link(), &lines.emplace_back());
    return lines;
  }

  FakeClock clock_for_all_{absl::FromUnixSeconds(1'700'000'000)};
};

TEST_F(ResolveGoldenTest, StoredSecretsOfTheOrganization) {
  auto* header = Open("srv_header")->mutable_app_auth()->mutable_api_key();
  header->set_name("X-API-Key");
  header->set_prefix("Token ");
  SetSecret(header->mutable_value(), "srv_header/app_auth.api_key.value", "key", 2);
  auto* query = Open("srv_query")->mutable_app_auth()->mutable_api_key();
  query->set_name("key");
  query->set_location(registry::v1::QUERY);
  SetSecret(query->mutable_value(), "srv_query/app_auth.api_key.value", "k&=y");
  SetSecret(Open("srv_bearer")->mutable_app_auth()->mutable_bearer()->mutable_token(),
            "srv_bearer/app_auth.bearer.token", "tok");
  auto* basic = Open("srv_basic")->mutable_app_auth()->mutable_basic();
  basic->set_username("Aladdin");
  SetSecret(basic->mutable_password(), "srv_basic/app_auth.basic.password", "sesame");
  StartBroker();

  EXPECT_THAT(Answer("srv_header"),
              ::testing::ElementsAre(R"(piece: "app_auth" scope: ORG location: HEADER name: "X-API-Key" )"
                                     R"(value: "Token key2" uid: "srv_header" version: 2 )"));
  EXPECT_THAT(Answer("srv_query"), ::testing::ElementsAre(R"(piece: "app_auth" scope: ORG location: QUERY name: "key" )"
                                                          R"(value: "k&=y1" uid: "srv_query" version: 1 )"));
  EXPECT_THAT(Answer("srv_bearer"),
              ::testing::ElementsAre(R"(piece: "app_auth" scope: ORG location: HEADER name: "Authorization" )"
                                     R"(value: "Bearer tok1" uid: "srv_bearer" version: 1 )"));
  EXPECT_THAT(Answer("srv_basic"),
              ::testing::ElementsAre(R"(piece: "app_auth" scope: ORG location: HEADER name: "Authorization" )"
                                     R"(value: "Basic QWxhZGRpbjpzZXNhbWUx" uid: "srv_basic" version: 1 )"));
}

TEST_F(ResolveGoldenTest, LiteralsBesideAppAuthentication) {
  registry::v1::McpServer* server = Open("srv_many");
  SetSecret(server->mutable_app_auth()->mutable_bearer()->mutable_token(), "srv_many/app_auth.bearer.token", "tok");
  auto* plain = server->add_outbound_headers();
  plain->set_name("X-Team");
  plain->set_prefix("team ");
  plain->mutable_literal()->set_value("red");
  auto* secret = server->add_outbound_headers();
  secret->set_name("X-Second-Key");
  secret->set_prefix("k=");
  SetSecret(secret->mutable_literal()->mutable_secret_value(),
            "srv_many/outbound_headers.x-second-key.literal.secret_value", "key");
  StartBroker();

  EXPECT_THAT(Answer("srv_many"),
              ::testing::ElementsAre(
                  R"(piece: "app_auth" scope: ORG location: HEADER name: "Authorization" )"
                  R"(value: "Bearer tok1" uid: "srv_many" version: 1 )",
                  R"(piece: "outbound_headers[x-team]" scope: ORG location: HEADER name: "X-Team" )"
                  R"(value: "team red" uid: "srv_many" )",
                  R"(piece: "outbound_headers[x-second-key]" scope: ORG location: HEADER name: "X-Second-Key" )"
                  R"(value: "k=key1" uid: "srv_many" version: 1 )"));
}

TEST_F(ResolveGoldenTest, AccountsAndSignInsOfTheCaller) {
  registry::v1::McpServer* signed_in = Interactive("srv_forward");
  signed_in->mutable_app_auth()->mutable_passthrough();
  auto* forward = signed_in->add_outbound_headers();
  forward->set_name("X-Token");
  forward->set_prefix("Bearer ");
  forward->mutable_forward_caller_token();
  PutConnection("corp:ada", kApp, absl::Minutes(10), absl::Hours(1));
  PutConnection("corp:ada", "sso:corp", absl::Minutes(10), absl::Hours(1));
  StartBroker();

  EXPECT_THAT(Answer(kServer, "corp:ada"),
              ::testing::ElementsAre(R"(piece: "app_auth" scope: USER location: HEADER name: "Authorization" )"
                                     R"(value: "Bearer at0-of-corp:ada" uid: "app_gh" generation: 1 version: 1 )"
                                     R"(connection: "app_gh" expires_at { seconds: 1700002970 } )"
                                     R"(renew_at { seconds: 1700002655 nanos: 846000000 } renewable: true )"));
  EXPECT_THAT(Answer(kServer, "corp:bob"),
              ::testing::ElementsAre(R"(app_uid: "app_gh" app_slug: "github" app_display_name: "GitHub" )"
                                     R"(reason: NOT_LINKED )"));
  EXPECT_THAT(
      Answer("srv_forward", "corp:ada"),
      ::testing::ElementsAre(R"(piece: "outbound_headers[x-token]" scope: TOKEN location: HEADER name: "X-Token" )"
                             R"(value: "Bearer at0-of-corp:ada" uid: "sso:corp" generation: 1 version: 1 )"
                             R"(connection: "sso:corp" expires_at { seconds: 1700002970 } )"
                             R"(renew_at { seconds: 1700002644 nanos: 26000000 } renewable: true )"));
}

TEST_F(ResolveGoldenTest, WhatTheEdgeRendersItselfIsNoneOfTheBrokers) {
  registry::v1::McpServer* server = Interactive("srv_edge");
  server->mutable_app_auth()->mutable_passthrough();
  auto* claim = server->add_outbound_headers();
  claim->set_name("X-User");
  claim->mutable_caller_identity()->set_claim("sub");
  registry::v1::McpServer* open = Open("srv_open");
  open->mutable_app_auth()->mutable_passthrough();
  auto* token = open->add_outbound_headers();
  token->set_name("X-Token");
  token->mutable_forward_caller_token();
  StartBroker();

  EXPECT_THAT(Answer("srv_edge", "corp:ada"), ::testing::IsEmpty());
  EXPECT_THAT(Answer("srv_open"), ::testing::IsEmpty());
}

TEST_F(ResolveGoldenTest, WhatIsMissingIsSaidAndNothingComesInItsPlace) {
  Open("srv_none");
  auto* unset = Open("srv_unset")->mutable_app_auth()->mutable_bearer()->mutable_token();
  unset->set_set(false);
  auto* lost = Open("srv_lost")->mutable_app_auth()->mutable_bearer()->mutable_token();
  lost->set_set(true);
  lost->set_version(3);
  lost->set_vault_record("srv_lost/app_auth.bearer.token");
  StartBroker();

  EXPECT_THAT(Answer("srv_none"), ::testing::ElementsAre("FAILED_PRECONDITION credential_missing"));
  EXPECT_THAT(Answer("srv_unset"), ::testing::ElementsAre("FAILED_PRECONDITION credential_missing"));
  EXPECT_THAT(Answer("srv_lost"), ::testing::ElementsAre("FAILED_PRECONDITION credential_missing"));
  EXPECT_THAT(Answer(kServer), ::testing::ElementsAre("UNAUTHENTICATED "));
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
// Listing and ending connections.
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "services/token_broker/testing/background_test_base.h"

namespace sallyport::token_broker {
namespace {

using ::testing::ElementsAre;

class AccountsTest : public testing::RevokingTestBase {
 protected:
  std::string ApiPassport(const std::string& subject = "corp:ada") {
    Passport passport = CallPassport(subject);
    passport.purpose = Passport::Purpose::kApi;
    return peers_.authn.Sign(passport);
  }
  absl::StatusOr<std::string> Disconnect(TokenBrokerServer& broker, const std::string& app = "github") {
    const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
    v1::DisconnectRequest request;
    request.set_app_slug(app);
    v1::DisconnectResponse response;
    const auto context = MakeClientContext(absl::Seconds(20), ApiPassport());
    const grpc::Status status = stub->Disconnect(context.get(), request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response.revocation();
  }
  v1::ListConnectionsResponse List(TokenBrokerServer& broker, const std::string& subject = "corp:ada") {
    const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
    v1::ListConnectionsResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), ApiPassport(subject));
    EXPECT_TRUE(stub->ListConnections(context.get(), {}, &response).ok());
    return response;
  }
};

TEST_F(AccountsTest, ListShowsOnesOwnAppsAndNoSignIns) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1));
  PutConnection("corp:ada", "app_gone", absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();

  const v1::ListConnectionsResponse response = List(broker);

  std::map<std::string, v1::Connection> connections;
  for (const v1::Connection& connection : response.connections()) connections[connection.app_slug()] = connection;
  ASSERT_EQ(connections.size(), 2U);
  const v1::Connection& github = connections["github"];
  EXPECT_EQ(github.state(), "linked");
  EXPECT_THAT(github.scopes(), ElementsAre("repo"));
  EXPECT_GT(github.access_token_expires_at().seconds(), absl::ToUnixSeconds(clock_.Now()));
  EXPECT_EQ(connections.count("app_gone"), 1U) << "so that its user can still end it";
  EXPECT_EQ(List(broker, "corp:bob").connections_size(), 0);
}

TEST_F(AccountsTest, DisconnectRevokesTheRefreshTokenFirstAndForgets) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());
  ASSERT_TRUE(Resolve(broker, {}, passport).ok());

  ASSERT_OK_AND_ASSIGN(const std::string revocation, Disconnect(broker));
  ASSERT_OK_AND_ASSIGN(const auto after, Resolve(broker, {}, passport));

  EXPECT_EQ(revocation, "revoked");
  EXPECT_THAT(asked(), ElementsAre("/revoke rt0", "/revoke at0-of-corp:ada"));
  EXPECT_EQ(after.link().reason(), v1::LinkRequired::NOT_LINKED);
  EXPECT_EQ(List(broker).connections_size(), 0);
  EXPECT_GT(peers_.registry.invalidations().at(0).generation(), 1);
  EXPECT_EQ(Disconnect(broker).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AccountsTest, DisconnectWithoutARevocationEndpointSaysSo) {
  app_->clear_revocation_url();
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));

  ASSERT_OK_AND_ASSIGN(const std::string revocation, Disconnect(StartBroker()));

  EXPECT_EQ(revocation, "unsupported");
  EXPECT_EQ(peers_.vault.Head(ConnectionRecord("corp:ada", kApp)), "");
}

TEST_F(AccountsTest, ProviderThatIsDownLeavesTheRevocationPendingAndTheConnectionDead) {
  Answer(503);
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();

  ASSERT_OK_AND_ASSIGN(const std::string revocation, Disconnect(broker));
  ASSERT_OK_AND_ASSIGN(const auto after, Resolve(broker, {}, peers_.authn.Sign(CallPassport())));

  EXPECT_EQ(revocation, "pending");
  EXPECT_EQ(after.link().reason(), v1::LinkRequired::NOT_LINKED);
  const v1::ListConnectionsResponse listed = List(broker);
  ASSERT_EQ(listed.connections_size(), 1);
  EXPECT_EQ(listed.connections(0).app_slug(), "github");
  EXPECT_EQ(listed.connections(0).state(), "revoke_pending");
  EXPECT_THAT(listed.connections(0).scopes(), ElementsAre("repo"));
  EXPECT_EQ(FromTimestamp(listed.connections(0).revoke_since()), FromTimestamp(ToTimestamp(clock_.Now())));
  EXPECT_EQ(List(broker, "corp:bob").connections_size(), 0) << "what somebody owes is nobody else's to see";
}

// The provider was away when the first account was ended, and knows its token still.
TEST_F(AccountsTest, LinkingAnewOverAnOwedRevocationKeepsItOwed) {
  Answer(503);
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1), "rt-old");
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const std::string first, Disconnect(broker));

  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1), "rt-new");
  const v1::ListConnectionsResponse between = List(broker);
  ASSERT_OK_AND_ASSIGN(const auto served, Resolve(broker, {}, peers_.authn.Sign(CallPassport())));
  clock_for_all_.Advance(absl::Minutes(2));
  Answer(200);
  ASSERT_OK_AND_ASSIGN(const std::string second, Disconnect(broker));

  EXPECT_EQ(first, "pending");
  ASSERT_EQ(between.connections_size(), 2);
  EXPECT_EQ(between.connections(0).state(), "linked");
  EXPECT_EQ(between.connections(1).state(), "revoke_pending");
  EXPECT_EQ(served.pieces_size(), 1) << "the new link is not touched by what is owed of the old one";
  EXPECT_EQ(second, "revoked");
  EXPECT_THAT(asked(), ::testing::IsSupersetOf({"/revoke rt-old", "/revoke rt-new"}));
  EXPECT_EQ(List(broker).connections_size(), 0);
}

TEST_F(AccountsTest, WhatIsOnlyOwedIsPendingUntilItIsDone) {
  Answer(503);
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const std::string first, Disconnect(broker));

  ASSERT_OK_AND_ASSIGN(const std::string again, Disconnect(broker));

  EXPECT_EQ(first, "pending");
  EXPECT_EQ(again, "pending");
  EXPECT_EQ(Owed().size(), 1U);
}

TEST_F(AccountsTest, ListSaysWhenAnAccountWasUsedLast) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(72));
  TokenBrokerServer& broker = StartBroker();
  const absl::Time linked_at = clock_.Now();
  clock_for_all_.Advance(absl::Hours(48));
  const v1::ListConnectionsResponse before = List(broker);
  ASSERT_TRUE(Resolve(broker, {}, peers_.authn.Sign(CallPassport())).ok());
  const v1::ListConnectionsResponse after = List(broker);

  EXPECT_EQ(FromTimestamp(before.connections(0).last_used_at()), FromTimestamp(ToTimestamp(linked_at)));
  EXPECT_EQ(FromTimestamp(after.connections(0).last_used_at()), FromTimestamp(ToTimestamp(clock_.Now())));
}

TEST_F(AccountsTest, ConnectionOfAnAppThatIsGoneCanBeEnded) {
  PutConnection("corp:ada", "app_gone", absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();

  ASSERT_OK_AND_ASSIGN(const std::string revocation, Disconnect(broker, "app_gone"));

  EXPECT_EQ(revocation, "pending");
  EXPECT_EQ(List(broker).connections(0).state(), "revoke_pending");
  EXPECT_EQ(Disconnect(broker, "app_never").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AccountsTest, UnknownAppIsNotFound) {
  EXPECT_EQ(Disconnect(StartBroker(), "none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AccountsTest, ResolveWithoutUserIsNoWayToListOrDisconnect) {
  TokenBrokerServer& broker = StartBroker();
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  v1::ListConnectionsResponse response;
  const auto context = MakeClientContext(absl::Minutes(1));
  EXPECT_EQ(stub->ListConnections(context.get(), {}, &response).error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

}  // namespace
}  // namespace sallyport::token_broker

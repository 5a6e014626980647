// SPDX-License-Identifier: Apache-2.0
// Links in flight while everything of their user ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/token_broker/testing/linked_accounts_test_base.h"

namespace sallyport::token_broker {
namespace {

class LinksInFlightTest : public testing::LinkedAccountsTestBase {};

TEST_F(LinksInFlightTest, ALinkInFlightDoesNotOutliveTheEndOfItsUser) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  const std::string state = Leave(broker);
  Meanwhile([&] { EndEverythingOf(broker, "corp:ada"); });

  EXPECT_EQ(Return(broker, state, "hubot").status(), 403);

  EXPECT_EQ(CountConnections(), 0);
  EXPECT_TRUE(WillBeRevoked("rt-octocat"));
  EXPECT_TRUE(WillBeRevoked("rt-hubot"));
  EXPECT_TRUE(peers_.audit.Await("link.disconnected", "user_ended"));
  clock_for_all_.Advance(absl::Seconds(1));
  EXPECT_EQ(Link(broker, "hubot").status(), 302) << "who may sign in again may link again";
}

TEST_F(LinksInFlightTest, AnotherReplicaHearsOfTheEndByTheControlStream) {
  TokenBrokerServer& broker = StartBroker();
  const std::string state = Leave(broker);
  Meanwhile([&] {
    peers_.registry.EndSubject("corp:ada", clock_.Now());
    AwaitHeard(broker);
  });

  EXPECT_EQ(Return(broker, state, "octocat").status(), 403);

  EXPECT_EQ(CountConnections(), 0);
  EXPECT_TRUE(WillBeRevoked("rt-octocat"));
}

TEST_F(LinksInFlightTest, AReplicaThatHasNotHeardOfTheEndStoresNothing) {
  TokenBrokerServer& broker = StartBroker();
  const std::string state = Leave(broker);
  Meanwhile([&] {
    Passport passport;
    passport.subject = "local:root";
    passport.purpose = Passport::Purpose::kEnd;
    passport.end.subject = "corp:ada";
    vault::v1::DeleteOwnerRequest erase;
    erase.set_owner_type(vault::v1::USER);
    erase.set_owner_id("corp:ada");
    EXPECT_TRUE(peers_.vault.DeleteOwner(erase, peers_.authn.Sign(passport)).ok());
  });

  EXPECT_EQ(Return(broker, state, "octocat").status(), 403);

  EXPECT_EQ(CountConnections(), 0);
  EXPECT_TRUE(AwaitRevoked("rt-octocat"));
  EXPECT_TRUE(peers_.audit.Await("link.disconnected", "user_ended"));
  clock_for_all_.Advance(absl::Seconds(1));
  EXPECT_EQ(Link(broker, "octocat").status(), 302) << "who may sign in again may link again";
}

TEST_F(LinksInFlightTest, AUserOfWhomSomethingElseChangesKeepsTheirLinkInFlight) {
  TokenBrokerServer& broker = StartBroker();
  const std::string state = Leave(broker);
  Meanwhile([&] {
    peers_.registry.Invalidate(registry::v1::Invalidation::SUBJECT, "corp:ada");
    peers_.registry.EndSubject("corp:bob", clock_.Now());
    AwaitHeard(broker);
  });
  EXPECT_EQ(Return(broker, state, "octocat").status(), 302);
}

}  // namespace
}  // namespace sallyport::token_broker

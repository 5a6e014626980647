// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/service_account.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/authn/platforms/platforms_testing.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn::platforms {
namespace {

using ::sallyport::testing::IsOk;

TEST(ServiceAccountTest, IsWrittenInOneWay) {
  const auto account = ParseServiceAccount("main:chat/bot.v2", "");
  ASSERT_TRUE(account.has_value());
  EXPECT_EQ(*account, (ServiceAccount{"main", "chat", "bot.v2"}));
  EXPECT_EQ(account->ToString(), "main:chat/bot.v2");
  EXPECT_EQ(ParseServiceAccount("chat/bot", "main"), ParseServiceAccount("main:chat/bot", "other"));
}

TEST(ServiceAccountTest, NamesThatCouldBeReadInTwoWaysAreNone) {
  for (const char* text : {"",
                           "chat/bot",
                           "main:",
                           "main:chat",
                           "main:chat/",
                           "main:/bot",
                           ":chat/bot",
                           "main:a:b/c",
                           "a:main:chat/bot",
                           "main:chat/bot/x",
                           "main:chat//bot",
                           "main:Chat/bot",
                           "main:chat/Bot",
                           "main:chat/bot ",
                           "main:-chat/bot",
                           "main:chat/bot-",
                           "main:chat/.bot",
                           "main:chat/a..b",
                           "main:ch.at/bot",
                           "main:*/bot",
                           "main:chat/*",
                           "Main:chat/bot",
                           "main:chat/b%6ft",
                           "main:chat/b\xc3\xb6t"}) {
    EXPECT_FALSE(ParseServiceAccount(text, "").has_value()) << text;
  }
  EXPECT_FALSE(ParseServiceAccount(absl::StrCat("main:", std::string(64, 'a'), "/bot"), "").has_value());
  EXPECT_FALSE(ParseServiceAccount(std::string("main:chat/bot\0x", 15), "").has_value());
}

TEST(ServiceAccountTest, OnlyAUserNameOfAServiceAccountIsOne) {
  EXPECT_EQ(ServiceAccountOfUsername("main", "system:serviceaccount:chat:bot"),
            ParseServiceAccount("main:chat/bot", ""));
  for (const char* name :
       {"", "bot", "chat:bot", "system:serviceaccount:chat",
        "system:serviceaccount:chat:", "system:serviceaccount::bot", "system:serviceaccount:chat:bot:x",
        "system:serviceaccount:a:b/c", "system:serviceaccount:a/b:c", "system:node:chat:bot",
        "System:serviceaccount:chat:bot", " system:serviceaccount:chat:bot", "system:serviceaccounts:chat:bot"}) {
    EXPECT_FALSE(ServiceAccountOfUsername("main", name).has_value()) << name;
  }
}

TEST(ServiceAccountTest, TheClaimOfKubernetesMustAgreeWithTheSubject) {
  const TestCluster cluster;
  const absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  const auto read = [&](const nlohmann::json& claim) {
    const std::string token = cluster.Token(now, {{"kubernetes.io", claim}});
    return ServiceAccountOfClaims("main", *Jwt::FromJws(*ParseJws(token)));
  };
  EXPECT_THAT(read(nullptr), IsOk()) << "it may be absent";
  EXPECT_THAT(read({{"namespace", "chat"}, {"serviceaccount", {{"name", "bot"}}}}), IsOk());
  for (const nlohmann::json& claim :
       std::vector<nlohmann::json>{{{"namespace", "chat"}, {"serviceaccount", {{"name", "other"}}}},
                                   {{"namespace", "other"}, {"serviceaccount", {{"name", "bot"}}}},
                                   {{"namespace", "chat"}},
                                   {{"namespace", "chat"}, {"serviceaccount", "bot"}},
                                   {{"serviceaccount", {{"name", "bot"}}}},
                                   nlohmann::json::object(),
                                   "chat/bot",
                                   nlohmann::json::array({"chat", "bot"})}) {
    EXPECT_EQ(ReasonOf(read(claim).status()), "bad_subject") << DumpJson(claim);
  }
}

}  // namespace
}  // namespace sallyport::authn::platforms

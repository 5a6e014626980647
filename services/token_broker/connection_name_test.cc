// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/connection_name.h"

#include <gtest/gtest.h>

#include "services/token_broker/connection.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;

TEST(ConnectionName, HoldsAppAndLabel) {
  EXPECT_EQ(ConnectionName("app_1", ""), "app_1");
  EXPECT_EQ(ConnectionName("app_1", "work"), "app_1/work");
  for (const auto& [name, app, label] : {std::tuple("app_1", "app_1", ""), std::tuple("app_1/work", "app_1", "work"),
                                         std::tuple("sso:corp", "sso:corp", "")}) {
    EXPECT_EQ(AppUidOf(name), app);
    EXPECT_EQ(AccountLabelOf(name), label);
  }
}

TEST(ConnectionName, WhatWaitsIsNamedAsNoLabelCanBe) {
  for (const char* label : {"", "work"}) {
    const std::string name = WaitingName("app_1", label);
    EXPECT_EQ(KindOf(name), ConnectionKind::kWaiting) << name;
    EXPECT_EQ(AppUidOf(name), "app_1");
    EXPECT_THAT(CheckAccountLabel("label", AccountLabelOf(name)), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_NE(WaitingName("app_1", ""), WaitingName("app_1", "work"));
}

TEST(ConnectionName, TellsItsKind) {
  for (const char* name : {"app_1", "app_1/work", "app_1/sso:corp", "app_sso:"}) {
    EXPECT_EQ(KindOf(name), ConnectionKind::kAccount) << name;
  }
  EXPECT_EQ(KindOf("sso:corp"), ConnectionKind::kSignIn);
  EXPECT_EQ(SignInName("corp"), "sso:corp");
  EXPECT_EQ(ConnectorIn("sso:corp"), "corp");
  EXPECT_EQ(ConnectorIn("sso:sso:"), "sso:");
}

TEST(ConnectionName, LabelIsEmptyOrOne) {
  EXPECT_THAT(CheckAccountLabel("label", ""), IsOk());
  EXPECT_THAT(CheckAccountLabel("label", std::string(64, 'x')), IsOk());
  for (const std::string& label : {std::string(65, 'x'), std::string("a/b"), std::string("a\nb"), std::string("*")}) {
    EXPECT_THAT(CheckAccountLabel("label", label), StatusIs(absl::StatusCode::kInvalidArgument)) << label;
  }
}

TEST(ConnectionKey, TellsAccountsApartInInvalidations) {
  EXPECT_EQ((ConnectionKey{"corp:ada", "app_1"}.ToString()), "corp:ada\napp_1\n");
  EXPECT_EQ((ConnectionKey{"corp:ada", "app_1/work"}.ToString()), "corp:ada\napp_1\nwork");
  EXPECT_EQ((ConnectionKey{"corp:ada", "sso:corp"}.ToString()), "corp:ada\nsso:corp\n");
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "common/oauth/protocol_scopes.h"

#include <gtest/gtest.h>

namespace sallyport::oauth {
namespace {

TEST(ProtocolScopesTest, WhatProvidersDoNotNameIsOneAndWhatTheyGrantIsNot) {
  for (const char* scope : {"openid", "offline_access", "refresh_token"}) EXPECT_TRUE(IsProtocolScope(scope)) << scope;
  for (const char* scope : {"repo", "openid2", "OPENID", ""}) EXPECT_FALSE(IsProtocolScope(scope)) << scope;
}

}  // namespace
}  // namespace sallyport::oauth

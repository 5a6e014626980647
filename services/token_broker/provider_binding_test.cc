// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/provider_binding.h"

#include <gtest/gtest.h>

namespace sallyport::token_broker {
namespace {

Provider At(const std::string& token_url, const std::string& revocation_url) {
  Provider provider;
  provider.connection = "app_1";
  provider.token_url = token_url;
  provider.revocation_url = revocation_url;
  return provider;
}

// As the label says, in a connection of an earlier release.
Provenance Label(const std::string& value) {
  Labels labels;
  labels[kBoundTo] = value;
  return ProvenanceOf(labels);
}

TEST(ProviderBindingTest, LabelHoldsBothOrigins) {
  EXPECT_EQ(BoundTo(At("https://a.example/token?x=1", "https://b.example:444/revoke")),
            "https://a.example https://b.example:444");
  EXPECT_EQ(BoundTo(At("https://a.example/token", "")), "https://a.example ");
}

TEST(ProviderBindingTest, WhereTokensAreRevokedDoesNotMatterForRefreshing) {
  for (const char* label : {"https://a.example https://b.example", "https://a.example ", "https://a.example"}) {
    for (const char* revocation : {"", "https://b.example/revoke", "https://c.example/revoke"}) {
      EXPECT_TRUE(MayRefreshAt(Label(label), At("https://a.example/other", revocation))) << label << revocation;
    }
  }
}

TEST(ProviderBindingTest, RefreshTokenGoesToTheOriginItCameFromOnly) {
  const Provenance labels = Label("https://a.example https://b.example");
  for (const char* url : {"https://b.example/token", "https://a.example:444/token", "http://a.example/token",
                          "https://a.example.evil.example/token", "", "no url"}) {
    EXPECT_FALSE(MayRefreshAt(labels, At(url, "https://b.example/revoke"))) << url;
  }
  EXPECT_FALSE(MayRefreshAt(Label(" "), At("", "")));
  EXPECT_FALSE(MayRefreshAt(Label(""), At("no url", "")));
}

TEST(ProviderBindingTest, TokenIsRevokedAtItsOriginsOnly) {
  const Provenance labels = Label("https://a.example https://b.example");
  EXPECT_TRUE(MayRevokeAt(labels, At("https://a.example/token", "https://b.example/revoke")));
  EXPECT_TRUE(MayRevokeAt(labels, At("https://a.example/token", "https://a.example/revoke"))) << "it has seen it";
  EXPECT_TRUE(MayRevokeAt(Label("https://a.example "), At("https://a.example/token", "https://a.example/revoke")))
      << "its metadata was not at hand when the connection was made";
  EXPECT_FALSE(MayRevokeAt(labels, At("https://a.example/token", "https://c.example/revoke")));
  EXPECT_FALSE(MayRevokeAt(Label("https://a.example "), At("https://a.example/token", "https://c.example/revoke")));
  EXPECT_FALSE(MayRevokeAt(labels, At("https://a.example/token", "")));
  EXPECT_FALSE(MayRevokeAt(Label("https://a.example "), At("https://a.example/token", "")));
}

TEST(ProviderBindingTest, WhatIsSealedCountsAndNotTheLabel) {
  v1::TokenSet tokens;
  *tokens.mutable_provenance() = MadeAt(At("https://a.example/token", "https://b.example/revoke"), "name");
  Labels labels;
  labels[kBoundTo] = "https://evil.example https://evil.example";
  const Provenance provenance = ProvenanceOf(tokens, labels);
  EXPECT_TRUE(MayRefreshAt(provenance, At("https://a.example/token", "")));
  EXPECT_TRUE(MayRevokeAt(provenance, At("https://a.example/token", "https://b.example/revoke")));
  EXPECT_FALSE(MayRefreshAt(provenance, At("https://evil.example/token", "")));
  EXPECT_FALSE(MayRevokeAt(provenance, At("https://a.example/token", "https://evil.example/revoke")));
  EXPECT_EQ(provenance.binding(), "name");
  tokens.clear_provenance();
  EXPECT_TRUE(MayRefreshAt(ProvenanceOf(tokens, labels), At("https://evil.example/token", "")));
}

TEST(ProviderBindingTest, OnlySignInsNeedNoLabel) {
  Provider provider = At("https://a.example/token", "https://a.example/revoke");
  EXPECT_FALSE(MayRefreshAt({}, provider));
  EXPECT_FALSE(MayRevokeAt({}, provider));
  provider.connection = "sso:corp";
  EXPECT_TRUE(MayRefreshAt({}, provider));
  EXPECT_TRUE(MayRevokeAt({}, provider));
}

}  // namespace
}  // namespace sallyport::token_broker

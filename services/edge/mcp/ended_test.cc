// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/ended.h"

#include <gtest/gtest.h>

#include "common/proto_time.h"
#include "services/edge/mcp/credentials.h"
#include "services/edge/mcp/principal_cache.h"

namespace sallyport::edge {
namespace {

using registry::v1::Invalidation;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

Invalidation Of(Invalidation::Kind kind, const std::string& key, absl::Time at = absl::InfinitePast()) {
  Invalidation invalidation;
  invalidation.set_kind(kind);
  invalidation.set_key(key);
  if (at != absl::InfinitePast()) *invalidation.mutable_at() = ToTimestamp(at);
  return invalidation;
}

Invalidation OfConnection(const std::string& key, int64_t generation) {
  Invalidation invalidation = Of(Invalidation::CONNECTION, key);
  invalidation.set_generation(generation);
  return invalidation;
}

class EndedTest : public ::testing::Test {
 protected:
  EndedTest() {
    ada_.revocation_key = "t1";
    ada_.session_id = "s1";
    ada_.subject = "okta:ada";
    ada_.server_uid = "srv_a";
    work_.connections = {{"app_a/work", 3}, {"app_b", 7}};
  }
  Principal ada_;
  CredentialSet work_;
};

TEST_F(EndedTest, NothingEndsNobody) {
  for (const Ended& ended : {Ended({}), Ended({Of(Invalidation::KIND_UNSPECIFIED, "okta:ada")})}) {
    EXPECT_TRUE(ended.empty());
    EXPECT_FALSE(ended.MayEndCredentials());
    EXPECT_FALSE(ended.Caller(ada_).has_value());
    EXPECT_FALSE(ended.Credentials("okta:ada", work_));
  }
}

TEST_F(EndedTest, CallersAreEndedAtTheNewestOfWhatNamesThem) {
  const Ended ended({Of(Invalidation::SESSION, "s1", kNow), Of(Invalidation::SESSION, "s1", kNow - absl::Hours(1)),
                     Of(Invalidation::SUBJECT, "okta:ada", kNow + absl::Seconds(1)),
                     Of(Invalidation::SUBJECT, "okta:bob", kNow + absl::Hours(1))});
  EXPECT_FALSE(ended.empty());
  EXPECT_EQ(ended.Caller(ada_), kNow + absl::Seconds(1));
  ada_.subject = "okta:eve";
  EXPECT_EQ(ended.Caller(ada_), kNow);
  ada_.session_id = "s2";
  EXPECT_FALSE(ended.Caller(ada_).has_value());
}

TEST_F(EndedTest, WithoutATimeItMayHaveBeenAnyTime) {
  EXPECT_EQ(Ended({Of(Invalidation::TOKEN, "t1", kNow), Of(Invalidation::TOKEN, "t1")}).Caller(ada_),
            absl::InfiniteFuture());
}

TEST_F(EndedTest, KindsAreNotTakenForEachOther) {
  for (const auto kind : {Invalidation::TOKEN, Invalidation::SESSION, Invalidation::SERVER, Invalidation::SECRET}) {
    EXPECT_FALSE(Ended({Of(kind, "okta:ada")}).Caller(ada_).has_value()) << kind;
  }
}

TEST_F(EndedTest, OfAConnectionTheNewestGenerationCounts) {
  const auto ends = [&](const std::vector<Invalidation>& invalidations, const std::string& subject = "okta:ada") {
    const Ended ended(invalidations);
    EXPECT_TRUE(ended.MayEndCredentials());
    EXPECT_FALSE(ended.Caller(ada_).has_value()) << "the caller stays";
    return ended.Credentials(subject, work_);
  };
  EXPECT_TRUE(ends({OfConnection("okta:ada\napp_a\nwork", 4), OfConnection("okta:ada\napp_a\nwork", 2)}));
  EXPECT_TRUE(ends({OfConnection("okta:ada\napp_b\n", 0)})) << "no generation: all";
  EXPECT_TRUE(ends({OfConnection("okta:ada\napp_b", 8)}));
  EXPECT_FALSE(ends({OfConnection("okta:ada\napp_a\nwork", 3), OfConnection("okta:ada\napp_b\n", 7)}));
  EXPECT_FALSE(ends({OfConnection("okta:ada\napp_a\n", 9)})) << "another account of the app";
  EXPECT_FALSE(ends({OfConnection("okta:ada\napp_a\nwork", 9)}, "okta:bob"));
}

TEST_F(EndedTest, WhatIsNotUnderstoodEndsEverybody) {
  const Ended ended({Of(Invalidation::CONNECTION, "okta:bob", kNow)});
  EXPECT_FALSE(ended.empty());
  EXPECT_EQ(ended.Caller(ada_), kNow);
}

TEST_F(EndedTest, ASecretEndsEverybodysCredentials) {
  const Ended ended({Of(Invalidation::SECRET, "srv_b/x")});
  EXPECT_FALSE(ended.empty());
  EXPECT_TRUE(ended.Credentials("okta:ada", work_));
  EXPECT_FALSE(ended.Caller(ada_).has_value());
}

}  // namespace
}  // namespace sallyport::edge

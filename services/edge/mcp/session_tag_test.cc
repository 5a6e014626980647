// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/session_tag.h"

#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

const std::string kKey(32, 'k');
const std::string kOld(32, 'o');

TEST(SessionTagger, ATagOpensForItsUserAndServerOnly) {
  const SessionTagger tagger({kKey});
  const std::string tagged = tagger.Tag("okta:ada", "srv_a", "abc.def", kCapabilityElicitationUrl);
  const auto verified = tagger.Verify("okta:ada", "srv_a", tagged);
  ASSERT_TRUE(verified);
  EXPECT_EQ(verified->upstream_id, "abc.def");
  EXPECT_EQ(verified->capabilities, kCapabilityElicitationUrl);
  EXPECT_FALSE(tagger.Verify("okta:bob", "srv_a", tagged));
  EXPECT_FALSE(tagger.Verify("okta:ada", "srv_b", tagged));
  EXPECT_FALSE(tagger.Verify("", "srv_a", tagged));
}

TEST(SessionTagger, NoByteOfATaggedIdCanBeChanged) {
  const SessionTagger tagger({kKey});
  const std::string tagged = tagger.Tag("okta:ada", "srv_a", "session-1", 0);
  for (size_t i = 0; i < tagged.size(); ++i) {
    for (const char c : {'A', 'z', '0', '-', '.'}) {
      if (tagged[i] == c) continue;
      std::string changed = tagged;
      changed[i] = c;
      EXPECT_FALSE(tagger.Verify("okta:ada", "srv_a", changed)) << i << c;
    }
  }
  for (size_t size = 0; size < tagged.size(); ++size) {
    EXPECT_FALSE(tagger.Verify("okta:ada", "srv_a", std::string_view(tagged).substr(0, size)));
  }
  EXPECT_FALSE(tagger.Verify("okta:ada", "srv_a", tagged + "A"));
}

TEST(SessionTagger, FieldsCannotBeShiftedIntoEachOther) {
  const SessionTagger tagger({kKey});
  const std::string tagged = tagger.Tag("okta:ada", "srv_a", "x", 0);
  const std::string tag = tagged.substr(1);
  EXPECT_FALSE(tagger.Verify("okta:adasrv_a", "", "x" + tag));
  EXPECT_FALSE(tagger.Verify("okta:ad", "asrv_a", "x" + tag));
  EXPECT_FALSE(tagger.Verify("okta:ada", "srv_", "ax" + tag));
}

TEST(SessionTagger, ATagOpensForItsAccountOnly) {
  const SessionTagger tagger({kKey});
  const std::string standard = tagger.Tag("okta:ada", "srv_a", "x", 0);
  const std::string work = tagger.Tag("okta:ada", "srv_a", "x", 0, "work");
  EXPECT_TRUE(tagger.Verify("okta:ada", "srv_a", standard));
  EXPECT_TRUE(tagger.Verify("okta:ada", "srv_a", work, "work"));
  EXPECT_FALSE(tagger.Verify("okta:ada", "srv_a", standard, "work"));
  EXPECT_FALSE(tagger.Verify("okta:ada", "srv_a", work));
  EXPECT_FALSE(tagger.Verify("okta:ada", "srv_a", work, "home"));
}

TEST(SessionTagger, AnUntaggedOrForeignIdIsNotOurs) {
  const SessionTagger tagger({kKey});
  for (const char* id : {"", ".", "abc", "abc.def", "0123456789abcdef0123456789abcdef", "........................"}) {
    EXPECT_FALSE(tagger.Verify("okta:ada", "srv_a", id)) << id;
  }
  EXPECT_FALSE(tagger.Verify("okta:ada", "srv_a", SessionTagger({kOld}).Tag("okta:ada", "srv_a", "x", 0)));
}

TEST(SessionTagger, ThePreviousKeyIsAcceptedAndTheFirstSigns) {
  const std::string old_tag = SessionTagger({kOld}).Tag("okta:ada", "srv_a", "x", 1);
  const SessionTagger rotated({kKey, kOld});
  ASSERT_TRUE(rotated.Verify("okta:ada", "srv_a", old_tag));
  EXPECT_EQ(rotated.Tag("okta:ada", "srv_a", "x", 1), SessionTagger({kKey}).Tag("okta:ada", "srv_a", "x", 1));
}

}  // namespace
}  // namespace sallyport::edge

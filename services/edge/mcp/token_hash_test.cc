// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/token_hash.h"

#include <set>
#include <string>
#include <thread>

#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

TEST(TokenHash, IsTheSameForOneTokenOnEveryThread) {
  TokenHash here;
  const TokenHash::Value value = here.Of("token");
  EXPECT_EQ(here.Of("token"), value);
  std::thread([&] {
    TokenHash there;
    EXPECT_EQ(there.Of("token"), value);
  }).join();
}

TEST(TokenHash, DiffersForEveryBitAndLength) {
  TokenHash hash;
  std::string token(1100, 'x');
  std::set<TokenHash::Value> seen = {hash.Of(token), hash.Of("")};
  for (size_t i = 0; i < token.size(); i += 7) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = token;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      EXPECT_TRUE(seen.insert(hash.Of(changed)).second) << i << " " << bit;
    }
  }
  for (size_t length = 1; length < token.size(); ++length) {
    EXPECT_TRUE(seen.insert(hash.Of(token.substr(0, length))).second) << length;
  }
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "common/text/label.h"

#include <string>

#include <gtest/gtest.h>

namespace sallyport {
namespace {

TEST(Label, HasOneToSixtyFourOfItsCharacters) {
  for (const std::string& label : {std::string("a"), std::string("Work-2"), std::string("ada@example.com"),
                                   std::string("a.b_c+d"), std::string("."), std::string(64, 'x')}) {
    EXPECT_TRUE(IsLabel(label)) << label;
  }
  for (const std::string& text :
       {std::string(), std::string(65, 'x'), std::string("a/b"), std::string("a b"), std::string("a\n"),
        std::string("a\0b", 3), std::string("\x7f"), std::string("~a"), std::string("*"), std::string("a:b"),
        std::string("a%2Fb"), std::string("M\xc3\xbcller"), std::string("\xff")}) {
    EXPECT_FALSE(IsLabel(text)) << text;
  }
}

}  // namespace
}  // namespace sallyport

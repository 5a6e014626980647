// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/query_parameters.h"

#include <string>

#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

std::string Without(std::string_view query, std::string_view name = "api_key") {
  std::string out;
  char separator = '?';
  AppendQueryWithout(query, name, separator, out);
  EXPECT_EQ(separator, out.empty() ? '?' : '&');
  return out;
}

TEST(QueryParametersTest, TheNameInAnotherLetterCaseIsRemoved) {
  EXPECT_EQ(Without("API_KEY=mine&a=1&Api_Key=mine&apI_keY"), "?a=1");
  EXPECT_EQ(Without("apikey=mine&a=1", "ApiKey"), "?a=1");
}

TEST(QueryParametersTest, TheNameBehindASemicolonIsRemoved) {
  EXPECT_EQ(Without("a=1;api_key=mine&b=2"), "?a=1&b=2");
  EXPECT_EQ(Without("api_key=mine;a=1;b=2"), "?a=1;b=2");
  EXPECT_EQ(Without("a=1;api_key=mine"), "?a=1");
}

TEST(QueryParametersTest, ThePercentEncodedNameIsRemoved) {
  EXPECT_EQ(Without("api%5Fkey=mine&%61%70%69_key=mine&%41PI%5fKEY=mine&a=1"), "?a=1");
  EXPECT_EQ(Without("a%20b=mine&a+b=mine", "a b"), "");
  EXPECT_EQ(Without("api_key%00x=mine&api_key%00=mine"), "") << "PHP reads names up to a NUL";
}

TEST(QueryParametersTest, SpellingsThatPhpTakesForTheNameAreRemoved) {
  EXPECT_EQ(Without("api.key=mine&api%2Ekey=mine&api+key=mine&api%20key=mine&api[key=mine&api%5Bkey=mine&a=1"), "?a=1");
  EXPECT_EQ(Without("+api_key=mine&%20%20api_key=mine&++api.key"), "");
  EXPECT_EQ(Without("api_key[]=mine&api_key%5B0%5D=mine&api.key[x]=mine"), "");
  EXPECT_EQ(Without("api_key=mine&api.key=mine", "api.key"), "");
  EXPECT_EQ(Without("key=mine&+key=mine", " key"), "");
}

TEST(QueryParametersTest, EverythingElseStaysAsItCame) {
  for (const char* query :
       {"a=1&b=2", "a=1;b=2", "api_keys=1", "my_api_key=1", "api_ke=1", "apikey=1", "api-key=1", "api[key]=1",
        "a=api_key", "a=1&&b", "%61=%41&+=+", "%zz=1&%4", "=api_key", "api%255Fkey=1", "api_key%3D=1"}) {
    EXPECT_EQ(Without(query), std::string("?") + query);
  }
  EXPECT_EQ(Without(""), "");
  EXPECT_EQ(Without("a=1&"), "?a=1");
}

}  // namespace
}  // namespace sallyport::edge

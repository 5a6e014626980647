// SPDX-License-Identifier: Apache-2.0
#include "services/authn/caller_claims.h"

#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/authn_testing.h"

namespace sallyport::authn {
namespace {

using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

class CallerClaimsTest : public ::testing::Test {
 protected:
  CallerClaimsTest() {
    ann_.subject = "corp:ann";
    ann_.email = "ann@example.com";
    ann_.name = "Ann \u00dcber";
    ann_.groups = {"engineering", "admins"};
  }
  static std::map<std::string, std::string> Map(const google::protobuf::Map<std::string, std::string>& claims) {
    return {claims.begin(), claims.end()};
  }
  v1::Principal OfSignIn(const std::set<WantedClaim>& wanted) const {
    v1::Principal principal;
    AddCallerClaims(wanted, ann_, nullptr, "", principal);
    return principal;
  }
  v1::Principal OfToken(const nlohmann::json& claims, const std::set<WantedClaim>& wanted,
                        absl::string_view groups_claim = "") {
    const Jwt jwt = *Jwt::FromJws(*ParseJws(idp_.Token(kNow, claims), 64 << 10));
    v1::Principal principal;
    AddCallerClaims(wanted, ann_, &jwt, groups_claim, principal);
    return principal;
  }
  // Of `claim` alone; "" for none.
  v1::ClaimFault FaultOf(const nlohmann::json& value, bool json) {
    const v1::Principal principal = OfToken({{"c", value}}, {{"c", json}});
    const auto fault = principal.claim_faults().find("c");
    const bool given = principal.claims().contains("c") || principal.json_claims().contains("c");
    EXPECT_NE(given, fault != principal.claim_faults().end()) << "one or the other";
    return fault == principal.claim_faults().end() ? v1::CLAIM_FAULT_UNSPECIFIED : fault->second;
  }

  TestIssuer idp_{"https://idp.example"};
  Identity ann_;
};

TEST_F(CallerClaimsTest, GroupsThatTheProviderLeftOutAreMissingAndNotNone) {
  ann_.groups.clear();
  EXPECT_EQ(OfSignIn({{"groups", true}}).json_claims().at("groups"), "[]");
  ann_.groups_overage = true;
  const v1::Principal principal = OfSignIn({{"groups", true}});
  EXPECT_FALSE(principal.json_claims().contains("groups"));
  EXPECT_EQ(principal.claim_faults().at("groups"), v1::CLAIM_MISSING);
}

TEST_F(CallerClaimsTest, TextIsAsItWas) {
  EXPECT_THAT(
      Map(OfSignIn({{"sub"}, {"email"}, {"email_verified"}, {"name"}, {"groups"}}).claims()),
      UnorderedElementsAre(Pair("sub", "corp:ann"), Pair("email", "ann@example.com"), Pair("email_verified", "false"),
                           Pair("name", "Ann \u00dcber"), Pair("groups", "engineering,admins")));
  EXPECT_THAT(Map(OfToken({{"dept", {"a", 7, true}}, {"level", 3}}, {{"sub"}, {"dept"}, {"level"}}).claims()),
              UnorderedElementsAre(Pair("sub", "corp:ann"), Pair("dept", "a,7,true"), Pair("level", "3")));
}

TEST_F(CallerClaimsTest, JsonIsTheClaimsValueInAscii) {
  const v1::Principal principal = OfSignIn({{"sub", true}, {"email_verified", true}, {"name", true}, {"groups", true}});
  EXPECT_THAT(principal.claims(), IsEmpty());
  EXPECT_THAT(Map(principal.json_claims()),
              UnorderedElementsAre(Pair("sub", R"("corp:ann")"), Pair("email_verified", "false"),
                                   Pair("name", R"("Ann \u00dcber")"), Pair("groups", R"(["engineering","admins"])")));
  EXPECT_THAT(Map(OfToken({{"tenant", {{"id", 1.5}}}}, {{"tenant", true}}).json_claims()),
              UnorderedElementsAre(Pair("tenant", R"({"id":1.5})")));
  EXPECT_THAT(Map(OfToken({{"note", "a\r\nX-Evil: 1"}}, {{"note", true}}).json_claims()),
              UnorderedElementsAre(Pair("note", R"("a\r\nX-Evil: 1")")));
}

// Somebody may name a group: "x,platform-team" would make its members members of platform-team.
TEST_F(CallerClaimsTest, AGroupWithACommaNeverReadsAsTwo) {
  ann_.groups = {"x,platform-team", "staff"};
  EXPECT_EQ(OfSignIn({{"groups"}}).claim_faults().at("groups"), v1::CLAIM_AMBIGUOUS);
  EXPECT_THAT(OfSignIn({{"groups"}}).claims(), IsEmpty());
  EXPECT_EQ(OfSignIn({{"groups", true}}).json_claims().at("groups"), R"(["x,platform-team","staff"])");

  EXPECT_EQ(FaultOf({"a,b"}, false), v1::CLAIM_AMBIGUOUS);
  EXPECT_EQ(FaultOf("Doe, John", false), v1::CLAIM_FAULT_UNSPECIFIED) << "a name is no list";
  // An issuer that sends the only group alone.
  for (const char* claim : {"groups", "roles"}) {
    const nlohmann::json claims = {{claim, "x,platform-team"}};
    EXPECT_EQ(OfToken(claims, {{claim}}, "roles").claim_faults().at(claim), v1::CLAIM_AMBIGUOUS);
    EXPECT_EQ(OfToken(claims, {{claim, true}}, "roles").json_claims().at(claim), R"(["x,platform-team"])");
  }
}

TEST_F(CallerClaimsTest, WhatIsNotThereIsMissing) {
  for (const bool json : {false, true}) {
    EXPECT_EQ(OfToken({}, {{"c", json}}).claim_faults().at("c"), v1::CLAIM_MISSING);
    EXPECT_EQ(OfSignIn({{"c", json}}).claim_faults().at("c"), v1::CLAIM_MISSING);
  }
  EXPECT_EQ(FaultOf("", false), v1::CLAIM_MISSING);
  EXPECT_EQ(FaultOf(nlohmann::json::array(), false), v1::CLAIM_MISSING);
  EXPECT_EQ(FaultOf({{"a", 1}}, false), v1::CLAIM_MISSING) << "objects have no text";
  EXPECT_EQ(FaultOf(1.5, false), v1::CLAIM_MISSING);
  EXPECT_EQ(FaultOf(nlohmann::json::array(), true), v1::CLAIM_FAULT_UNSPECIFIED) << "an empty list is a value";
  ann_.email = "";
  EXPECT_EQ(OfSignIn({{"email"}}).claim_faults().at("email"), v1::CLAIM_MISSING);
}

TEST_F(CallerClaimsTest, TwoHundredAndFiftyGroupsAreTooLarge) {
  ann_.groups.clear();
  for (int i = 0; i < 250; ++i) {
    ann_.groups.push_back(absl::StrCat("department-of-number-", 1000 + i));
  }
  for (const bool json : {false, true}) {
    const v1::Principal principal = OfSignIn({{"groups", json}});
    EXPECT_EQ(principal.claim_faults().at("groups"), v1::CLAIM_TOO_LARGE);
    EXPECT_EQ(principal.claim_limit(), 4096);
  }
  EXPECT_EQ(FaultOf(std::string(4096, 'a'), false), v1::CLAIM_FAULT_UNSPECIFIED);
  EXPECT_EQ(FaultOf(std::string(4097, 'a'), false), v1::CLAIM_TOO_LARGE);
  EXPECT_EQ(FaultOf(std::string(4094, 'a'), true), v1::CLAIM_FAULT_UNSPECIFIED);
  EXPECT_EQ(FaultOf(std::string(4095, 'a'), true), v1::CLAIM_TOO_LARGE);
}

}  // namespace
}  // namespace sallyport::authn

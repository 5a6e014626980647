// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/caller_claims.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

using ::testing::HasSubstr;

ServerEntry::OwnHeader Rule(const std::string& claim, bool json = false) {
  ServerEntry::OwnHeader header;
  header.name = "X-Claim";
  header.prefix = "p=";
  header.claim = claim;
  header.json = json;
  return header;
}

class CallerClaimsTest : public ::testing::Test {
 protected:
  CallerClaimsTest() {
    verified_.set_subject("corp:ann");
    verified_.set_claim_limit(4096);
    (*verified_.mutable_claims())["dept"] = "red";
    (*verified_.mutable_json_claims())["dept"] = R"("red")";
    (*verified_.mutable_claim_faults())["groups"] = authn::v1::CLAIM_TOO_LARGE;
    (*verified_.mutable_claim_faults())["email"] = authn::v1::CLAIM_TOO_LARGE;
    (*verified_.mutable_claim_faults())["teams"] = authn::v1::CLAIM_AMBIGUOUS;
    verified_.set_email(std::string(5000, 'a'));
  }
  void Append(const ServerEntry::OwnHeader& header) { AppendCallerClaim(header, verified_, principal_); }
  Principal::ClaimRefusal Refusal(const ServerEntry::OwnHeader& header) {
    Principal principal;
    AppendCallerClaim(header, verified_, principal);
    EXPECT_EQ(principal.header_lines, "");
    return principal.claim_refusal;
  }

  authn::v1::Principal verified_;
  Principal principal_;
};

TEST_F(CallerClaimsTest, EachFormatHasItsOwnValue) {
  Append(Rule("dept"));
  Append(Rule("dept", true));
  Append(Rule("sub"));
  EXPECT_EQ(principal_.header_lines, "X-Claim: p=red\r\nX-Claim: p=\"red\"\r\nX-Claim: p=corp:ann\r\n");
  EXPECT_EQ(principal_.claim_refusal.status, 0);
}

TEST_F(CallerClaimsTest, AMissingClaimIs403AndNamed) {
  for (const bool json : {false, true}) {
    const auto refusal = Refusal(Rule("level", json));
    EXPECT_EQ(refusal.status, 403);
    EXPECT_EQ(refusal.reason, "claim_missing");
    EXPECT_THAT(refusal.message, HasSubstr("\"level\""));
  }
}

TEST_F(CallerClaimsTest, ATooLargeClaimIs403WithTheLimitAndNeverSentFromElsewhere) {
  for (const char* claim : {"groups", "email"}) {
    const auto refusal = Refusal(Rule(claim));
    EXPECT_EQ(refusal.status, 403);
    EXPECT_EQ(refusal.reason, "claim_too_large");
    EXPECT_THAT(refusal.message, HasSubstr("4096 bytes"));
  }
}

TEST_F(CallerClaimsTest, AnAmbiguousClaimIs403WithTheRemedy) {
  const auto refusal = Refusal(Rule("teams"));
  EXPECT_EQ(refusal.status, 403);
  EXPECT_EQ(refusal.reason, "claim_ambiguous");
  EXPECT_THAT(refusal.message, HasSubstr("format: JSON"));
}

TEST_F(CallerClaimsTest, BytesNoHeaderMayHaveAreAnErrorOfTheirOwn) {
  (*verified_.mutable_claims())["note"] = "a\r\nX-Evil: 1";
  const auto refusal = Refusal(Rule("note"));
  EXPECT_EQ(refusal.status, 500);
  EXPECT_EQ(refusal.reason, "identity_unencodable");
}

}  // namespace
}  // namespace sallyport::edge

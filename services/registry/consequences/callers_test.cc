// SPDX-License-Identifier: Apache-2.0
#include "services/registry/consequences/callers.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "services/registry/validation_testing.h"

namespace sallyport::registry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Sentences = std::vector<std::string>;

constexpr char kOpen[] = R"({"passthrough": {}})";
constexpr char kPeople[] = R"({"interactive": {"allow": {"everyone": true}}})";
constexpr char kOktaJwt[] = R"({"passthrough": {"jwtValidation": {"connector": "okta"}}})";

v1::McpServer ServerOf(const std::string& agent, const std::string& headers = "",
                       const std::string& app = R"({"bearer": {}})") {
  return FromJson<v1::McpServer>(R"({"slug": "a", "agentAuth": )" + agent + R"(, "appAuth": )" + app +
                                 R"(, "outboundHeaders": [)" + headers + "]}");
}
// "<callers>: <message>"
Sentences Said(const Consequences& consequences) {
  Sentences said;
  for (const auto& one : consequences) {
    EXPECT_EQ(one.kind(), v1::Consequence::CALLERS_REFUSED);
    EXPECT_FALSE(one.field().empty());
    said.push_back(v1::Consequence::Callers_Name(one.callers()) + ": " + one.message());
  }
  return said;
}
Sentences Lost(const std::string& before, const std::string& after) {
  return Said(LostAtTheDoor(ServerOf(before).agent_auth(), ServerOf(after).agent_auth()));
}
Sentences Asked(const v1::McpServer& before, const v1::McpServer& after) { return Said(AskedOfCallers(before, after)); }

TEST(LostAtTheDoorTest, NobodyWhereNothingChangesOrMoreAreAdmitted) {
  for (const char* door : {kOpen, kPeople, kOktaJwt}) EXPECT_THAT(Lost(door, door), IsEmpty()) << door;
  EXPECT_THAT(Lost(kOktaJwt, kOpen), IsEmpty());
  EXPECT_THAT(Lost(R"({"interactive": {"allow": {"groups": ["okta:a"]}}})", kPeople), IsEmpty());
}

TEST(LostAtTheDoorTest, ScriptsWithoutTokenWhenADoorIsPutIn) {
  EXPECT_THAT(Lost(kOpen, kPeople), ElementsAre("WITHOUT_TOKEN: callers without a token, such as scripts, are refused",
                                                "WITH_OWN_TOKEN: callers with a token that is not of the gateway's "
                                                "sign-in are refused"));
  EXPECT_THAT(Lost(kOpen, kOktaJwt),
              ElementsAre(HasSubstr("WITHOUT_TOKEN"), HasSubstr("not of connector okta are refused")));
}

TEST(LostAtTheDoorTest, PeopleWhenInteractiveBecomesPassthrough) {
  EXPECT_THAT(Lost(kPeople, kOpen), ElementsAre(HasSubstr("SIGNED_IN: callers who signed in at the gateway")));
  EXPECT_THAT(Lost(kPeople, kOktaJwt), ElementsAre(HasSubstr("SIGNED_IN")));
}

TEST(LostAtTheDoorTest, PeopleWhoseLineOfAllowIsGone) {
  EXPECT_THAT(Lost(kPeople, R"({"interactive": {"allow": {"groups": ["okta:a"]}}})"),
              ElementsAre("SIGNED_IN: whoever is signed in and matches no line of allow is refused"));
  EXPECT_THAT(Lost(kPeople, R"({"interactive": {}})"), ElementsAre("SIGNED_IN: everybody who is signed in is refused"));
  EXPECT_THAT(Lost(R"({"interactive": {"allow": {"groups": ["okta:a", "okta:b"], "emails": ["a@example.com"]}}})",
                   R"({"interactive": {"allow": {"groups": ["okta:b", "okta:c"]}}})"),
              ElementsAre("SIGNED_IN: whoever was admitted by email a@example.com or group okta:a alone is refused"));
}

TEST(LostAtTheDoorTest, TokensOfAConnectorAnAudienceOrAClaimThatIsNotTakenAnyMore) {
  const std::string trusting = R"({"interactive": {"trustedConnectors": [
      {"connector": "okta", "audiences": ["api://a", "api://b"]}]}})";
  EXPECT_THAT(Lost(trusting, R"({"interactive": {}})"),
              ElementsAre("WITH_OWN_TOKEN: callers with a token of connector okta are refused"));
  EXPECT_THAT(Lost(trusting, R"({"interactive": {"trustedConnectors": [
      {"connector": "okta", "audiences": ["api://b", "api://c"]}]}})"),
              ElementsAre("WITH_OWN_TOKEN: callers with a token of connector okta for api://a only are refused"));
  EXPECT_THAT(Lost(trusting, R"({"interactive": {"trustedConnectors": [{"connector": "okta",
      "audiences": ["api://a", "api://b"], "requiredClaims": {"tenant": "x"}}]}})"),
              ElementsAre(HasSubstr("without the claim tenant \"x\" are refused")));
  EXPECT_THAT(Lost(kOktaJwt, trusting), ElementsAre(HasSubstr("that is not for api://a or api://b are refused")));
  EXPECT_THAT(Lost(R"({"passthrough": {"jwtValidation": {"jwksUrl": "https://a.example/jwks"}}})", kOktaJwt),
              ElementsAre(HasSubstr("of the keys at https://a.example/jwks are refused")));
  EXPECT_THAT(
      Lost(R"({"passthrough": {"jwtValidation": {"jwksUrl": "https://a.example/jwks"}}})",
           R"({"passthrough": {"jwtValidation": {"jwksUrl": "https://a.example/jwks", "issuer": "https://a",
                       "audience": "me", "subjectClaim": "oid"}}})"),
      ElementsAre(HasSubstr("that is not issued by https://a, or that is not for me, or without the claim oid")));
}

TEST(AskedOfCallersTest, ASignInWithTokensOfAnIdentityProvider) {
  const std::string forward = R"({"name": "X-User-Token", "forwardCallerToken": {}})";
  EXPECT_THAT(Asked(ServerOf(kPeople), ServerOf(kPeople, forward)),
              ElementsAre(HasSubstr("SIGNED_IN: users of a local account are refused")));
  EXPECT_THAT(Asked(ServerOf(kPeople, forward), ServerOf(kPeople, forward)), IsEmpty());
  EXPECT_THAT(Asked(ServerOf(kOpen), ServerOf(kOpen, forward)), ElementsAre(HasSubstr("WITHOUT_TOKEN")));
  EXPECT_THAT(Asked(ServerOf(kOktaJwt), ServerOf(kPeople, forward)), IsEmpty()) << "nobody had signed in before";
}

TEST(AskedOfCallersTest, TheOtherKindOfTokenOfATrustedConnector) {
  const std::string trusting = R"({"interactive": {"trustedConnectors": [{"connector": "okta", "audiences": ["a"]}]}})";
  EXPECT_THAT(
      Asked(ServerOf(trusting), ServerOf(trusting, R"({"name": "X-T", "forwardCallerToken": {"token": "ID"}})")),
      ElementsAre(HasSubstr("SIGNED_IN"), HasSubstr("callers who present an access token are refused")));
}

TEST(AskedOfCallersTest, ACredentialOfTheirOwnOrAClaim) {
  EXPECT_THAT(Asked(ServerOf(kPeople), ServerOf(kPeople, "", R"({"passthrough": {}})")),
              ElementsAre(HasSubstr("EVERYBODY: calls go out without a credential unless they bring their own as "
                                    "X-Sallyport-Authorization")));
  EXPECT_THAT(Asked(ServerOf(kOpen, "", R"({"passthrough": {}})"), ServerOf(kOpen, "", R"({"passthrough": {}})")),
              IsEmpty());
  EXPECT_THAT(Asked(ServerOf(kPeople), ServerOf(kPeople, R"({"name": "X-Mail", "callerIdentity": {"claim": "email"}},
      {"name": "X-Sub", "callerIdentity": {"claim": "sub"}})")),
              ElementsAre(HasSubstr("callers of whom the claim email is not known are refused")));
}

}  // namespace
}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/credentials.h"

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "common/text/hex.h"
#include "sallyport/audit/v1/audit.pb.h"
#include "services/edge/mcp/principal_cache.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::edge {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::SizeIs;
using Code = absl::StatusCode;
using Response = token_broker::v1::ResolveCredentialsResponse;
using registry::v1::Invalidation;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

google::protobuf::Timestamp At(absl::Duration after) { return ToTimestamp(kNow + after); }

Response::Piece& Add(Response& response, const std::string& name, const std::string& value,
                     token_broker::v1::Scope scope = token_broker::v1::ORG) {
  Response::Piece& piece = *response.add_pieces();
  piece.set_piece("outbound_headers[" + name + "]");
  piece.set_location(Response::HEADER);
  piece.set_name(name);
  piece.set_value(value);
  piece.set_scope(scope);
  return piece;
}

TEST(RenderCredentials, WritesHeaderLinesQueryAndAudit) {
  Response response;
  Add(response, "Authorization", "Bearer t").set_uid("srv_a");
  Response::Piece& query = Add(response, "key", "a&b=c");
  query.set_location(Response::QUERY);
  ASSERT_OK_AND_ASSIGN(const auto set, RenderCredentials(response, kNow));
  EXPECT_EQ(set->header_lines, "Authorization: Bearer t\r\n");
  EXPECT_EQ(set->query_value, "a&b=c");
  EXPECT_TRUE(set->organization_only);
  audit::v1::Event event;
  ASSERT_TRUE(event.ParseFromString(set->audit_fields));
  ASSERT_THAT(event.credentials(), SizeIs(2));
  EXPECT_EQ(event.credentials(0).uid(), "srv_a");
  EXPECT_EQ(set->audit_fields.find("Bearer t"), std::string::npos);
}

TEST(RenderCredentials, AnAddressIsNoHeaderAndNothingTakesItsPlace) {
  UpstreamTarget base = *ParseUpstreamUrl("https://hooks.example");
  SecretTarget maker(base, {.url = true});
  Response response;
  Add(response, "Authorization", "Bearer t");
  EXPECT_THAT(RenderCredentials(response, kNow, &maker), StatusIs(Code::kFailedPrecondition));
  Response::Piece& url = *response.add_pieces();
  url.set_piece("upstream_url");
  url.set_location(Response::URL);
  url.set_value("https://hooks.example/canary");
  url.set_scope(token_broker::v1::ORG);
  ASSERT_OK_AND_ASSIGN(const auto set, RenderCredentials(response, kNow, &maker));
  EXPECT_EQ(set->header_lines, "Authorization: Bearer t\r\n");
  ASSERT_NE(set->target, nullptr);
  EXPECT_EQ(set->target->path, "/canary");
  EXPECT_TRUE(set->organization_only);
  EXPECT_EQ(set->audit_fields.find("canary"), std::string::npos);
  EXPECT_NE(set->audit_fields.find("upstream_url"), std::string::npos) << "that it was used is no secret";
  EXPECT_THAT(RenderCredentials(response, kNow), StatusIs(Code::kInternal)) << "this server has none";
}

TEST(RenderCredentials, AValueThatCannotBeAHeaderIsRefusedNotCleaned) {
  for (const std::string& value : {std::string("a\r\nX-Evil: b"), std::string("a\nb"), std::string("a\0b", 3)}) {
    Response response;
    Add(response, "X-A", value);
    const auto set = RenderCredentials(response, kNow);
    ASSERT_THAT(set, StatusIs(Code::kInternal));
    EXPECT_EQ(ReasonOf(set.status()), "credential_unencodable");
  }
}

TEST(RenderCredentials, LivesFiveMinutesAndNeverPastItsOwnEnd) {
  Response response;
  Add(response, "X-A", "a");
  ASSERT_OK_AND_ASSIGN(const auto plain, RenderCredentials(response, kNow));
  EXPECT_EQ(plain->valid_until, kNow + absl::Minutes(5));
  EXPECT_EQ(plain->renew_at, kNow + absl::Minutes(4));
  EXPECT_EQ(plain->outage_until, kNow + absl::Minutes(15));
  *Add(response, "X-B", "b").mutable_expires_at() = At(absl::Minutes(2));
  *Add(response, "X-C", "c").mutable_renew_at() = At(absl::Minutes(1));
  ASSERT_OK_AND_ASSIGN(const auto bounded, RenderCredentials(response, kNow));
  EXPECT_EQ(bounded->valid_until, kNow + absl::Minutes(2));
  EXPECT_EQ(bounded->renew_at, kNow + absl::Minutes(1));
  EXPECT_EQ(bounded->outage_until, kNow + absl::Minutes(2));
}

TEST(RenderCredentials, AnythingButOrganizationIsNotForSharing) {
  for (const auto scope : {token_broker::v1::USER, token_broker::v1::TOKEN, token_broker::v1::REQUEST,
                           token_broker::v1::SCOPE_UNSPECIFIED}) {
    Response response;
    Add(response, "X-A", "a");
    Add(response, "X-B", "b", scope);
    ASSERT_OK_AND_ASSIGN(const auto set, RenderCredentials(response, kNow));
    EXPECT_FALSE(set->organization_only) << scope;
  }
}

// --- the principal table ---

class PrincipalTableTest : public ::testing::Test {
 protected:
  static PrincipalPtr Make(uint8_t digest, const std::string& subject = "okta:ada", const std::string& session = "s1",
                           const std::string& server = "srv_a") {
    auto principal = std::make_shared<Principal>();
    principal->key.digest.fill(digest);
    principal->key.server_serial = 1;
    principal->revocation_key = absl::StrCat("token ", digest);
    principal->subject = subject;
    principal->session_id = session;
    principal->server_uid = server;
    principal->valid_until = kNow + absl::Seconds(digest);
    return principal;
  }
  static Invalidation Of(Invalidation::Kind kind, const std::string& key, int64_t generation = 0) {
    Invalidation invalidation;
    invalidation.set_kind(kind);
    invalidation.set_key(key);
    invalidation.set_generation(generation);
    return invalidation;
  }
  static std::shared_ptr<const CredentialSet> Credentials(const std::vector<CredentialSet::Connection>& connections) {
    auto set = std::make_shared<CredentialSet>();
    set->connections = connections;
    return set;
  }
  bool Survives(const PrincipalPtr& principal, const Invalidation& invalidation) {
    table_.Insert(principal);
    table_.Invalidate(Ended({invalidation}));
    EXPECT_EQ(principal->dead.load(), table_.Find(principal->key) == nullptr);
    return !principal->dead.load();
  }
  PrincipalTable table_;
};

TEST_F(PrincipalTableTest, EveryKindHitsWhatItNamesAndNothingElse) {
  EXPECT_FALSE(Survives(Make(7), Of(Invalidation::TOKEN, "token 7")));
  EXPECT_TRUE(Survives(Make(8), Of(Invalidation::TOKEN, "token 7")));
  EXPECT_FALSE(Survives(Make(7), Of(Invalidation::SESSION, "s1")));
  EXPECT_TRUE(Survives(Make(7), Of(Invalidation::SESSION, "s2")));
  EXPECT_FALSE(Survives(Make(7), Of(Invalidation::SUBJECT, "okta:ada")));
  EXPECT_TRUE(Survives(Make(7), Of(Invalidation::SUBJECT, "okta:ad")));
  EXPECT_FALSE(Survives(Make(7), Of(Invalidation::SERVER, "srv_a")));
  EXPECT_TRUE(Survives(Make(7), Of(Invalidation::SERVER, "srv_b")));
  EXPECT_TRUE(Survives(Make(7), Of(Invalidation::SECRET, "srv_a/x")));
  EXPECT_FALSE(Survives(Make(7), Of(Invalidation::CONNECTION, "not understood"))) << "to be on the safe side";
}

// The cache's key is the whole token: one with another signature over the same content has an entry of its own.
TEST_F(PrincipalTableTest, RevokingATokenEndsEverySpellingOfItsSignature) {
  const std::string signing_input = "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJqIn0";
  const PrincipalPtr one = Make(1);
  const PrincipalPtr twin = Make(2);
  const PrincipalPtr other = Make(3);
  one->revocation_key = RevocationKeyOf(signing_input + ".c2ln");
  twin->revocation_key = RevocationKeyOf(signing_input + ".dHdpbg");
  other->revocation_key = RevocationKeyOf(signing_input + "x.c2ln");
  for (const PrincipalPtr& principal : {one, twin, other}) table_.Insert(principal);
  table_.Invalidate(Ended({Of(Invalidation::TOKEN, HexEncode(Sha256(signing_input)))}));
  EXPECT_TRUE(one->dead.load());
  EXPECT_TRUE(twin->dead.load());
  EXPECT_FALSE(other->dead.load());
}

TEST_F(PrincipalTableTest, AConnectionTakesItsOlderCredentialsOnly) {
  const auto hits = [&](const std::string& key, int64_t generation) {
    const PrincipalPtr principal = Make(7);
    const auto credentials = Credentials({{"app_a", 3}, {"sso:okta", 9}});
    principal->set_credentials(credentials);
    EXPECT_TRUE(Survives(principal, Of(Invalidation::CONNECTION, key, generation)));
    EXPECT_EQ(credentials->dead.load(), principal->credentials() == nullptr);
    return credentials->dead.load();
  };
  EXPECT_TRUE(hits("okta:ada\napp_a\n", 4));
  EXPECT_TRUE(hits("okta:ada\nsso:okta\n", 10)) << "each of several connections counts";
  EXPECT_TRUE(hits("okta:ada\napp_a\n", 0)) << "no generation: all";
  EXPECT_FALSE(hits("okta:ada\napp_a\n", 3)) << "resolved after it";
  EXPECT_FALSE(hits("okta:bob\napp_a\n", 4));
  EXPECT_FALSE(hits("okta:ada\napp_b\n", 4));
  EXPECT_FALSE(hits("okta:ada\napp_a\nwork", 4)) << "another account of the app";
}

TEST_F(PrincipalTableTest, AnAccountThatWasChosenIsTakenByItsLabel) {
  const PrincipalPtr principal = Make(7);
  const auto standard = Credentials({{"app_a", 3}});
  const auto work = Credentials({{"app_a/work", 3}});
  principal->set_credentials(standard);
  principal->set_credentials(work, "work");
  EXPECT_TRUE(Survives(principal, Of(Invalidation::CONNECTION, "okta:ada\napp_a\nwork", 4)));
  EXPECT_EQ(principal->credentials("work"), nullptr);
  EXPECT_TRUE(work->dead.load());
  EXPECT_EQ(principal->credentials(), standard);
}

TEST_F(PrincipalTableTest, CallerWhoChoosesFromManyIsBounded) {
  const PrincipalPtr principal = Make(7);
  principal->set_credentials(Credentials({{"app_a", 3}}));
  for (int i = 0; i < 100; ++i) principal->set_credentials(Credentials({}), absl::StrCat("label", i));
  EXPECT_EQ(principal->credentials("label0"), nullptr);
  EXPECT_NE(principal->credentials("label99"), nullptr);
  EXPECT_NE(principal->credentials(), nullptr);
  const PrincipalPtr renewed = Make(8);
  renewed->TakeCredentials(*principal);
  EXPECT_EQ(renewed->credentials("label99"), principal->credentials("label99"));
  EXPECT_EQ(renewed->credentials(), principal->credentials());
}

TEST_F(PrincipalTableTest, TenThousandEndedSessionsAreOnePassOverTenThousandCallers) {
  constexpr size_t kCallers = 10'000;
  std::vector<PrincipalPtr> callers;
  std::vector<Invalidation> ended;
  for (size_t i = 0; i < kCallers; ++i) {
    callers.push_back(Make(static_cast<uint8_t>(i % 256), "okta:ada", absl::StrCat("s", i)));
    callers.back()->key.server_serial = i;
    table_.Insert(callers.back());
    // Every other one of theirs, and as many that nobody here has.
    ended.push_back(Of(Invalidation::SESSION, absl::StrCat(i % 2 == 0 ? "s" : "elsewhere", i)));
  }
  ASSERT_EQ(table_.size(), kCallers);
  table_.Invalidate(Ended(ended));
  EXPECT_EQ(table_.examined(), kCallers) << "each once, not once for each that ended";
  for (size_t i = 0; i < kCallers; ++i) ASSERT_EQ(callers[i]->dead.load(), i % 2 == 0) << i;
  EXPECT_EQ(table_.size(), kCallers / 2);
}

TEST_F(PrincipalTableTest, ASecretTakesEverybodysCredentials) {
  const PrincipalPtr principal = Make(7);
  principal->set_credentials(Credentials({}));
  EXPECT_TRUE(Survives(principal, Of(Invalidation::SECRET, "srv_a/x")));
  EXPECT_EQ(principal->credentials(), nullptr);
}

// Workers keep their own pointers: what the table forgets must not live on there.
TEST_F(PrincipalTableTest, WhoeverIsReplacedOrDisplacedIsDead) {
  const PrincipalPtr first = Make(7);
  table_.Insert(first);
  table_.Insert(first);
  EXPECT_FALSE(first->dead.load());
  const PrincipalPtr renewed = Make(7);
  table_.Insert(renewed);
  EXPECT_TRUE(first->dead.load());
  EXPECT_FALSE(renewed->dead.load());
  table_.Erase(first);
  EXPECT_EQ(table_.Find(renewed->key), renewed) << "erasing the old one does not take the new one";

  std::vector<PrincipalPtr> many;
  for (size_t i = 0; i < PrincipalTable::kMaxPerShard; ++i) {
    many.push_back(Make(7));
    many.back()->key.server_serial = 100 + i;
    many.back()->valid_until = kNow + absl::Hours(1);
    table_.Insert(many.back());
  }
  EXPECT_TRUE(renewed->dead.load()) << "what ends first makes room";
  EXPECT_LE(table_.size(), PrincipalTable::kMaxPerShard);
}

TEST_F(PrincipalTableTest, TheSameTokenIsAnotherEntryForAnotherServer) {
  const PrincipalPtr here = Make(7);
  table_.Insert(here);
  PrincipalKey elsewhere = here->key;
  elsewhere.server_serial = 2;
  EXPECT_EQ(table_.Find(elsewhere), nullptr);
}

}  // namespace
}  // namespace sallyport::edge

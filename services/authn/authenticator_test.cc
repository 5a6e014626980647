// SPDX-License-Identifier: Apache-2.0
#include "services/authn/authenticator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/crypto/crypto.h"
#include "common/crypto/openssl.h"
#include "common/text/base64url.h"
#include "services/authn/authn_testing.h"
#include "services/authn/sessions.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr char kUrl[] = "https://gw.example";
constexpr char kIssuer[] = "https://idp.example";

registry::v1::McpServer MakeServer(const std::string& slug) {
  registry::v1::McpServer server;
  server.set_uid("srv_" + slug);
  server.set_slug(slug);
  server.set_version(1);
  return server;
}

registry::v1::McpServer InteractiveServer() {
  registry::v1::McpServer server = MakeServer("inter");
  auto& interactive = *server.mutable_agent_auth()->mutable_interactive();
  interactive.mutable_allow()->add_groups("team");
  interactive.mutable_allow()->add_email_domains("x.example");
  auto& trusted = *interactive.add_trusted_connectors();
  trusted.set_connector("corp");
  trusted.add_audiences("api://mcp");
  for (const char* claim : {"sub", "email", "dept"}) {
    auto& header = *server.add_outbound_headers();
    header.set_name(absl::StrCat("X-", claim));
    header.mutable_caller_identity()->set_claim(claim);
  }
  return server;
}

registry::v1::McpServer PassthroughServer(const registry::v1::JwtValidation& validation) {
  registry::v1::McpServer server = MakeServer("pass");
  *server.mutable_agent_auth()->mutable_passthrough()->mutable_jwt_validation() = validation;
  return server;
}

// The same token with the other spelling of its signature: (r, n - s) for (r, s).
std::string TwinOf(const std::string& token) {
  const size_t dot = token.rfind('.');
  std::string raw = *Base64UrlDecode(token.substr(dot + 1));
  BIGNUM* order = nullptr;
  BN_hex2bn(&order, "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551");
  BignumPtr n(order);
  BignumPtr s(BN_bin2bn(Bytes8(raw) + 32, 32, nullptr));
  BN_sub(s.get(), n.get(), s.get());
  BN_bn2binpad(s.get(), reinterpret_cast<unsigned char*>(raw.data()) + 32, 32);
  return token.substr(0, dot + 1) + Base64UrlEncode(raw);
}

class AuthenticatorTest : public ::testing::Test {
 protected:
  AuthenticatorTest()
      : idp_(kIssuer),
        jwks_(fetcher_),
        database_(OpenTestDatabase(directory_, clock_)),
        keys_(vault_, absl::Hours(1)),
        tokens_(kUrl, keys_, absl::Hours(1)),
        passports_(kUrl, keys_),
        names_(OneIssuer()),
        roles_(Roles(), names_),
        stream_(grpc::CreateChannel("unix:///dev/null/none", grpc::InsecureChannelCredentials()), clock_),
        servers_(stream_, roles_, names_),
        sessions_(*database_, absl::Hours(12)),
        grants_(*database_),
        revocations_(*database_, nullptr) {
    EXPECT_THAT(keys_.Refresh(clock_.Now()), IsOk());
    EXPECT_THAT(WriteFileAtomic(directory_.path() + "/jwks", idp_.Jwks()), IsOk());
    auto& corp = *connector_config_.Add();
    corp.set_id("corp");
    corp.mutable_oidc()->set_issuer(kIssuer);
    corp.mutable_oidc()->set_jwks_file(directory_.path() + "/jwks");
    corp.mutable_oidc()->add_authoritative_domains("x.example");
    connectors_ = *Connectors::Create(connector_config_, jwks_, vault_);
  }

  static GroupNames OneIssuer() {
    google::protobuf::RepeatedPtrField<config::v1::Connector> connectors;
    auto& corp = *connectors.Add();
    corp.set_id("corp");
    corp.mutable_oidc();
    return GroupNames(connectors);
  }
  static config::v1::AuthnConfig::Roles Roles() {
    config::v1::AuthnConfig::Roles roles;
    roles.add_admin_groups("admins");
    return roles;
  }

  void Serve(const std::vector<registry::v1::McpServer>& servers) {
    ASSERT_THAT(stream_.Seed(SnapshotOf(servers)), IsOk());
    authenticator_ = std::make_unique<Authenticator>(
        Authenticator::Parts{servers_, *connectors_, jwks_, tokens_, grants_, revocations_, roles_, passports_});
  }

  Authenticator::Outcome Call(const std::string& slug, const std::string& token, int64_t version = 1) {
    v1::AuthenticateRequest request;
    request.set_server_uid("srv_" + slug);
    request.set_server_version(version);
    request.set_token(token);
    return authenticator_->Authenticate(request, clock_.Now());
  }
  absl::Status Refusal(const std::string& slug, const std::string& token) {
    return Call(slug, token).response.status();
  }

  Identity SignIn(const std::vector<std::string>& groups) {
    Identity ann;
    ann.subject = "corp:ann";
    ann.connector = "corp";
    ann.issuer = kIssuer;
    ann.email = "ann@y.example";
    ann.groups = groups;
    EXPECT_THAT(sessions_.Create(ann, "", clock_.Now()), IsOk());
    return ann;
  }
  // A grant as the pages make it after a sign-in, and a token of it.
  std::string OurToken(const std::vector<std::string>& groups, Grant* out = nullptr) {
    const Identity ann = SignIn(groups);
    const std::string verifier(43, 'v');
    CodeBinding binding;
    binding.client_id = "client";
    binding.redirect_uri = "http://127.0.0.1/cb";
    binding.code_challenge = Base64UrlEncode(Sha256(verifier));
    binding.resource = tokens_.McpAudience("inter");
    binding.server_uid = "srv_inter";
    binding.scope = "mcp";
    Sessions sessions(*database_, absl::Hours(1));
    auto session = sessions.Create(ann, "", clock_.Now());
    EXPECT_THAT(session, IsOk());
    binding.session_id = session->session.id;
    auto code = grants_.IssueCode(ann, binding, "", clock_.Now());
    EXPECT_THAT(code, IsOk());
    Grants::Redemption redemption;
    redemption.client_id = "client";
    redemption.redirect_uri = binding.redirect_uri;
    redemption.code_verifier = verifier;
    std::string revoked;
    auto redeemed = grants_.RedeemCode(code->Expose(), redemption, true, clock_.Now(), &revoked);
    EXPECT_THAT(redeemed, IsOk());
    if (out != nullptr) {
      *out = redeemed->grant;
    }
    auto minted = tokens_.MintMcp({"corp:ann", "client", redeemed->grant.id, "inter", "srv_inter"}, clock_.Now());
    EXPECT_THAT(minted, IsOk());
    return minted->token;
  }

  FakeClock clock_;
  TempDirectory directory_;
  TestIssuer idp_;
  FakeFetcher fetcher_;
  JwksCache jwks_;
  FakeVaultClient vault_;
  std::unique_ptr<Database> database_;
  SigningKeys keys_;
  AccessTokens tokens_;
  Passports passports_;
  GroupNames names_;
  RolePolicy roles_;
  ControlStream stream_;
  Servers servers_;
  Sessions sessions_;
  Grants grants_;
  Revocations revocations_;
  google::protobuf::RepeatedPtrField<config::v1::Connector> connector_config_;
  std::unique_ptr<Connectors> connectors_;
  std::unique_ptr<Authenticator> authenticator_;
};

TEST_F(AuthenticatorTest, ATrustedConnectorsTokenComesInWithWhatTheServerAsksFor) {
  Serve({InteractiveServer()});
  const std::string token = idp_.Token(clock_.Now(), {{"groups", {"team", "other", "admins"}},
                                                      {"email", "ann@z.example"},
                                                      {"dept", {"a", "b"}},
                                                      {"secretclaim", "x"},
                                                      {"azp", "bot"}});

  const Authenticator::Outcome outcome = Call("inter", token);

  ASSERT_THAT(outcome.response, IsOk());
  const v1::Principal& principal = outcome.response->principal();
  EXPECT_EQ(principal.subject(), "corp:ann");
  EXPECT_EQ(principal.token_kind(), v1::CONNECTOR_ACCESS);
  EXPECT_EQ(principal.client_id(), "bot");
  EXPECT_THAT(principal.groups(), ElementsAre("corp:team", "corp:admins"));
  EXPECT_THAT(principal.roles(), ElementsAre(v1::ADMIN));
  const std::map<std::string, std::string> claims(principal.claims().begin(), principal.claims().end());
  EXPECT_THAT(claims,
              UnorderedElementsAre(Pair("sub", "corp:ann"), Pair("email", "ann@z.example"), Pair("dept", "a,b")));
  EXPECT_EQ(outcome.rule, "interactive.allow.groups");
  EXPECT_EQ(outcome.response->valid_until().seconds(), absl::ToUnixSeconds(clock_.Now() + absl::Minutes(5)));
  EXPECT_THAT(outcome.response->session_id(), IsEmpty());
}

TEST_F(AuthenticatorTest, ThePassportSaysTheSame) {
  Serve({InteractiveServer()});
  ASSERT_OK_AND_ASSIGN(auto response,
                       Call("inter", idp_.Token(clock_.Now(), {{"groups", {"team", "other"}}})).response);

  PassportVerifier verifier(kUrl, OwnKeySource(keys_));
  ASSERT_OK_AND_ASSIGN(Passport passport, verifier.Verify(response.passport(), clock_.Now()));
  EXPECT_EQ(passport.subject, "corp:ann");
  EXPECT_EQ(passport.server_uid, "srv_inter");
  EXPECT_THAT(passport.groups, ElementsAre("corp:team"));
  EXPECT_EQ(passport.purpose, Passport::Purpose::kCall);
}

TEST_F(AuthenticatorTest, TheAnswerIsNeverValidBeyondTheToken) {
  Serve({InteractiveServer()});
  const int64_t exp = absl::ToUnixSeconds(clock_.Now()) + 40;
  ASSERT_OK_AND_ASSIGN(auto response,
                       Call("inter", idp_.Token(clock_.Now(), {{"groups", {"team"}}, {"exp", exp}})).response);
  EXPECT_EQ(response.valid_until().seconds(), exp);
}

TEST_F(AuthenticatorTest, WhoIsKnownButNotAmongTheAllowedIsDeniedByName) {
  Serve({InteractiveServer()});
  const Authenticator::Outcome outcome = Call("inter", idp_.Token(clock_.Now(), {{"groups", {"elsewhere"}}}));

  EXPECT_THAT(outcome.response.status(), StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_EQ(ReasonOf(outcome.response.status()), "not_allowed");
  EXPECT_EQ(outcome.subject, "corp:ann");
  EXPECT_EQ(outcome.rule, "interactive.allow.none");
}

TEST_F(AuthenticatorTest, ADomainCountsOnlyIfVerifiedAndTheConnectorMaySpeakForIt) {
  Serve({InteractiveServer()});
  const auto call = [&](const char* email, bool verified) {
    return Refusal("inter", idp_.Token(clock_.Now(), {{"email", email}, {"email_verified", verified}}));
  };
  EXPECT_THAT(call("a@x.example", true), IsOk());
  EXPECT_THAT(call("a@x.example", false), StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(call("a@y.example", true), StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(call("a@y.example@x.example", true), StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST_F(AuthenticatorTest, AnEmptyAllowAdmitsNobody) {
  registry::v1::McpServer server = InteractiveServer();
  server.mutable_agent_auth()->mutable_interactive()->clear_allow();
  Serve({server});
  EXPECT_THAT(Refusal("inter", idp_.Token(clock_.Now(), {{"groups", {"team"}}})),
              StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST_F(AuthenticatorTest, AConnectorTheServerDoesNotTrustIsRefused) {
  registry::v1::McpServer server = InteractiveServer();
  server.mutable_agent_auth()->mutable_interactive()->clear_trusted_connectors();
  server.mutable_agent_auth()->mutable_interactive()->mutable_allow()->set_everyone(true);
  Serve({server});
  EXPECT_THAT(Refusal("inter", idp_.Token(clock_.Now())), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AuthenticatorTest, ATrustWithoutAudienceTrustsNothing) {
  registry::v1::McpServer server = InteractiveServer();
  server.mutable_agent_auth()->mutable_interactive()->mutable_trusted_connectors(0)->clear_audiences();
  server.mutable_agent_auth()->mutable_interactive()->mutable_allow()->set_everyone(true);
  Serve({server});
  EXPECT_THAT(Refusal("inter", idp_.Token(clock_.Now())), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AuthenticatorTest, NoTokenAndGarbageAreUnauthenticatedNeverAnonymous) {
  registry::v1::McpServer server = InteractiveServer();
  server.mutable_agent_auth()->mutable_interactive()->mutable_allow()->set_everyone(true);
  Serve({server});
  for (const std::string& token : {std::string(), std::string("x"), std::string("a.b.c"), std::string("..."),
                                   std::string(8193, 'a'), std::string("Bearer x"), std::string("\0\0\0", 3)}) {
    EXPECT_THAT(Refusal("inter", token), StatusIs(absl::StatusCode::kUnauthenticated)) << token.size();
    EXPECT_EQ(DetailOf(Refusal("inter", token)).oauth_error, "invalid_token");
  }
}

TEST_F(AuthenticatorTest, OurTokenTakesGroupsAndEmailFromTheGrant) {
  Serve({InteractiveServer()});
  Grant grant;
  ASSERT_OK_AND_ASSIGN(auto response, Call("inter", OurToken({"team"}, &grant)).response);

  EXPECT_EQ(response.principal().subject(), "corp:ann");
  EXPECT_EQ(response.principal().token_kind(), v1::SALLYPORT);
  EXPECT_EQ(response.principal().email(), "ann@y.example");
  EXPECT_EQ(response.session_id(), grant.id);
  EXPECT_THAT(Refusal("inter", OurToken({"elsewhere"})), StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST_F(AuthenticatorTest, ARevokedGrantEndsItsTokens) {
  Serve({InteractiveServer()});
  Grant grant;
  const std::string token = OurToken({"team"}, &grant);
  ASSERT_THAT(Refusal("inter", token), IsOk());
  ASSERT_THAT(grants_.Revoke(grant.id, clock_.Now()), IsOk());
  EXPECT_THAT(Refusal("inter", token), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AuthenticatorTest, ARevokedTokenEndsAlone) {
  Serve({InteractiveServer()});
  const std::string revoked = OurToken({"team"});
  const std::string other = OurToken({"team"});
  ASSERT_OK_AND_ASSIGN(AccessToken parsed, tokens_.VerifyForRevocation(revoked));
  ASSERT_THAT(revocations_.RevokeToken(parsed.jti, revoked, parsed.expires_at, clock_.Now()), IsOk());

  EXPECT_THAT(Refusal("inter", revoked), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Refusal("inter", other), IsOk());
}

// Whoever holds a token can spell its signature in two ways; revoking one must not leave the other.
TEST_F(AuthenticatorTest, TheTwinOfATokenIsNoToken) {
  Serve({InteractiveServer()});
  const std::string token = OurToken({"team"});
  const std::string twin = TwinOf(token);
  ASSERT_NE(token, twin);
  ASSERT_OK_AND_ASSIGN(const JwkSet keys, keys_.PublicKeys());
  ASSERT_THAT(VerifyJws(twin, keys), IsOk()) << "the twin is a valid signature";

  EXPECT_THAT(Refusal("inter", token), IsOk());
  EXPECT_EQ(ReasonOf(Refusal("inter", twin)), "bad_signature");
  EXPECT_FALSE(tokens_.VerifyForRevocation(twin).ok());
}

TEST_F(AuthenticatorTest, ANewSignInDecidesForEveryOlderGrant) {
  Serve({InteractiveServer()});
  Grant old;
  const std::string token = OurToken({"team", "admins"}, &old);
  ASSERT_OK_AND_ASSIGN(auto before, Call("inter", token).response);
  EXPECT_THAT(before.principal().roles(), ElementsAre(v1::ADMIN));

  SignIn({"team"});
  ASSERT_OK_AND_ASSIGN(auto after, Call("inter", token).response);
  EXPECT_THAT(after.principal().roles(), IsEmpty());
  EXPECT_THAT(after.principal().groups(), ElementsAre("corp:team"));

  SignIn({});
  EXPECT_THAT(Refusal("inter", token), StatusIs(absl::StatusCode::kPermissionDenied));
  SignIn({"team"});
  EXPECT_THAT(Refusal("inter", token), IsOk());
}

TEST_F(AuthenticatorTest, RevokingAUserRefusesOlderTokensOfConnectors) {
  Serve({InteractiveServer()});
  const nlohmann::json claims = {{"groups", {"team"}}, {"exp", absl::ToUnixSeconds(clock_.Now() + absl::Hours(900))}};
  const std::string old = idp_.Token(clock_.Now(), claims);
  nlohmann::json undated = claims;
  undated["iat"] = nullptr;
  const std::string without_iat = idp_.Token(clock_.Now(), undated);
  const std::string of_bob = idp_.Token(clock_.Now(), {{"groups", {"team"}}, {"sub", "bob"}});
  for (const std::string& token : {old, without_iat, of_bob}) ASSERT_THAT(Refusal("inter", token), IsOk());

  clock_.Advance(absl::Seconds(1));
  ASSERT_THAT(revocations_.RevokeSubject("corp:ann", clock_.Now()), IsOk());
  EXPECT_EQ(ReasonOf(Refusal("inter", old)), "revoked");
  EXPECT_EQ(ReasonOf(Refusal("inter", without_iat)), "revoked") << "it may be from before";
  EXPECT_THAT(Refusal("inter", of_bob), IsOk());

  const std::string same_second = idp_.Token(clock_.Now(), claims);
  EXPECT_EQ(ReasonOf(Refusal("inter", same_second)), "revoked") << "iat has whole seconds";
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(Refusal("inter", idp_.Token(clock_.Now(), claims)), IsOk());

  clock_.Advance(absl::Hours(890));
  ASSERT_THAT(revocations_.Prune(clock_.Now()), IsOk());
  EXPECT_EQ(ReasonOf(Refusal("inter", old)), "revoked") << "as long as it would live";
}

TEST_F(AuthenticatorTest, RevokingAUserRefusesOlderTokensOnPassthroughToo) {
  registry::v1::JwtValidation validation;
  validation.set_connector("corp");
  validation.set_audience("api://mcp");
  Serve({PassthroughServer(validation)});
  const std::string old = idp_.Token(clock_.Now());
  ASSERT_THAT(Refusal("pass", old), IsOk());
  ASSERT_THAT(revocations_.RevokeSubject("corp:ann", clock_.Now()), IsOk());
  EXPECT_EQ(ReasonOf(Refusal("pass", old)), "revoked");
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(Refusal("pass", idp_.Token(clock_.Now())), IsOk());
}

TEST_F(AuthenticatorTest, GroupsThatEntraLeftOutAreNamedAsTheReason) {
  Serve({InteractiveServer()});
  const nlohmann::json elsewhere = {{"_claim_names", {{"groups", "src1"}}},
                                    {"_claim_sources", {{"src1", {{"endpoint", "https://graph.example/u"}}}}}};
  for (const nlohmann::json& claims : std::vector<nlohmann::json>{elsewhere, {{"hasgroups", true}}}) {
    const Authenticator::Outcome outcome = Call("inter", idp_.Token(clock_.Now(), claims));
    EXPECT_THAT(outcome.response.status(), StatusIs(absl::StatusCode::kPermissionDenied));
    EXPECT_EQ(ReasonOf(outcome.response.status()), "groups_overage");
    EXPECT_EQ(outcome.rule, "interactive.allow.groups_overage");
  }
}

// The same name from another identity provider is another group.
TEST_F(AuthenticatorTest, AGroupOfAnotherConnectorOpensNothing) {
  const TestIssuer partner("https://partner.example");
  ASSERT_THAT(WriteFileAtomic(directory_.path() + "/partner", partner.Jwks()), IsOk());
  auto& config = *connector_config_.Add();
  config.set_id("partner");
  config.mutable_oidc()->set_issuer(partner.issuer());
  config.mutable_oidc()->set_jwks_file(directory_.path() + "/partner");
  connectors_ = *Connectors::Create(connector_config_, jwks_, vault_);
  registry::v1::McpServer server = InteractiveServer();
  auto& interactive = *server.mutable_agent_auth()->mutable_interactive();
  *interactive.mutable_allow()->mutable_groups(0) = "corp:team";
  auto& trusted = *interactive.add_trusted_connectors();
  trusted.set_connector("partner");
  trusted.add_audiences("api://mcp");
  Serve({server});

  const nlohmann::json groups = {{"groups", {"team", "admins", "corp:team"}}};
  ASSERT_OK_AND_ASSIGN(auto ours, Call("inter", idp_.Token(clock_.Now(), groups)).response);
  EXPECT_THAT(ours.principal().roles(), ElementsAre(v1::ADMIN));
  EXPECT_THAT(Refusal("inter", partner.Token(clock_.Now(), groups)), StatusIs(absl::StatusCode::kPermissionDenied));

  interactive.mutable_allow()->add_groups("partner:team");
  Serve({server});
  ASSERT_OK_AND_ASSIGN(auto theirs, Call("inter", partner.Token(clock_.Now(), groups)).response);
  EXPECT_THAT(theirs.principal().roles(), IsEmpty());
  EXPECT_THAT(theirs.principal().groups(), ElementsAre("partner:team"));
}

TEST_F(AuthenticatorTest, CallerIdentityKeepsTheProvidersNamesOfGroups) {
  registry::v1::McpServer server = InteractiveServer();
  auto& header = *server.add_outbound_headers();
  header.set_name("X-Groups");
  header.mutable_caller_identity()->set_claim("groups");
  Serve({server});
  ASSERT_OK_AND_ASSIGN(auto presented,
                       Call("inter", idp_.Token(clock_.Now(), {{"groups", {"team", "other"}}})).response);
  EXPECT_EQ(presented.principal().claims().at("groups"), "team,other");
  ASSERT_OK_AND_ASSIGN(auto ours, Call("inter", OurToken({"team", "other"})).response);
  EXPECT_EQ(ours.principal().claims().at("groups"), "team,other");
}

TEST_F(AuthenticatorTest, ATokenWithoutAGrantIsNoToken) {
  Serve({InteractiveServer()});
  ASSERT_OK_AND_ASSIGN(MintedToken minted,
                       tokens_.MintMcp({"corp:ann", "client", "grn_none", "inter", "srv_inter"}, clock_.Now()));
  EXPECT_THAT(Refusal("inter", minted.token), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AuthenticatorTest, ATokenThatSaysSomethingElseThanItsGrantIsRefused) {
  Serve({InteractiveServer()});
  Grant grant;
  OurToken({"team"}, &grant);
  for (const auto& [subject, client] :
       std::vector<std::pair<std::string, std::string>>{{"corp:bob", "client"}, {"corp:ann", "other"}}) {
    ASSERT_OK_AND_ASSIGN(MintedToken minted,
                         tokens_.MintMcp({subject, client, grant.id, "inter", "srv_inter"}, clock_.Now()));
    EXPECT_THAT(Refusal("inter", minted.token), StatusIs(absl::StatusCode::kUnauthenticated));
  }
}

TEST_F(AuthenticatorTest, OurTokenForOneServerIsRefusedAtAnother) {
  registry::v1::McpServer other = MakeServer("other");
  other.mutable_agent_auth()->mutable_interactive()->mutable_allow()->set_everyone(true);
  Serve({InteractiveServer(), other});
  EXPECT_THAT(Refusal("other", OurToken({"team"})), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AuthenticatorTest, AServerThatIsUnknownOrOfAnotherVersionIsNotDecidedFor) {
  Serve({InteractiveServer()});
  EXPECT_THAT(Call("none", "x").response.status(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Call("inter", "x", 0).response.status(), StatusIs(absl::StatusCode::kAborted));
}

TEST_F(AuthenticatorTest, ADisabledServerIsNotThere) {
  registry::v1::McpServer server = InteractiveServer();
  server.set_enabled(false);
  Serve({server});
  EXPECT_THAT(Refusal("inter", idp_.Token(clock_.Now(), {{"groups", {"team"}}})),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(AuthenticatorTest, PassthroughWithAConnectorUsesItsSubject) {
  registry::v1::JwtValidation validation;
  validation.set_connector("corp");
  validation.set_audience("api://mcp");
  // The subject rule is the connector's: a server's editor must not be able to pick another claim of its users.
  validation.set_subject_claim("email");
  Serve({PassthroughServer(validation)});

  ASSERT_OK_AND_ASSIGN(auto response, Call("pass", idp_.Token(clock_.Now(), {{"email", "boss@x.example"}})).response);
  EXPECT_EQ(response.principal().subject(), "corp:ann");
  EXPECT_EQ(response.principal().token_kind(), v1::PASSTHROUGH_JWT);
  EXPECT_THAT(Refusal("pass", idp_.Token(clock_.Now(), {{"aud", "api://other"}})),
              StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AuthenticatorTest, AServersOwnKeysMintOnlyTheServersOwnUsers) {
  const TestIssuer own("https://own.example");
  registry::v1::JwtValidation validation;
  validation.set_jwks_json(own.Jwks());
  validation.set_issuer("https://own.example");
  validation.set_audience("api://mcp");
  Serve({PassthroughServer(validation)});

  ASSERT_OK_AND_ASSIGN(
      auto response,
      Call("pass", own.Token(clock_.Now(), {{"email", "a@x.example"}, {"email_verified", true}})).response);
  EXPECT_EQ(response.principal().subject(), "server-srv_pass:https://own.example|ann");
  EXPECT_FALSE(response.principal().email_verified());

  EXPECT_THAT(Refusal("pass", idp_.Token(clock_.Now())), StatusIs(absl::StatusCode::kUnauthenticated));
  for (const nlohmann::json& change : std::vector<nlohmann::json>{{{"iss", "https://own.example/"}},
                                                                  {{"iss", nullptr}},
                                                                  {{"aud", "api://mcp2"}},
                                                                  {{"exp", nullptr}},
                                                                  {{"sub", nullptr}},
                                                                  {{"cnf", {{"jkt", "x"}}}}}) {
    EXPECT_THAT(Refusal("pass", own.Token(clock_.Now(), change)), StatusIs(absl::StatusCode::kUnauthenticated))
        << change.dump();
  }
}

TEST_F(AuthenticatorTest, AnIssuerCannotBeShapedToLookLikeAnotherUser) {
  const TestIssuer own("https://own.example");
  registry::v1::JwtValidation validation;
  validation.set_jwks_json(own.Jwks());
  Serve({PassthroughServer(validation)});
  EXPECT_THAT(Refusal("pass", own.Token(clock_.Now(), {{"iss", "https://own.example|ann"}})),
              StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AuthenticatorTest, KeysByUrlAreFetchedAndTheirAbsenceIs503) {
  const TestIssuer own("https://own.example");
  registry::v1::JwtValidation validation;
  validation.set_jwks_url("https://own.example/jwks");
  validation.set_subject_claim("uid");
  Serve({PassthroughServer(validation)});
  const std::string token = own.Token(clock_.Now(), {{"uid", "u7"}});

  EXPECT_THAT(Refusal("pass", token), StatusIs(absl::StatusCode::kUnavailable));
  fetcher_.Serve("https://own.example/jwks", own.Jwks());
  clock_.Advance(absl::Seconds(5));
  ASSERT_OK_AND_ASSIGN(auto response, Call("pass", token).response);
  EXPECT_EQ(response.principal().subject(), "server-srv_pass:https://own.example|u7");
}

TEST_F(AuthenticatorTest, BrokenValidationFailsClosed) {
  registry::v1::JwtValidation unparsable;
  unparsable.set_jwks_json("{");
  registry::v1::JwtValidation unknown;
  unknown.set_connector("gone");
  for (const auto& validation : {unparsable, unknown, registry::v1::JwtValidation()}) {
    Serve({PassthroughServer(validation)});
    EXPECT_THAT(Refusal("pass", idp_.Token(clock_.Now())), StatusIs(absl::StatusCode::kUnavailable));
  }
}

TEST_F(AuthenticatorTest, PassthroughWithoutValidationIdentifiesNobody) {
  registry::v1::McpServer server = MakeServer("pass");
  server.mutable_agent_auth()->mutable_passthrough();
  Serve({server});
  EXPECT_THAT(Refusal("pass", idp_.Token(clock_.Now())), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(AuthenticatorTest, OurOwnTokenIsRefusedOnPassthrough) {
  registry::v1::JwtValidation validation;
  validation.set_jwks_json(*keys_.Jwks());
  Serve({InteractiveServer(), PassthroughServer(validation)});
  EXPECT_THAT(Refusal("pass", OurToken({"team"})), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AuthenticatorTest, WithoutSigningKeysNobodyGetsIn) {
  Serve({InteractiveServer()});
  SigningKeys none(vault_, absl::Hours(1));
  const Passports passports(kUrl, none);
  const Authenticator authenticator(
      Authenticator::Parts{servers_, *connectors_, jwks_, tokens_, grants_, revocations_, roles_, passports});
  v1::AuthenticateRequest request;
  request.set_server_uid("srv_inter");
  request.set_server_version(1);
  request.set_token(idp_.Token(clock_.Now(), {{"groups", {"team"}}}));
  EXPECT_THAT(authenticator.Authenticate(request, clock_.Now()).response.status(),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(AuthenticatorTest, TheBootstrapTokenCarriesItsOwnRoles) {
  Serve({InteractiveServer()});
  ASSERT_OK_AND_ASSIGN(
      MintedToken minted,
      tokens_.MintApi({kBootstrapSubject, kCliClientId, "", {"credential-admin", "admin"}}, clock_.Now()));
  ASSERT_OK_AND_ASSIGN(auto caller, authenticator_->AuthenticateApi(minted.token, clock_.Now()));
  EXPECT_THAT(caller.roles, ElementsAre("credential-admin", "admin"));
  EXPECT_THAT(authenticator_->AuthenticateApi(minted.token, clock_.Now() + absl::Hours(1)),
              StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Refusal("inter", minted.token), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AuthenticatorTest, RevokingTheFirstAdministratorEndsTheirToken) {
  Serve({InteractiveServer()});
  const auto mint = [this] {
    return tokens_.MintApi({kBootstrapSubject, kCliClientId, "", {"credential-admin", "admin"}}, clock_.Now());
  };
  ASSERT_OK_AND_ASSIGN(const MintedToken minted, mint());
  ASSERT_THAT(revocations_.RevokeSubject("corp:ann", clock_.Now()), IsOk());
  EXPECT_THAT(authenticator_->AuthenticateApi(minted.token, clock_.Now()), IsOk());
  ASSERT_THAT(revocations_.RevokeSubject(kBootstrapSubject, clock_.Now()), IsOk());
  EXPECT_EQ(ReasonOf(authenticator_->AuthenticateApi(minted.token, clock_.Now()).status()), "revoked");
  clock_.Advance(absl::Seconds(1));
  ASSERT_OK_AND_ASSIGN(const MintedToken later, mint());
  EXPECT_THAT(authenticator_->AuthenticateApi(later.token, clock_.Now()), IsOk());
}

TEST_F(AuthenticatorTest, AnMcpTokenIsNoApiToken) {
  Serve({InteractiveServer()});
  EXPECT_THAT(authenticator_->AuthenticateApi(OurToken({"admins", "team"}), clock_.Now()),
              StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(authenticator_->AuthenticateApi(idp_.Token(clock_.Now()), clock_.Now()),
              StatusIs(absl::StatusCode::kUnauthenticated));
}

}  // namespace
}  // namespace sallyport::authn

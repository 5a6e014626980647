// SPDX-License-Identifier: Apache-2.0
// The credentials of the gateway's own clients: where they may go, and the keys that are made for them.
#include "common/jose/assertion_key.h"
#include "services/registry/catalog_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

class CatalogClientsTest : public CatalogTest {
 protected:
  struct At {
    std::string upstream = "api.example.com";
    std::string token = "idp.example.com";
    std::string auth = R"("clientSecret": {"value": "s3cret"})";
    std::string type = "clientCredentials";
  };
  static v1::McpServer Server(const At& at) {
    const std::string url = at.type == "onBehalfOf" ? "exchangeUrl" : "tokenUrl";
    const std::string client =
        absl::StrCat("{\"", url, R"(": "https://)", at.token, R"(/token", "clientId": "me", )", at.auth, "}");
    const std::string where =
        at.type == "clientCredentials"
            ? absl::StrCat(R"("appAuth": {"clientCredentials": )", client, "}")
            : absl::StrCat(R"("appAuth": {"passthrough": {}}, "outboundHeaders": [{"name": "X-Svc", ")", at.type,
                           "\": ", client, "}]");
    return FromJson<v1::McpServer>(
        absl::StrCat(R"({"slug": "a", "upstreamUrl": "https://)", at.upstream,
                     R"(/mcp", "agentAuth": {"interactive": {"allow": {"everyone": true}}}, )", where, "}"));
  }
  absl::StatusOr<Catalog::Written<v1::McpServer>> Save(const At& at, const Writer& writer) {
    return first_ ? (first_ = false, catalog_->Create(Server(at), false, writer))
                  : catalog_->Update(Server(at), false, writer);
  }
  std::vector<std::string> RefusedFor(const At& at) { return Refused(Save(at, chief_).status()); }
  std::vector<std::string> OriginsOf(const std::string& key) {
    const FakeVault::Held record = vault_.Look(key);
    return record.head == 0 ? std::vector<std::string>() : record.origins.at(record.head);
  }
  std::string Key(const std::string& path) { return "server_secret " + Stored().mcp_servers(0).uid() + "/" + path; }

  bool first_ = true;
  const std::string kept_ = R"("clientSecret": {})";
};
INSTANTIATE_ENGINES(CatalogClientsTest);

TEST_P(CatalogClientsTest, TheSecretIsSealedForTheTokenEndpointAndTheTokensForTheUpstream) {
  for (const auto& [type, path] :
       {std::pair("clientCredentials", "app_auth.client_credentials.client_secret"),
        std::pair("oauth2ServiceToken", "outbound_headers.x-svc.oauth2_service_token.client_secret"),
        std::pair("onBehalfOf", "outbound_headers.x-svc.on_behalf_of.client_secret")}) {
    ASSERT_THAT(Save({.type = type}, admin_), IsOk()) << type;
    EXPECT_THAT(OriginsOf(Key(path)), ElementsAre("https://idp.example.com")) << type;
    EXPECT_THAT(OriginsOf("server_binding " + Stored().mcp_servers(0).uid() + "/binding"),
                ElementsAre("https://api.example.com"));
  }
}

TEST_P(CatalogClientsTest, NeitherEndCanBeMovedWithoutTheSecret) {
  for (const char* type : {"clientCredentials", "oauth2ServiceToken", "onBehalfOf"}) {
    const bool app = std::string(type) == "clientCredentials";
    const std::string at = app ? "appAuth.clientCredentials." : absl::StrCat("outboundHeaders[0].", type, ".");
    const std::string url = at + (std::string(type) == "onBehalfOf" ? "exchangeUrl" : "tokenUrl");
    ASSERT_THAT(Save({.type = type}, admin_), IsOk());
    EXPECT_THAT(RefusedFor({.token = "evil.example.com", .auth = kept_, .type = type}),
                UnorderedElementsAre(at + "clientSecret", url));
    EXPECT_THAT(RefusedFor({.upstream = "evil.example.com", .auth = kept_, .type = type}),
                UnorderedElementsAre(at + "clientSecret", "upstreamUrl"));
    EXPECT_THAT(Save({.auth = kept_, .type = type}, admin_), IsOk()) << "the same places";
    EXPECT_THAT(Save({.upstream = "new.example.com", .type = type}, admin_), IsOk()) << "given again";
    ASSERT_THAT(Save({.type = type}, admin_), IsOk());
  }
}

// Away to another type, elsewhere, and back: what was retired remembers where its tokens went.
TEST_P(CatalogClientsTest, ADetourOverAnotherTypeMovesNothing) {
  ASSERT_THAT(Save({}, admin_), IsOk());
  auto open = FromJson<v1::McpServer>(kOpen);
  open.set_upstream_url("https://evil.example.com/mcp");
  ASSERT_THAT(catalog_->Update(open, false, admin_), IsOk());
  EXPECT_THAT(RefusedFor({.upstream = "evil.example.com", .auth = kept_}),
              UnorderedElementsAre("appAuth.clientCredentials.clientSecret", "upstreamUrl"));
  EXPECT_THAT(Save({.auth = kept_}, admin_), IsOk()) << "back where it was";
}

TEST_P(CatalogClientsTest, AKeyIsMadeOnceAndItsPublicHalfShown) {
  const std::string by_key = R"("clientAuth": "PRIVATE_KEY_JWT")";
  ASSERT_OK_AND_ASSIGN(const auto made, Save({.auth = by_key}, admin_));
  const auto& secret = made.resource.app_auth().client_credentials().private_key();
  EXPECT_TRUE(secret.set());
  EXPECT_THAT(secret.public_jwk(), HasSubstr(R"("crv":"P-256")"));
  EXPECT_FALSE(made.resource.app_auth().client_credentials().client_secret().set());
  const std::string pem = vault_.Look(Key("app_auth.client_credentials.private_key")).versions.at(1);
  ASSERT_OK_AND_ASSIGN(const AssertionKey key, AssertionKey::FromPem(Secret(pem)));
  EXPECT_EQ(key.PublicJwk(), secret.public_jwk());
  EXPECT_EQ(Stored().ShortDebugString().find("BEGIN PRIVATE"), std::string::npos);
  const int64_t revision = Revision();
  ASSERT_OK_AND_ASSIGN(const auto again, Save({.auth = by_key}, admin_));
  EXPECT_EQ(again.resource.app_auth().client_credentials().private_key().public_jwk(), secret.public_jwk());
  EXPECT_EQ(Revision(), revision) << "applied twice, nothing changes";
  ASSERT_OK_AND_ASSIGN(const auto fresh, Save({.auth = by_key + R"(, "privateKey": {"clear": true})"}, admin_));
  EXPECT_NE(fresh.resource.app_auth().client_credentials().private_key().public_jwk(), secret.public_jwk());
}

TEST_P(CatalogClientsTest, AKeyThatIsGivenIsTakenAndABadOneNamed) {
  ASSERT_OK_AND_ASSIGN(const Secret pem, AssertionKey::GeneratePem());
  std::string escaped;
  for (const char c : std::string(pem.Expose())) escaped += c == '\n' ? std::string("\\n") : std::string(1, c);
  const std::string by_key = R"("clientAuth": "PRIVATE_KEY_JWT", "privateKey": {"value": ")";
  ASSERT_THAT(Save({.auth = by_key + escaped + "\"}"}, admin_), IsOk());
  EXPECT_EQ(vault_.Look(Key("app_auth.client_credentials.private_key")).versions.at(1), pem.Expose());
  EXPECT_THAT(RefusedFor({.auth = by_key + "no key\"}"}), ElementsAre("appAuth.clientCredentials.privateKey"));
  EXPECT_THAT(RefusedFor({.auth = by_key + escaped + R"("}, "clientSecret": {"value": "s"})"}),
              ElementsAre("appAuth.clientCredentials.clientSecret"));
  EXPECT_THAT(RefusedFor({.auth = R"("privateKey": {"value": "x"}, "clientSecret": {"value": "s"})"}),
              Contains("appAuth.clientCredentials.privateKey"));
}

// Back and forth between the ways to authenticate: what was stored for the other one is kept for a while.
TEST_P(CatalogClientsTest, ChangingHowTheClientAuthenticatesKeepsTheFormerCredential) {
  ASSERT_THAT(Save({}, admin_), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto by_key, Save({.auth = R"("clientAuth": "PRIVATE_KEY_JWT")"}, admin_));
  const std::string jwk = by_key.resource.app_auth().client_credentials().private_key().public_jwk();
  EXPECT_THAT(Save({.auth = kept_}, admin_), IsOk()) << "the secret is still there";
  ASSERT_OK_AND_ASSIGN(const auto back, Save({.auth = R"("clientAuth": "PRIVATE_KEY_JWT")"}, admin_));
  EXPECT_EQ(back.resource.app_auth().client_credentials().private_key().public_jwk(), jwk);
}

TEST_P(CatalogClientsTest, AStoredCredentialIsReferredToByUidAndOutlivesItsUsers) {
  ASSERT_THAT(Create<v1::Credential>(kCredential), IsOk());
  const std::string uses = R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
      "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"passthrough": {}},
      "outboundHeaders": [{"name": "X-Key", "storedCredential": {"credential": "c"}}]})";
  ASSERT_THAT(Create<v1::McpServer>(uses), IsOk());
  const auto stored = Stored().mcp_servers(0).outbound_headers(0).stored_credential();
  EXPECT_EQ(stored.credential_uid(), Stored().credentials(0).uid());
  EXPECT_EQ(stored.form(), v1::OutboundHeader::StoredCredential::VALUE);
  EXPECT_THAT(catalog_->Delete<v1::Credential>("c", 0, chief_).status().message(), HasSubstr("is used by a"));
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("a", 0, chief_), IsOk());
  EXPECT_THAT(catalog_->Delete<v1::Credential>("c", 0, chief_), IsOk());
}

TEST_P(CatalogClientsTest, ACredentialOfEachUserHasNoValueHereAndStaysTheirs) {
  const std::string own = R"({"slug": "c", "kind": "PASSWORD", "allowedUpstreamOrigins": ["https://api.example.com"])";
  const auto fields = [](const absl::Status& status) { return std::string(status.message()); };
  EXPECT_THAT(fields(Create<v1::Credential>(own + R"(, "owner": "USER", "value": {"value": "k"}})").status()),
              HasSubstr("value: owner USER"));
  ASSERT_THAT(Create<v1::Credential>(own + R"(, "owner": "USER"})"), IsOk());
  EXPECT_THAT(fields(Update<v1::Credential>(own + "}").status()), HasSubstr("owner: cannot be changed"));
  EXPECT_THAT(fields(Update<v1::Credential>(own + R"(, "owner": "USER", "value": {"value": "k"}})").status()),
              HasSubstr("value: owner USER"));
  ASSERT_THAT(Create<v1::McpServer>(R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
      "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"passthrough": {}},
      "outboundHeaders": [{"name": "X-Key", "storedCredential": {"credential": "c"}}]})"),
              IsOk());
  const auto stored = Stored().mcp_servers(0).outbound_headers(0).stored_credential();
  EXPECT_EQ(stored.match(), v1::OutboundHeader::StoredCredential::PER_USER);
  EXPECT_EQ(stored.form(), v1::OutboundHeader::StoredCredential::BASIC);
}

TEST_P(CatalogClientsTest, APasswordGoesOutWithItsUserNameUnlessAPrefixSaysOtherwise) {
  ASSERT_THAT(Create<v1::Credential>(R"({"slug": "c", "kind": "PASSWORD", "username": "ann", "value": {"value": "k"},
      "allowedUpstreamOrigins": ["https://api.example.com"]})"),
              IsOk());
  const auto form = [&](const std::string& more) {
    const auto written = Update<v1::McpServer>(R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
        "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"passthrough": {}},
        "outboundHeaders": [{"name": "X-Key", )" +
                                               more + R"("storedCredential": {"credential": "c"}}]})");
    EXPECT_THAT(written, IsOk());
    return v1::OutboundHeader::StoredCredential::Form_Name(
        written->resource.outbound_headers(0).stored_credential().form());
  };
  ASSERT_THAT(Create<v1::McpServer>(kOpen), IsOk());
  EXPECT_EQ(form(""), "BASIC");
  EXPECT_EQ(form(R"("prefix": "key ", )"), "VALUE");
}

TEST_P(CatalogClientsTest, AChangedCredentialEndsWhatEdgesKeepOfIt) {
  ASSERT_THAT(Create<v1::Credential>(kCredential), IsOk());
  EXPECT_THAT(Stored().invalidations(), IsEmpty());
  ASSERT_THAT(Update<v1::Credential>(R"({"slug": "c", "kind": "API_KEY", "value": {"value": "new"},
      "allowedUpstreamOrigins": ["https://api.example.com"]})"),
              IsOk());
  ASSERT_THAT(Stored().invalidations(), SizeIs(1));
  EXPECT_EQ(Stored().invalidations(0).kind(), v1::Invalidation::SECRET);
}

TEST_P(CatalogClientsTest, ASchemeTypedWithoutItsBlankGetsIt) {
  const auto prefix = [&](const std::string& typed) {
    auto server = FromJson<v1::McpServer>(kOpen);
    auto& header = *server.add_outbound_headers();
    header.set_name("X-Token");
    header.set_prefix(typed);
    header.mutable_forward_caller_token();
    const auto written = catalog_->Update(server, false, chief_);
    EXPECT_THAT(written, IsOk());
    return written->resource.outbound_headers(0).prefix();
  };
  ASSERT_THAT(Create<v1::McpServer>(kOpen), IsOk());
  EXPECT_EQ(prefix("Bearer"), "Bearer ");
  EXPECT_EQ(prefix("bearer "), "bearer ");
  EXPECT_EQ(prefix("Basic"), "Basic ");
  EXPECT_EQ(prefix("key="), "key=");
  EXPECT_EQ(prefix(""), "");
}

}  // namespace
}  // namespace sallyport::registry

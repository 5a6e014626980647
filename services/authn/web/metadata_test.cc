// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/web/web_testing.h"

namespace sallyport::authn::web {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class MetadataTest : public ::testing::Test {
 protected:
  MetadataTest() : browser_(world_) {}
  World world_;
  TestBrowser browser_;
};

TEST_F(MetadataTest, ProtectedResourceIsTheExactAddressOfTheServer) {
  const WebResponse response = browser_.Get("/.well-known/oauth-protected-resource/mcp/github");
  ASSERT_EQ(response.status(), 200);
  EXPECT_EQ(ResponseHeader(response, "content-type"), "application/json");
  EXPECT_EQ(ResponseHeader(response, "access-control-allow-origin"), "*");
  EXPECT_EQ(JsonOf(response), nlohmann::json::parse(R"({"resource":"https://gw.example.com/mcp/github",
    "authorization_servers":["https://gw.example.com"],"scopes_supported":["mcp"],"bearer_methods_supported":["header"],
    "resource_name":"GitHub"})"));
}

TEST_F(MetadataTest, OnlyEnabledInteractiveServersHaveMetadata) {
  for (const char* path :
       {"/mcp/off", "/mcp/raw", "/mcp/nope", "/mcp/", "/mcp", "", "/github", "/mcp/github/x", "/mcp/github/"}) {
    EXPECT_EQ(browser_.Get(absl::StrCat("/.well-known/oauth-protected-resource", path)).status(), 404) << path;
  }
}

TEST_F(MetadataTest, AuthorizationServerSaysTheSameAtEveryProbe) {
  const nlohmann::json plain = JsonOf(browser_.Get("/.well-known/oauth-authorization-server"));
  EXPECT_EQ(plain["issuer"], kPublicUrl);
  EXPECT_EQ(plain["code_challenge_methods_supported"], nlohmann::json::array({"S256"}));
  EXPECT_EQ(plain["authorization_response_iss_parameter_supported"], true);
  EXPECT_EQ(plain["grant_types_supported"], nlohmann::json::array({"authorization_code", "refresh_token"}));
  EXPECT_EQ(plain["token_endpoint_auth_methods_supported"],
            nlohmann::json::array({"none", "client_secret_basic", "client_secret_post"}));
  EXPECT_EQ(plain["scopes_supported"], nlohmann::json::array({"mcp"}));
  EXPECT_FALSE(plain.contains("client_id_metadata_document_supported"));
  EXPECT_EQ(plain, JsonOf(browser_.Get("/.well-known/oauth-authorization-server/mcp/github")));
  nlohmann::json openid = JsonOf(browser_.Get("/.well-known/openid-configuration"));
  EXPECT_EQ(openid, JsonOf(browser_.Get("/.well-known/openid-configuration/mcp/github")));
  EXPECT_EQ(openid.erase("subject_types_supported"), 1U);
  EXPECT_EQ(openid.erase("id_token_signing_alg_values_supported"), 1U);
  EXPECT_EQ(plain, openid);
  EXPECT_EQ(browser_.Get("/.well-known/oauth-authorization-server/mcp/raw").status(), 404);
  EXPECT_EQ(browser_.Get("/.well-known/other").status(), 404);
}

TEST_F(MetadataTest, EveryAddressComesFromThePublicUrlWhateverTheRequestSays) {
  WebRequest request = browser_.Begin("GET", "/.well-known/oauth-authorization-server");
  TestBrowser::Add(request, "host", "evil.example");
  TestBrowser::Add(request, "origin", "https://evil.example");
  const WebResponse response = browser_.Send(request);
  EXPECT_THAT(response.body(), Not(HasSubstr("evil.example")));
}

TEST_F(MetadataTest, KeySetHoldsPublicKeysOnly) {
  const WebResponse response = browser_.Get("/oauth/jwks");
  ASSERT_EQ(response.status(), 200);
  const nlohmann::json keys = JsonOf(response)["keys"];
  ASSERT_GE(keys.size(), 1U);
  for (const nlohmann::json& key : keys) {
    EXPECT_FALSE(key.contains("d"));
    EXPECT_EQ(key["kty"], "EC");
  }
}

TEST_F(MetadataTest, DocumentsAreRead) {
  EXPECT_EQ(browser_.Post("/.well-known/openid-configuration", {}).status(), 405);
}

TEST(MetadataBeforeConfigurationTest, IsUnavailableAndNotAbsent) {
  World world;
  ControlStream empty(grpc::CreateChannel("127.0.0.1:1", grpc::InsecureChannelCredentials()), world.clock);
  Servers none(empty, world.roles, GroupNames());
  AuthnWeb web(Parts{kPublicUrl, absl::Hours(12), world.clock, *world.database, world.sessions, world.grants,
                     world.revocations, none, *world.connectors, world.tokens, world.keys, world.passports,
                     world.sign_in_tokens, world.audit, nullptr});
  WebRequest request;
  request.set_method("GET");
  request.set_path("/.well-known/oauth-protected-resource/mcp/github");
  EXPECT_EQ(web.Handle(request).status(), 503);
}

TEST_F(MetadataTest, StyleSheetIsCss) {
  const WebResponse response = browser_.Get("/login/style.css");
  EXPECT_EQ(response.status(), 200);
  EXPECT_EQ(ResponseHeader(response, "content-type"), "text/css; charset=utf-8");
  EXPECT_EQ(ResponseHeader(response, "x-content-type-options"), "nosniff");
}

TEST_F(MetadataTest, UnknownPagesAreNotFoundAndSafe) {
  const WebResponse response = browser_.Get("/oauth/<script>");
  EXPECT_EQ(response.status(), 404);
  EXPECT_THAT(response.body(), Not(HasSubstr("<script")));
  EXPECT_EQ(ResponseHeader(response, "x-frame-options"), "DENY");
}

}  // namespace
}  // namespace sallyport::authn::web

// SPDX-License-Identifier: Apache-2.0
#include "services/registry/validation.h"

#include "common/jose/jwk.h"
#include "services/registry/header_names.h"
#include "services/registry/validation_testing.h"

namespace sallyport::registry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Case = ValidationCase;

TEST_F(ValidationTest, AMinimalServerAndAppAreFineWithoutWarnings) {
  EXPECT_THAT(Refused(Server()), IsEmpty());
  EXPECT_THAT(Warned(), IsEmpty());
  EXPECT_THAT(Refused(App()), IsEmpty());
  EXPECT_THAT(Warned(), IsEmpty());
}

class RefusedServer : public ValidationTest, public ::testing::WithParamInterface<Case> {};
TEST_P(RefusedServer, NamesTheField) {
  EXPECT_THAT(Refused(Server(GetParam().json)), ElementsAre(GetParam().field)) << Messages();
}
INSTANTIATE_TEST_SUITE_P(
    Fields, RefusedServer,
    ::testing::Values(
        Case{"SlugUpperCase", R"({"slug": "GitHub"})", "slug"},
        Case{"SlugDigitFirst", R"({"slug": "1password"})", "slug"},
        Case{"SlugHyphenFirst", R"({"slug": "-a"})", "slug"}, Case{"SlugUnderscore", R"({"slug": "a_b"})", "slug"},
        Case{"SlugSlash", R"({"slug": "a/b"})", "slug"}, Case{"SlugDot", R"({"slug": "a.b"})", "slug"},
        Case{"SlugTooLong", R"({"slug": "a234567890123456789012345678901234567890123456789012345678901234"})", "slug"},
        Case{"ReservedApi", R"({"slug": "api"})", "slug"}, Case{"ReservedCallback", R"({"slug": "callback"})", "slug"},
        Case{"ReservedConnect", R"({"slug": "connect"})", "slug"},
        Case{"ReservedConsole", R"({"slug": "console"})", "slug"},
        Case{"ReservedHealth", R"({"slug": "health"})", "slug"}, Case{"ReservedOauth", R"({"slug": "oauth"})", "slug"},
        Case{"ReservedWellKnown", R"({"slug": "well-known"})", "slug"},
        Case{"UpstreamStdio", R"({"upstreamUrl": "npx -y server"})", "upstreamUrl"},
        Case{"UpstreamFtp", R"({"upstreamUrl": "ftp://api.example.com/"})", "upstreamUrl"},
        Case{"UpstreamUserInfo", R"({"upstreamUrl": "https://me:pw@api.example.com/"})", "upstreamUrl"},
        Case{"UpstreamFragment", R"({"upstreamUrl": "https://api.example.com/#x"})", "upstreamUrl"},
        Case{"UpstreamMetadata", R"({"upstreamUrl": "http://169.254.169.254/latest"})", "upstreamUrl"},
        Case{"UpstreamMetadataMapped", R"({"upstreamUrl": "http://[::ffff:169.254.169.254]/"})", "upstreamUrl"},
        Case{"UpstreamMetadataName", R"({"upstreamUrl": "https://metadata.google.internal/"})", "upstreamUrl"},
        Case{"UpstreamLinkLocal6", R"({"upstreamUrl": "https://[fe80::1]/"})", "upstreamUrl"},
        Case{"UpstreamPrivateNotListed", R"({"upstreamUrl": "https://192.168.1.1/"})", "upstreamUrl"},
        Case{"UpstreamHttpPublic", R"({"upstreamUrl": "http://93.184.216.34/"})", "upstreamUrl"},
        Case{"UpstreamDecimalHost", R"({"upstreamUrl": "http://2130706433/"})", "upstreamUrl"},
        Case{"UpstreamSmtpPort", R"({"upstreamUrl": "https://api.example.com:25/"})", "upstreamUrl"},
        Case{"TwoAtSigns", R"({"agentAuth": {"interactive": {"allow": {"emails": ["a@b", "a@b@c"]}}}})",
             "agentAuth.interactive.allow.emails[1]"},
        Case{"EmptyEmail", R"({"agentAuth": {"interactive": {"allow": {"emails": [""]}}}})",
             "agentAuth.interactive.allow.emails[0]"},
        Case{"DomainWithAt", R"({"agentAuth": {"interactive": {"allow": {"emailDomains": ["@example.com"]}}}})",
             "agentAuth.interactive.allow.emailDomains[0]"},
        Case{"DomainWildcard", R"({"agentAuth": {"interactive": {"allow": {"emailDomains": ["*.example.com"]}}}})",
             "agentAuth.interactive.allow.emailDomains[0]"},
        Case{"SubjectWithoutConnector", R"({"agentAuth": {"interactive": {"allow": {"subjects": ["ada"]}}}})",
             "agentAuth.interactive.allow.subjects[0]"},
        Case{"UnknownConnector",
             R"({"agentAuth": {"interactive": {"allow": {"everyone": true}, "trustedConnectors": [{"connector": "nope",
             "audiences": ["a"]}]}}})",
             "agentAuth.interactive.trustedConnectors[0].connector"},
        Case{"LocalConnector",
             R"({"agentAuth": {"interactive": {"allow": {"everyone": true}, "trustedConnectors": [{"connector": "users",
             "audiences": ["a"]}]}}})",
             "agentAuth.interactive.trustedConnectors[0].connector"},
        Case{"LocalConnectorForValidation",
             R"({"agentAuth": {"passthrough": {"jwtValidation": {"connector": "users", "audience": "a"}}}})",
             "agentAuth.passthrough.jwtValidation.connector"},
        Case{"ConnectorWithoutAudience",
             R"({"agentAuth": {"interactive": {"allow": {"everyone": true}, "trustedConnectors": [{"connector":
             "okta"}]}}})",
             "agentAuth.interactive.trustedConnectors[0].audiences"},
        Case{"ConnectorTwice",
             R"({"agentAuth": {"interactive": {"allow": {"everyone": true}, "trustedConnectors": [{"connector": "okta",
             "audiences": ["a"]}, {"connector": "okta", "audiences": ["b"]}]}}})",
             "agentAuth.interactive.trustedConnectors[1].connector"},
        Case{"EmptyAudience",
             R"({"agentAuth": {"interactive": {"allow": {"everyone": true}, "trustedConnectors": [{"connector": "okta",
             "audiences": ["a", ""]}]}}})",
             "agentAuth.interactive.trustedConnectors[0].audiences"},
        Case{"ValidationWithoutKeys", R"({"agentAuth": {"passthrough": {"jwtValidation": {"audience": "a"}}}})",
             "agentAuth.passthrough.jwtValidation"},
        Case{"IssuerWithConnector",
             R"({"agentAuth": {"passthrough": {"jwtValidation": {"connector": "okta", "audience": "a", "issuer":
             "https://i"}}}})",
             "agentAuth.passthrough.jwtValidation.issuer"},
        Case{"SubjectThatCanChange",
             R"({"agentAuth": {"passthrough": {"jwtValidation": {"jwksUrl": "https://idp.example.com/", "audience": "a",
             "subjectClaim": "email"}}}})",
             "agentAuth.passthrough.jwtValidation.subjectClaim"},
        Case{"SubjectWithAPartThatCanChange",
             R"({"agentAuth": {"passthrough": {"jwtValidation": {"jwksUrl": "https://idp.example.com/", "audience": "a",
             "subjectClaim": "tid+preferred_username"}}}})",
             "agentAuth.passthrough.jwtValidation.subjectClaim"},
        Case{
            "JwksUrlHttp",
            R"({"agentAuth": {"passthrough": {"jwtValidation": {"jwksUrl": "http://idp.example.com/", "audience": "a"}}}})",
            "agentAuth.passthrough.jwtValidation.jwksUrl"},
        Case{"JwksUrlPrivate",
             R"({"agentAuth": {"passthrough": {"jwtValidation": {"jwksUrl": "https://10.0.0.1/", "audience": "a"}}}})",
             "agentAuth.passthrough.jwtValidation.jwksUrl"},
        Case{"JwksGarbage", R"({"agentAuth": {"passthrough": {"jwtValidation": {"jwksJson": "{}", "audience": "a"}}}})",
             "agentAuth.passthrough.jwtValidation.jwksJson"},
        Case{
            "JwksSymmetric",
            R"({"agentAuth": {"passthrough": {"jwtValidation": {"jwksJson": "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}",
             "audience": "a"}}}})",
            "agentAuth.passthrough.jwtValidation.jwksJson"},
        Case{"BadGlob", R"({"restrictedInboundHeaders": ["x-a*", "x b"]})", "restrictedInboundHeaders[1]"},
        Case{"EmptyGlob", R"({"restrictedInboundHeaders": [""]})", "restrictedInboundHeaders[0]"},
        Case{"OAuthWithoutApp", R"({"appAuth": {"oauthAuthorization": {}}})", "appAuth.oauthAuthorization.app"},
        Case{"OAuthScopeWithBlank", R"({"appAuth": {"oauthAuthorization": {"app": "github", "scopes": ["a", "b c"]}}})",
             "appAuth.oauthAuthorization.scopes[1]"},
        Case{"OAuthScopeWithComma", R"({"appAuth": {"oauthAuthorization": {"app": "github", "scopes": ["a,b"]}}})",
             "appAuth.oauthAuthorization.scopes[0]"},
        Case{"OAuthScopeWithQuote", R"({"appAuth": {"oauthAuthorization": {"app": "github", "scopes": ["a\"b"]}}})",
             "appAuth.oauthAuthorization.scopes[0]"},
        Case{"OAuthScopeWithTab", R"({"appAuth": {"oauthAuthorization": {"app": "github", "scopes": ["a\tb"]}}})",
             "appAuth.oauthAuthorization.scopes[0]"},
        Case{"OAuthScopeBeyondAscii", R"({"appAuth": {"oauthAuthorization": {"app": "github", "scopes": ["\u00fc"]}}})",
             "appAuth.oauthAuthorization.scopes[0]"},
        Case{"OAuthAccountWithSlash", R"({"appAuth": {"oauthAuthorization": {"app": "github", "account": "a/b"}}})",
             "appAuth.oauthAuthorization.account"},
        Case{"OAuthAccountOfNoLabel", R"({"appAuth": {"oauthAuthorization": {"app": "github", "account": "~work"}}})",
             "appAuth.oauthAuthorization.account"},
        Case{"OAuthUnknownApp", R"({"appAuth": {"oauthAuthorization": {"app": "gitlab"}}})",
             "appAuth.oauthAuthorization.app"},
        Case{"ApiKeyWithoutName", R"({"appAuth": {"apiKey": {}}})", "appAuth.apiKey.name"},
        Case{"ApiKeyBadName", R"({"appAuth": {"apiKey": {"name": "X Key"}}})", "appAuth.apiKey.name"},
        Case{"ApiKeyHost", R"({"appAuth": {"apiKey": {"name": "Host"}}})", "appAuth.apiKey.name"},
        Case{"ApiKeyQueryPrefix", R"({"appAuth": {"apiKey": {"name": "k", "location": "QUERY", "prefix": "T "}}})",
             "appAuth.apiKey.prefix"},
        Case{"ApiKeyQueryNameless", R"({"appAuth": {"apiKey": {"location": "QUERY"}}})", "appAuth.apiKey.name"},
        Case{"ApiKeyPrefixNewline", R"({"appAuth": {"apiKey": {"name": "X-Key", "prefix": "a\r\nb"}}})",
             "appAuth.apiKey.prefix"},
        Case{"BasicWithoutUser", R"({"appAuth": {"basic": {}}})", "appAuth.basic.username"},
        Case{"BasicColon", R"({"appAuth": {"basic": {"username": "a:b"}}})", "appAuth.basic.username"},
        Case{"BasicNewline", R"({"appAuth": {"basic": {"username": "a\nb"}}})", "appAuth.basic.username"},
        Case{"UnknownLocation", R"({"appAuth": {"apiKey": {"name": "X-Key", "location": 7}}})",
             "appAuth.apiKey.location"},
        Case{"NoSource", R"({"outboundHeaders": [{"name": "X-A"}]})", "outboundHeaders[0]"},
        Case{"NoHeaderName", R"({"outboundHeaders": [{"literal": {"value": "v"}}]})", "outboundHeaders[0].name"},
        Case{"PseudoHeader", R"({"outboundHeaders": [{"name": ":authority", "literal": {"value": "v"}}]})",
             "outboundHeaders[0].name"},
        Case{"HeaderPrefixNul",
             R"({"outboundHeaders": [{"name": "X-A", "prefix": "a\u0000", "literal": {"value": "v"}}]})",
             "outboundHeaders[0].prefix"},
        Case{"EmptyLiteral", R"({"outboundHeaders": [{"name": "X-A", "literal": {}}]})", "outboundHeaders[0].literal"},
        Case{"LiteralNewline", R"({"outboundHeaders": [{"name": "X-A", "literal": {"value": "a\r\nX-B: c"}}]})",
             "outboundHeaders[0].literal.value"},
        Case{"ClaimMissing", R"({"outboundHeaders": [{"name": "X-A", "callerIdentity": {}}]})",
             "outboundHeaders[0].callerIdentity.claim"},
        Case{"FirstByteTooLong", R"({"policy": {"firstByteTimeout": "601s"}})", "policy.firstByteTimeout"},
        Case{"FirstByteTooShort", R"({"policy": {"firstByteTimeout": "0.5s"}})", "policy.firstByteTimeout"},
        Case{"ConnectTooLong", R"({"policy": {"connectTimeout": "31s"}})", "policy.connectTimeout"},
        Case{"ConnectNegative", R"({"policy": {"connectTimeout": "-1s"}})", "policy.connectTimeout"},
        Case{"BodyTooLarge", R"({"policy": {"bodyLimit": "16777217"}})", "policy.bodyLimit"},
        Case{"IdentityHeadersWithInteractive",
             R"({"appAuth": {"passthrough": {}}, "policy": {"forwardIdentityHeaders": true}})",
             "policy.forwardIdentityHeaders"},
        Case{"IdentityHeadersWithACredential",
             R"({"agentAuth": {"passthrough": {}}, "policy": {"forwardIdentityHeaders": true}})",
             "policy.forwardIdentityHeaders"},
        Case{"ApiKeyNtlm", R"({"appAuth": {"apiKey": {"name": "Authorization", "prefix": "NTLM "}}})",
             "appAuth.apiKey.prefix"},
        Case{"ForwardedNegotiate",
             R"({"appAuth": {"apiKey": {"name": "X-Key"}}, "outboundHeaders": [{"name": "authorization",
             "prefix": "negotiate ", "forwardCallerToken": {}}]})",
             "outboundHeaders[0].prefix"},
        Case{"BodyNegative", R"({"policy": {"bodyLimit": "-1"}})", "policy.bodyLimit"},
        Case{"CidrBits", R"({"policy": {"allowedClientNetworks": ["10.0.0.0/8", "10.0.0.1/8"]}})",
             "policy.allowedClientNetworks[1]"},
        Case{"CidrName", R"({"policy": {"allowedClientNetworks": ["example.com"]}})",
             "policy.allowedClientNetworks[0]"},
        Case{"TwoAddresses", R"({"secretUpstreamUrl": {"value": "https://hooks.example/x"}})", "secretUpstreamUrl"},
        Case{"NoAuthorities", R"({"policy": {"tls": {"caBundle": "x"}}})", "policy.tls.caBundle"}),
    CaseName);

TEST_F(ValidationTest, NothingAtAllNamesEveryRequiredField) {
  EXPECT_THAT(Refused(v1::McpServer()), ElementsAre("slug", "upstreamUrl", "agentAuth", "appAuth"));
  EXPECT_THAT(Refused(v1::App()), ElementsAre("slug", "authorizationUrl", "tokenUrl", "clientId"));
  EXPECT_THAT(Refused(v1::Credential()), ElementsAre("slug", "kind", "allowedUpstreamOrigins"));
}

TEST_F(ValidationTest, TextLimitsCountCharactersNotBytes) {
  v1::McpServer server = Server();
  std::string snow;
  for (int i = 0; i < 100; ++i) snow += "\xe2\x98\x83";
  server.set_display_name(snow);
  EXPECT_THAT(Refused(server), IsEmpty());
  server.set_display_name(snow + "x");
  EXPECT_THAT(Refused(server), ElementsAre("displayName"));
  server.clear_display_name();
  server.set_description(std::string(1001, 'x'));
  EXPECT_THAT(Refused(server), ElementsAre("description"));
}

TEST_F(ValidationTest, EveryHeaderThatBelongsToFramingOrTheGatewayIsRefused) {
  for (const char* name :
       {"Host", "Content-Length", "content_length", "Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding",
        "Upgrade", "Proxy-Connection", "Forwarded", "X-Forwarded-For", "x_forwarded_host", "Mcp-Session-Id",
        "mcp-protocol-version", "X-Sallyport-Authorization", "x_sallyport_anything"}) {
    v1::McpServer server = Server();
    v1::OutboundHeader& header = *server.add_outbound_headers();
    header.set_name(name);
    header.mutable_literal()->set_value("v");
    EXPECT_THAT(Refused(server), ElementsAre("outboundHeaders[0].name")) << name;
    v1::McpServer by_key = Server(R"({"appAuth": {"apiKey": {}}})");
    by_key.mutable_app_auth()->mutable_api_key()->set_name(name);
    EXPECT_THAT(Refused(by_key), ElementsAre("appAuth.apiKey.name")) << name;
  }
}

TEST_F(ValidationTest, NamesTheEdgeWouldNotCompileAreRefused) {
  for (const std::string& name : {std::string("X-Team*"), std::string(129, 'x')}) {
    v1::McpServer server = Server();
    v1::OutboundHeader& header = *server.add_outbound_headers();
    header.set_name(name);
    header.mutable_literal()->set_value("v");
    EXPECT_THAT(Refused(server), ElementsAre("outboundHeaders[0].name")) << name;
    v1::McpServer by_key = Server(R"({"appAuth": {"apiKey": {}}})");
    by_key.mutable_app_auth()->mutable_api_key()->set_name(name);
    EXPECT_THAT(Refused(by_key), ElementsAre("appAuth.apiKey.name")) << name;
  }
  v1::McpServer server = Server();
  server.add_restricted_inbound_headers(std::string(129, 'x'));
  EXPECT_THAT(Refused(server), ElementsAre("restrictedInboundHeaders[0]"));
}

TEST_F(ValidationTest, TwoWritersOfOneHeaderAreBothNamed) {
  EXPECT_THAT(Refused(Server(R"({"outboundHeaders": [{"name": "X-Team", "literal": {"value": "a"}},
                                                     {"name": "x_team", "literal": {"value": "b"}}]})")),
              ElementsAre("outboundHeaders[1].name"));
  EXPECT_THAT(Messages(), HasSubstr("written by outboundHeaders[0]"));

  EXPECT_THAT(Refused(Server(R"({"outboundHeaders": [{"name": "authorization", "literal": {"value": "a"}}]})")),
              ElementsAre("outboundHeaders[0].name"));
  EXPECT_THAT(Messages(), HasSubstr("written by appAuth"));

  EXPECT_THAT(Refused(Server(R"({"appAuth": {"apiKey": {"name": "X_Api_Key"}},
                                 "outboundHeaders": [{"name": "x-api-key", "literal": {"value": "a"}}]})")),
              ElementsAre("outboundHeaders[0].name"));
}

TEST_F(ValidationTest, AuthorizationIsAnOrdinaryRowWhereAppAuthDoesNotWriteIt) {
  const std::string row = R"("outboundHeaders": [{"name": "Authorization", "literal": {"value": "a"}}])";
  EXPECT_THAT(Refused(Server(R"({"appAuth": {"apiKey": {"name": "X-Key"}}, )" + row + "}")), IsEmpty());
  EXPECT_THAT(Refused(Server(R"({"appAuth": {"apiKey": {"name": "key", "location": "QUERY"}}, )" + row + "}")),
              IsEmpty());
  EXPECT_THAT(Refused(Server(R"({"appAuth": {"passthrough": {}}, )" + row + "}")),
              ElementsAre("outboundHeaders[0].name"))
      << "the caller's own goes there";
}

TEST_F(ValidationTest, MoreThanTwentyRowsAreRefused) {
  v1::McpServer server = Server();
  for (int i = 0; i < 21; ++i) {
    v1::OutboundHeader& header = *server.add_outbound_headers();
    header.set_name("X-" + std::to_string(i));
    header.mutable_literal()->set_value("v");
  }
  EXPECT_THAT(Refused(server), ElementsAre("outboundHeaders"));
}

TEST_F(ValidationTest, PerUserSourcesNeedAVerifiedCaller) {
  const std::string open = R"("agentAuth": {"passthrough": {}})";
  const std::string oauth = R"("appAuth": {"oauthAuthorization": {"app": "github"}})";
  const std::string identity =
      R"("appAuth": {"passthrough": {}}, "outboundHeaders": [{"name": "X-A", "callerIdentity": {"claim": "sub"}}])";
  const std::string own_keys =
      R"("agentAuth": {"passthrough": {"jwtValidation": {"jwksUrl": "https://idp.example.com/jwks", "audience": "a"}}})";
  const std::string connector =
      R"("agentAuth": {"passthrough": {"jwtValidation": {"connector": "okta", "audience": "a"}}})";
  EXPECT_THAT(Refused(Server("{" + open + "," + oauth + "}")), ElementsAre("appAuth.oauthAuthorization"));
  EXPECT_THAT(Refused(Server("{" + open + "," + identity + "}")), ElementsAre("outboundHeaders[0].callerIdentity"));
  EXPECT_THAT(Refused(Server("{" + own_keys + "," + oauth + "}")), ElementsAre("appAuth.oauthAuthorization"))
      << "no browser session can be that subject";
  EXPECT_THAT(Refused(Server("{" + own_keys + "," + identity + "}")), IsEmpty());
  EXPECT_THAT(Refused(Server("{" + connector + "," + oauth + "}")), IsEmpty());
  EXPECT_THAT(Refused(Server("{" + oauth + "}")), IsEmpty());
}

TEST_F(ValidationTest, APassthroughCallerHasNoIdToken) {
  const std::string row = R"("outboundHeaders": [{"name": "X-A", "forwardCallerToken": {"token": "ID"}}])";
  EXPECT_THAT(Refused(Server("{" + row + "}")), IsEmpty());
  EXPECT_THAT(Refused(Server(R"({"agentAuth": {"passthrough": {}}, )" + row + "}")),
              ElementsAre("outboundHeaders[0].forwardCallerToken.token"));
}

TEST_F(ValidationTest, PlainHttpToANameIsRefusedWhereTheEgressProxyResolvesIt) {
  const v1::McpServer named = Server(R"({"upstreamUrl": "http://mcp.example:3000/"})");
  const v1::McpServer literal = Server(R"({"upstreamUrl": "http://10.0.0.1:3000/"})");
  EXPECT_THAT(Refused(named), IsEmpty());
  context_.egress_proxy =
      *EgressProxy::Create({.url = "http://proxy.example:3128", .no_proxy = {".internal"}}, "proxy");
  EXPECT_THAT(Refused(named), ElementsAre("upstreamUrl"));
  EXPECT_THAT(Refused(literal), IsEmpty());
  EXPECT_THAT(Refused(Server(R"({"upstreamUrl": "http://mcp.internal:3000/"})")), IsEmpty());
  EXPECT_THAT(Refused(Server(R"({"upstreamUrl": "https://mcp.example/"})")), IsEmpty());
}

TEST_F(ValidationTest, AnAppsTokensGoToItsOriginsOnly) {
  const v1::McpServer server = Server(R"({"appAuth": {"oauthAuthorization": {"app": "github"}}})");
  app_.add_allowed_upstream_origins("https://other.example.com");
  EXPECT_THAT(Refused(server), ElementsAre("upstreamUrl"));
  app_.add_allowed_upstream_origins("https://api.example.com");
  EXPECT_THAT(Refused(server), IsEmpty());
  app_.set_allowed_upstream_origins(1, "https://api.example.com:8443");
  EXPECT_THAT(Refused(server), ElementsAre("upstreamUrl")) << "another port is another origin";
}

TEST_F(ValidationTest, UnknownConnectorsPassOnlyWhileAuthnCannotBeAsked) {
  const v1::McpServer server = Server(R"({"agentAuth": {"passthrough": {"jwtValidation": {"connector": "nope",
                                          "audience": "a"}}}})");
  EXPECT_THAT(Refused(server), ElementsAre("agentAuth.passthrough.jwtValidation.connector"));
  context_.connectors = std::nullopt;
  EXPECT_THAT(Refused(server), IsEmpty());
}

TEST_F(ValidationTest, AKeySetWithOneUsableKeyIsAccepted) {
  auto key = PrivateKey::GenerateP256();
  v1::McpServer server = Server(R"({"agentAuth": {"passthrough": {"jwtValidation": {"audience": "a"}}}})");
  auto& jwt = *server.mutable_agent_auth()->mutable_passthrough()->mutable_jwt_validation();
  jwt.set_jwks_json("{\"keys\": [" + key->public_key().ToJwk() + "]}");
  EXPECT_THAT(Refused(server), IsEmpty()) << Messages();
  jwt.set_jwks_json(jwt.jwks_json() + std::string(256 << 10, ' '));
  EXPECT_THAT(Refused(server), ElementsAre("agentAuth.passthrough.jwtValidation.jwksJson"));
}

TEST_F(ValidationTest, WarnsOfWhatIsLegalAndProbablyNotMeant) {
  EXPECT_THAT(Refused(Server(R"({"agentAuth": {"interactive": {}}})")), IsEmpty());
  EXPECT_THAT(Warned(), ElementsAre("agentAuth.interactive.allow"));
  EXPECT_THAT(Refused(Server(R"({"agentAuth": {"passthrough": {"jwtValidation": {"connector": "okta"}}}})")),
              IsEmpty());
  EXPECT_THAT(Warned(), ElementsAre("agentAuth.passthrough.jwtValidation.audience"));
  EXPECT_THAT(Refused(Server(R"({"upstreamUrl": "http://10.1.2.3/mcp"})")), IsEmpty());
  EXPECT_THAT(Warned(), ElementsAre("upstreamUrl"));
  EXPECT_THAT(Refused(Server(R"({"upstreamUrl": "https://api.example.com/sse"})")), IsEmpty());
  EXPECT_THAT(Warned(), ElementsAre("upstreamUrl"));
  EXPECT_THAT(Refused(Server(R"({"upstreamUrl": "https://api.example.com/mcp?key=abc"})")), IsEmpty());
  ASSERT_THAT(Warned(), ElementsAre("upstreamUrl"));
  EXPECT_THAT(findings_.warnings[0].message(), HasSubstr("appAuth.apiKey"));
}

TEST_F(ValidationTest, ClaimsNobodyWhoSignedInHasAreRefusedUnlessATrustedTokenMayBringThem) {
  const auto server = [](const std::string& agent_auth, const std::string& claim) {
    return Server(R"({"agentAuth": )" + agent_auth +
                  R"(, "outboundHeaders": [{"name": "X-A", "callerIdentity": {"claim": ")" + claim + R"("}}]})");
  };
  const std::string sign_in = R"({"interactive": {"allow": {"everyone": true}}})";
  const std::string trusting = R"({"interactive": {"allow": {"everyone": true},
      "trustedConnectors": [{"connector": "okta", "audiences": ["a"]}]}})";
  const std::string validating = R"({"passthrough": {"jwtValidation": {"connector": "okta", "audience": "a"}}})";
  for (const char* claim : {"sub", "email", "email_verified", "name", "groups"}) {
    EXPECT_THAT(Refused(server(sign_in, claim)), IsEmpty()) << claim;
    EXPECT_THAT(Refused(server(trusting, claim)), IsEmpty()) << claim;
    EXPECT_THAT(Warned(), IsEmpty()) << claim;
  }
  EXPECT_THAT(Refused(server(sign_in, "department")), ElementsAre("outboundHeaders[0].callerIdentity.claim"));
  EXPECT_THAT(Refused(server(trusting, "department")), IsEmpty());
  EXPECT_THAT(Warned(), ElementsAre("outboundHeaders[0].callerIdentity.claim"));
  EXPECT_THAT(Refused(server(validating, "department")), IsEmpty());
  EXPECT_THAT(Warned(), IsEmpty());
}

TEST_F(ValidationTest, IdentityHeadersGoOnWithPassthroughInBothDirections) {
  const std::string through = R"("agentAuth": {"passthrough": {}}, "appAuth": {"passthrough": {}})";
  EXPECT_THAT(Refused(Server("{" + through + R"(, "policy": {"forwardIdentityHeaders": true}})")), IsEmpty());
  EXPECT_THAT(Warned(), ElementsAre("policy.forwardIdentityHeaders")) << "whoever calls can say who they are";
  EXPECT_THAT(Refused(Server("{" + through + R"(, "policy": {"forwardIdentityHeaders": true,
                                                  "allowedClientNetworks": ["10.0.0.0/8"]}})")),
              IsEmpty());
  EXPECT_THAT(Warned(), IsEmpty());
  EXPECT_THAT(
      Refused(Server(R"({"agentAuth": {"passthrough": {"jwtValidation": {"connector": "okta", "audience": "a"}}},
                                 "appAuth": {"passthrough": {}}, "policy": {"forwardIdentityHeaders": true}})")),
      IsEmpty());
  EXPECT_THAT(Warned(), IsEmpty());
  EXPECT_THAT(Refused(Server(R"({"policy": {"forwardIdentityHeaders": true}})")),
              ElementsAre("policy.forwardIdentityHeaders"));
  EXPECT_THAT(Messages(), HasSubstr("set agentAuth.passthrough and appAuth.passthrough"));
}

TEST_F(ValidationTest, AClaimIsWrittenAsTextOrJsonAndInNoOtherFormat) {
  const auto server = [](const std::string& format) {
    return Server(R"({"agentAuth": {"interactive": {"allow": {"everyone": true}}},
        "outboundHeaders": [{"name": "X-A", "callerIdentity": {"claim": "groups", "format": )" +
                  format + "}}]}");
  };
  for (const char* format : {R"("TEXT")", R"("JSON")"}) {
    EXPECT_THAT(Refused(server(format)), IsEmpty()) << format;
  }
  EXPECT_THAT(Refused(server("7")), ElementsAre("outboundHeaders[0].callerIdentity.format"));
}

TEST_F(ValidationTest, AnOpenServerWithAStoredCredentialSavesWithAWarning) {
  for (const char* app_auth :
       {R"({"bearer": {}})", R"({"apiKey": {"name": "X-Key"}})", R"({"basic": {"username": "u"}})"}) {
    const std::string server = std::string(R"("agentAuth": {"passthrough": {}}, "appAuth": )") + app_auth;
    EXPECT_THAT(Refused(Server("{" + server + "}")), IsEmpty());
    EXPECT_THAT(Warned(), ElementsAre("agentAuth.passthrough")) << app_auth;
    EXPECT_THAT(Refused(Server("{" + server + R"(, "policy": {"allowedClientNetworks": ["10.0.0.0/8"]}})")), IsEmpty());
    EXPECT_THAT(Warned(), IsEmpty()) << "the remedy it names";
  }
  EXPECT_THAT(Refused(Server(R"({"agentAuth": {"passthrough": {}}, "appAuth": {"passthrough": {}}})")), IsEmpty());
  EXPECT_THAT(Warned(), IsEmpty()) << "nothing of ours goes out";
  EXPECT_THAT(Refused(Server(R"({"agentAuth": {"passthrough": {}}, "appAuth": {"passthrough": {}},
                                 "outboundHeaders": [{"name": "X-A", "literal": {"secretValue": {}}}]})")),
              IsEmpty());
  EXPECT_THAT(Warned(), ElementsAre("agentAuth.passthrough"));
}

}  // namespace
}  // namespace sallyport::registry

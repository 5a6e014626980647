// SPDX-License-Identifier: Apache-2.0
#include "services/registry/credentials/credentials.h"

#include "absl/strings/str_cat.h"
#include <google/protobuf/text_format.h>

#include "services/registry/validation_testing.h"

namespace sallyport::registry {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kInteractive[] = R"("agentAuth": {"interactive": {"allow": {"everyone": true}}})";
constexpr char kJwt[] = R"("agentAuth": {"passthrough": {"jwtValidation": {"connector": "okta", "audience": "a"}}})";
constexpr char kOpen[] = R"("agentAuth": {"passthrough": {}})";
constexpr char kAny[] = R"("appAuth": {"passthrough": {}})";

// A line for each piece.
std::vector<std::string> Plan(const std::string& fields) {
  const v1::CredentialPlan plan = LowerCredentials(FromJson<v1::McpServer>("{" + fields + "}"));
  std::vector<std::string> lines;
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  for (const auto& piece : plan.pieces()) printer.PrintToString(piece, &lines.emplace_back());
  return lines;
}
std::string Header(const std::string& source, const std::string& prefix = "") {
  return absl::StrCat(R"("outboundHeaders": [{"name": "X-Out", "prefix": ")", prefix, "\", ", source, "}]");
}

TEST(LowerCredentials, ValuesThatSomebodyEntered) {
  const std::string secret = R"({"set": true, "version": "4", "vaultRecord": "srv_a/r"})";
  const std::string stored = R"(stored_secret { record: "srv_a/r" version: 4 } )";
  EXPECT_THAT(
      Plan(R"("appAuth": {"apiKey": {"name": "X-Key", "prefix": "Token ", "value": )" + secret + "}}"),
      ElementsAre(R"(id: "app_auth" location: HEADER name: "X-Key" prefix: "Token " encoding: PLAIN scope: ORG )"
                  R"(renderer: BROKER callers: ANY )" +
                  stored));
  EXPECT_THAT(Plan(R"("appAuth": {"apiKey": {"name": "key", "location": "QUERY", "value": )" + secret + "}}"),
              ElementsAre(R"(id: "app_auth" location: QUERY name: "key" encoding: PLAIN scope: ORG renderer: BROKER )"
                          R"(callers: ANY )" +
                          stored));
  EXPECT_THAT(Plan(R"("appAuth": {"bearer": {"token": )" + secret + "}}"),
              ElementsAre(R"(id: "app_auth" location: HEADER name: "Authorization" prefix: "Bearer " encoding: PLAIN )"
                          R"(scope: ORG renderer: BROKER callers: ANY )" +
                          stored));
  EXPECT_THAT(Plan(R"("appAuth": {"basic": {"username": "ann", "password": )" + secret + "}}"),
              ElementsAre(R"(id: "app_auth" location: HEADER name: "Authorization" encoding: BASIC username: "ann" )"
                          R"(scope: ORG renderer: BROKER callers: ANY )" +
                          stored));
  EXPECT_THAT(Plan(R"("appAuth": {"bearer": {}})"), ElementsAre(::testing::HasSubstr("stored_secret { } ")))
      << "nothing is stored: the broker says so";
}

TEST(LowerCredentials, AnAccountOfSeveralIsNamedByItsLabel) {
  const auto account = [](const std::string& label) {
    return std::string(kInteractive) + R"(, "appAuth": {"oauthAuthorization": {"app": "github", "appUid": "app_1", )" +
           R"("scopes": ["repo"])" + label + "}}";
  };
  const std::string head = R"(id: "app_auth" location: HEADER name: "Authorization" prefix: "Bearer " encoding: PLAIN )"
                           R"(scope: USER renderer: BROKER callers: ANY user_connection { app_uid: "app_1" )"
                           R"(app_slug: "github" )";
  EXPECT_THAT(Plan(account("")), ElementsAre(head + R"(scopes: "repo" } )"));
  EXPECT_THAT(Plan(account(R"(, "account": "work")")), ElementsAre(head + R"(label: "work" scopes: "repo" } )"));
}

TEST(LowerCredentials, WhereRequestsGoAndWhatTheConnectionShows) {
  const std::string stored = R"({"set": true, "version": "4", "vaultRecord": "srv_a/r"})";
  const std::string rest =
      R"(encoding: PLAIN scope: ORG renderer: BROKER callers: ANY stored_secret { record: "srv_a/r" version: 4 } )";
  EXPECT_THAT(Plan(std::string(kAny) + R"(, "secretUpstreamUrl": )" + stored),
              Contains(R"(id: "upstream_url" location: URL )" + rest));
  EXPECT_THAT(Plan(std::string(kAny) + R"(, "policy": {"tls": {"clientCert": )" + stored + "}}"),
              Contains(R"(id: "tls" location: CLIENT_CERTIFICATE )" + rest));
  EXPECT_THAT(
      Plan(std::string(kAny) + R"(, "secretUpstreamUrl": {})"),
      Contains(::testing::AllOf(::testing::HasSubstr("location: URL"), ::testing::HasSubstr("stored_secret { }"))))
      << "nothing is stored: the broker says so";
  for (const char* none : {"{}", R"({"caBundle": "x"})", R"({"clientCert": {}})"}) {
    EXPECT_THAT(Plan(std::string(kAny) + R"(, "upstreamUrl": "https://a.example", "policy": {"tls": )" + none + "}"),
                ::testing::SizeIs(1))
        << none;
  }
}

TEST(LowerCredentials, HeadersBesideAppAuthentication) {
  const std::string any = std::string(kAny) + ", " + kInteractive + ", ";
  const std::string head = R"(id: "outbound_headers[x-out]" location: HEADER name: "X-Out" )";
  EXPECT_THAT(
      Plan(any + Header(R"("literal": {"value": "red"})", "team ")),
      Contains(head + R"(prefix: "team " encoding: PLAIN scope: ORG renderer: BROKER callers: ANY literal: "red" )"));
  EXPECT_THAT(
      Plan(any + Header(R"("callerIdentity": {"claim": "email", "format": "JSON"})")),
      Contains(head +
               R"(encoding: PLAIN scope: TOKEN renderer: EDGE callers: ANY claim { name: "email" json: true } )"));
  EXPECT_THAT(
      Plan(any + Header(R"("storedCredential": {"credentialUid": "crd_1", "form": "BASIC"})")),
      Contains(
          head +
          R"(encoding: BASIC scope: ORG renderer: BROKER callers: ANY stored_credential { uid: "crd_1" match: ORGANIZATION } )"));
  EXPECT_THAT(
      Plan(any + Header(R"("storedCredential": {"credentialUid": "crd_1", "match": "PER_USER"})")),
      Contains(
          head +
          R"(encoding: PLAIN scope: USER renderer: BROKER callers: ANY stored_credential { uid: "crd_1" match: PER_USER } )"));
}

TEST(LowerCredentials, WhoseTokenIsForwardedDependsOnTheDoor) {
  const std::string forward = Header(R"("forwardCallerToken": {"token": "ID"})");
  const std::string head = R"(id: "outbound_headers[x-out]" location: HEADER name: "X-Out" encoding: PLAIN )";
  EXPECT_THAT(
      Plan(std::string(kAny) + "," + kInteractive + "," + forward),
      ElementsAre(R"(id: "app_auth" location: HEADER name: "Authorization" encoding: PLAIN scope: REQUEST )"
                  R"(renderer: EDGE callers: ANY request_header: "X-Sallyport-Authorization" )",
                  head + R"(scope: TOKEN renderer: BROKER callers: SIGNED_IN sign_in_token { kind: ID } )",
                  head + R"(scope: TOKEN renderer: EDGE callers: WITH_OWN_TOKEN presented_token { kind: ID } )"));
  EXPECT_THAT(Plan(std::string(kAny) + "," + kJwt + "," + Header(R"("forwardCallerToken": {})")),
              ElementsAre(R"(id: "app_auth" location: HEADER name: "Authorization" encoding: PLAIN scope: REQUEST )"
                          R"(renderer: EDGE callers: ANY request_header: "Authorization" )",
                          head + R"(scope: TOKEN renderer: EDGE callers: ANY presented_token { kind: ACCESS } )"));
  EXPECT_THAT(Plan(std::string(kAny) + "," + kOpen + "," + Header(R"("forwardCallerToken": {})")),
              Contains(head + R"(scope: REQUEST renderer: EDGE callers: ANY presented_token { kind: ACCESS } )"));
}

TEST(LowerCredentials, TokensThatTheGatewayGets) {
  const std::string client =
      R"("clientId": "me", "clientSecret": {"set": true, "version": "2", "vaultRecord": "srv_a/s"}, )"
      R"("privateKey": {"set": true, "version": "3", "vaultRecord": "srv_a/k"}, "scopes": ["a", "b"])";
  EXPECT_THAT(
      Plan(R"("appAuth": {"clientCredentials": {"tokenUrl": "https://t", "audience": "x", "resource": "y", )" + client +
           "}}"),
      ElementsAre(
          R"(id: "app_auth" location: HEADER name: "Authorization" prefix: "Bearer " encoding: PLAIN scope: ORG )"
          R"(renderer: BROKER callers: ANY service_token { client { token_url: "https://t" client_id: "me" )"
          R"(authentication: CLIENT_SECRET_POST secret { record: "srv_a/s" version: 2 } } scopes: "a" )"
          R"(scopes: "b" audience: "x" resource: "y" } )"));
  EXPECT_THAT(
      Plan(std::string(kAny) + "," +
           Header(R"("oauth2ServiceToken": {"tokenUrl": "https://t", "clientAuth": "PRIVATE_KEY_JWT", )" + client + "}",
                  "Bearer ")),
      Contains(R"(id: "outbound_headers[x-out]" location: HEADER name: "X-Out" prefix: "Bearer " encoding: PLAIN )"
               R"(scope: ORG renderer: BROKER callers: ANY service_token { client { token_url: "https://t" )"
               R"(client_id: "me" authentication: PRIVATE_KEY_JWT secret { record: "srv_a/k" version: 3 } } )"
               R"(scopes: "a" scopes: "b" } )"));
  const std::vector<std::string> exchange =
      Plan(std::string(kAny) + "," + kInteractive + "," +
           Header(R"("onBehalfOf": {"exchangeUrl": "https://x", "style": "ENTRA_OBO", "clientAuth": "BASIC", )" +
                  client + "}"));
  const auto piece = [](const std::string& callers) {
    return R"(id: "outbound_headers[x-out]" location: HEADER name: "X-Out" encoding: PLAIN scope: TOKEN renderer: BROKER )"
           "callers: " +
           callers +
           R"( exchanged_token { client { token_url: "https://x" client_id: "me" authentication: CLIENT_SECRET_BASIC )"
           R"(secret { record: "srv_a/s" version: 2 } } style: ENTRA_OBO subject: ACCESS scopes: "a" scopes: "b" } )";
  };
  EXPECT_THAT(exchange, ElementsAre(Not(IsEmpty()), piece("SIGNED_IN"), piece("WITH_OWN_TOKEN")));
  EXPECT_THAT(
      Plan(std::string(kAny) + "," + kJwt + "," +
           Header(R"("onBehalfOf": {"exchangeUrl": "https://x", "style": "ENTRA_OBO", "clientAuth": "BASIC", )" +
                  client + "}")),
      ElementsAre(Not(IsEmpty()), piece("WITH_OWN_TOKEN")));
}

TEST(LowerCredentials, AnotherTokenOfTheSignInStandsForAllCallers) {
  EXPECT_THAT(Plan(std::string(kAny) + "," + kInteractive + "," +
                   Header(R"("forwardCallerToken": {"scopes": ["a", "b"], "resource": "https://r"})", "Bearer ")),
              ElementsAre(Not(IsEmpty()),
                          R"(id: "outbound_headers[x-out]" location: HEADER name: "X-Out" prefix: "Bearer " )"
                          R"(encoding: PLAIN scope: TOKEN renderer: BROKER callers: ANY sign_in_token { kind: ACCESS )"
                          R"(scopes: "a" scopes: "b" resource: "https://r" } )"))
      << "a presented token never goes in its place";
}

TEST(LowerCredentials, AKeysIdIsTheClients) {
  const auto plan = Plan(R"("appAuth": {"clientCredentials": {"tokenUrl": "https://t", "keyId": "7", )"
                         R"("clientAuth": "PRIVATE_KEY_JWT"}})");
  EXPECT_THAT(plan, ElementsAre(::testing::HasSubstr(R"(authentication: PRIVATE_KEY_JWT secret { } key_id: "7")")));
}

TEST(LowerCredentials, WhatHasNoTypeIsAPieceWithoutASource) {
  const v1::CredentialPlan plan =
      LowerCredentials(FromJson<v1::McpServer>(R"({"outboundHeaders": [{"name": "X-A"}]})"));
  ASSERT_EQ(plan.pieces_size(), 2);
  EXPECT_EQ(plan.pieces(0).id(), "app_auth");
  for (const auto& piece : plan.pieces()) EXPECT_EQ(piece.source_case(), v1::CredentialPlan::Piece::SOURCE_NOT_SET);
}

TEST(LowerCredentials, EveryServerOfAnEventGetsItsPlan) {
  v1::WatchEvent event;
  event.mutable_snapshot()->add_mcp_servers()->mutable_app_auth()->mutable_passthrough();
  LowerServers(event);
  EXPECT_EQ(event.snapshot().mcp_servers(0).credential_plan().pieces_size(), 1);
  event.mutable_delta()->add_mcp_servers()->mutable_app_auth()->mutable_passthrough();
  LowerServers(event);
  EXPECT_EQ(event.delta().mcp_servers(0).credential_plan().pieces_size(), 1);
}

class CredentialValidationTest : public ValidationTest {
 protected:
  std::vector<std::string> RefusedFor(const std::string& app_auth_or_header, const std::string& agent = kInteractive) {
    const bool header = app_auth_or_header.rfind("\"outboundHeaders\"", 0) == 0;
    return Refused(Server("{" + agent + "," + (header ? std::string(kAny) + "," : "") + app_auth_or_header + "}"));
  }
};

constexpr char kClient[] = R"("clientId": "me", "clientSecret": {"value": "s"})";

TEST_F(CredentialValidationTest, ClientsOfTokenEndpoints) {
  const auto app = [](const std::string& fields) { return R"("appAuth": {"clientCredentials": {)" + fields + "}}"; };
  const std::string url = R"("tokenUrl": "https://idp.example.com/token", )";
  EXPECT_THAT(RefusedFor(app(url + kClient)), IsEmpty());
  EXPECT_THAT(RefusedFor(app(url + kClient), kOpen), IsEmpty()) << "nobody has to be known";
  EXPECT_THAT(RefusedFor(app(R"("clientAuth": "NONE")")),
              ElementsAre("appAuth.clientCredentials.tokenUrl", "appAuth.clientCredentials.clientId",
                          "appAuth.clientCredentials.clientAuth"));
  for (const char* bad :
       {"http://idp.example.com/token", "https://10.0.0.1/token", "idp.example.com", "https://169.254.169.254/t"}) {
    EXPECT_THAT(RefusedFor(app(absl::StrCat(R"("tokenUrl": ")", bad, "\", ", kClient))),
                ElementsAre("appAuth.clientCredentials.tokenUrl"))
        << bad;
  }
  EXPECT_THAT(RefusedFor(app(url + kClient +
                             R"(, "scopes": ["a b"], "tokenParams": {"grant_type": "x", "resource": "y", "ok": "z"})")),
              ::testing::UnorderedElementsAre("appAuth.clientCredentials.scopes[0]",
                                              "appAuth.clientCredentials.tokenParams.grant_type",
                                              "appAuth.clientCredentials.tokenParams.resource"));
  EXPECT_THAT(RefusedFor(Header(R"("oauth2ServiceToken": {"clientId": "me"})")),
              ElementsAre("outboundHeaders[0].oauth2ServiceToken.tokenUrl"));
}

TEST_F(CredentialValidationTest, KeyIds) {
  const auto app = [](const std::string& fields) {
    return R"("appAuth": {"clientCredentials": {"tokenUrl": "https://idp.example.com/token", "clientId": "me", )" +
           fields + "}}";
  };
  EXPECT_THAT(RefusedFor(app(R"("clientAuth": "PRIVATE_KEY_JWT", "keyId": "2026-11")")), IsEmpty());
  EXPECT_THAT(RefusedFor(app(R"("clientAuth": "PRIVATE_KEY_JWT", "keyId": "a b")")),
              ElementsAre("appAuth.clientCredentials.keyId"));
  EXPECT_THAT(RefusedFor(app(R"("clientSecret": {"value": "s"}, "keyId": "a")")),
              ElementsAre("appAuth.clientCredentials.keyId"));
}

TEST_F(CredentialValidationTest, AnotherTokenOfTheSignIn) {
  const std::string at = "outboundHeaders[0].forwardCallerToken";
  const auto forward = [](const std::string& fields) { return Header(R"("forwardCallerToken": {)" + fields + "}"); };
  EXPECT_THAT(RefusedFor(forward(R"("scopes": ["api://x/.default"])")), IsEmpty());
  EXPECT_THAT(RefusedFor(forward(R"("resource": "urn:example:api")")), IsEmpty());
  EXPECT_THAT(RefusedFor(forward(R"("scopes": ["a b"], "resource": "not a uri", "token": "ID")")),
              ::testing::UnorderedElementsAre(at + ".scopes[0]", at + ".resource", at + ".token"));
  EXPECT_THAT(RefusedFor(forward(R"("resource": "https://x/#part")")), ElementsAre(at + ".resource"));
  EXPECT_THAT(RefusedFor(forward(R"("scopes": ["a"])"), kOpen), ElementsAre(at + ".scopes"));
  EXPECT_THAT(RefusedFor(forward(R"("resource": "https://x")"), kJwt), ElementsAre(at + ".resource"));
}

TEST_F(CredentialValidationTest, TokenExchange) {
  const auto exchange = [](const std::string& fields) {
    return Header(R"("onBehalfOf": {"exchangeUrl": "https://idp.example.com/token", )" + std::string(kClient) + fields +
                  "}");
  };
  const std::string at = "outboundHeaders[0].onBehalfOf";
  EXPECT_THAT(RefusedFor(exchange(R"(, "audience": "api://x", "actorToken": true)")), IsEmpty());
  EXPECT_THAT(RefusedFor(exchange(R"(, "audience": "api://x")"), kJwt), IsEmpty());
  EXPECT_THAT(RefusedFor(exchange(""), kOpen), ElementsAre(at)) << "an unverified caller has no token to exchange";
  EXPECT_THAT(RefusedFor(exchange(R"(, "subjectToken": "ID")"), kJwt), ElementsAre(at + ".subjectToken"));
  EXPECT_THAT(RefusedFor(exchange(R"(, "style": "ENTRA_OBO", "scopes": ["api://x/.default"])")), IsEmpty());
  EXPECT_THAT(
      RefusedFor(exchange(R"(, "style": "ENTRA_OBO", "audience": "x", "resource": "y", "subjectTokenType": "urn:a",
                                     "requestedTokenType": "urn:b", "actorToken": true, "subjectToken": "ID")")),
      ElementsAre(at + ".audience", at + ".resource", at + ".subjectTokenType", at + ".requestedTokenType",
                  at + ".actorToken", at + ".subjectToken", at + ".scopes"));
  EXPECT_THAT(
      RefusedFor(exchange(R"(, "subjectTokenType": "jwt", "tokenParams": {"assertion": "x", "subject_token": "y"})")),
      ::testing::UnorderedElementsAre(at + ".tokenParams.assertion", at + ".tokenParams.subject_token",
                                      at + ".subjectTokenType"));
}

TEST_F(CredentialValidationTest, StoredCredentials) {
  const std::string at = "outboundHeaders[0].storedCredential";
  EXPECT_THAT(RefusedFor(Header(R"("storedCredential": {"credential": "key"})")), IsEmpty());
  EXPECT_THAT(RefusedFor(Header(R"("storedCredential": {"credential": "key"})"), kOpen), IsEmpty());
  EXPECT_THAT(RefusedFor(Header(R"("storedCredential": {})")), ElementsAre(at + ".credential"));
  EXPECT_THAT(RefusedFor(Header(R"("storedCredential": {"credential": "other"})")), ElementsAre(at + ".credential"));
  EXPECT_THAT(RefusedFor(Header(R"("storedCredential": {"credential": "key", "form": "BASIC"})", "x ")),
              ElementsAre(at + ".form", at + ".form"));
  EXPECT_THAT(RefusedFor(Header(R"("storedCredential": {"credential": "key", "match": "PER_USER"})")),
              ElementsAre(at + ".match"));
  credential_.set_kind(v1::Credential::PASSWORD);
  credential_.set_username("ann");
  EXPECT_THAT(RefusedFor(Header(R"("storedCredential": {"credential": "key", "form": "BASIC"})")), IsEmpty());
  credential_.set_allowed_upstream_origins(0, "https://other.example.com");
  EXPECT_THAT(RefusedFor(Header(R"("storedCredential": {"credential": "key"})")), ElementsAre("upstreamUrl"));
}

TEST_F(CredentialValidationTest, StoredCredentialsOfEachUser) {
  credential_.set_owner(v1::Credential::USER);
  const std::string at = "outboundHeaders[0].storedCredential";
  for (const char* match : {"", R"(, "match": "PER_USER")"}) {
    const std::string header = Header(absl::StrCat(R"("storedCredential": {"credential": "key")", match, "}"));
    EXPECT_THAT(RefusedFor(header), IsEmpty());
    EXPECT_THAT(RefusedFor(header, kOpen), ElementsAre(at)) << "whose would it be?";
  }
  EXPECT_THAT(RefusedFor(Header(R"("storedCredential": {"credential": "key", "match": "ORGANIZATION"})")),
              ElementsAre(at + ".match"));
  EXPECT_THAT(RefusedFor(Header(R"("storedCredential": {"credential": "key", "form": "BASIC"})")),
              ElementsAre(at + ".form"));
  credential_.set_kind(v1::Credential::PASSWORD);
  EXPECT_THAT(RefusedFor(Header(R"("storedCredential": {"credential": "key", "form": "BASIC"})")), IsEmpty());
}

TEST_F(CredentialValidationTest, AnOpenServerThatSendsTokensIsWarnedOf) {
  const auto warned = [this] {
    return std::any_of(findings_.warnings.begin(), findings_.warnings.end(),
                       [](const auto& warning) { return warning.field() == "agentAuth.passthrough"; });
  };
  const std::string service = R"("appAuth": {"clientCredentials": {"tokenUrl": "https://idp.example.com/token", )" +
                              std::string(kClient) + "}}";
  RefusedFor(service, kOpen);
  EXPECT_TRUE(warned());
  RefusedFor(service, kJwt);
  EXPECT_FALSE(warned());
  RefusedFor(Header(R"("literal": {"value": "red"})"), kOpen);
  EXPECT_FALSE(warned()) << "nothing secret";
  RefusedFor(Header(R"("storedCredential": {"credential": "key"})"), kOpen);
  EXPECT_TRUE(warned());
}

}  // namespace
}  // namespace sallyport::registry

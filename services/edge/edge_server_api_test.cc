// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_server_testing.h"

// The HTTP API.
namespace sallyport::edge {
namespace {

constexpr char kGet[] = "/api/sallyport.registry.v1.Registry/GetMcpServer";
const char* const kJson = "Content-Type: application/json";

TEST_F(EdgeServerTest, TheApiTranscodesWithABearerToken) {
  const Reply reply = Send("POST", kGet, {kJson, Bearer("api-ada")}, R"({"slug":"x"})");
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.Json(), json::parse(R"({"slug":"x"})"));
  EXPECT_EQ(reply.Field("Cache-Control"), "no-store");
  const Reply empty = Send("POST", "/api/sallyport.registry.v1.Registry/DeleteMcpServer", {kJson, Bearer("api-ada")});
  EXPECT_EQ(empty.status, 200);
  EXPECT_EQ(empty.Json(), json::object());
}

TEST_F(EdgeServerTest, InternalAndUnknownMethodsDoNotExist) {
  for (const char* method : {"sallyport.registry.v1.Registry/Watch",
                             "sallyport.registry.v1.Registry/PublishInvalidations",
                             "sallyport.authn.v1.Authn/Authenticate",
                             "sallyport.authn.v1.Authn/GetEdgeKeys",
                             "sallyport.authn.v1.Authn/GetPassport",
                             "sallyport.token_broker.v1.TokenBroker/ResolveCredentials",
                             "sallyport.authn.v1.Platforms/AuthenticatePlatform",
                             "sallyport.token_broker.v1.Endings/EndConnections",
                             "sallyport.token_broker.v1.Platform/GetToken",
                             "sallyport.token_broker.v1.Platform/ListConnections",
                             "sallyport.token_broker.v1.Platform/StartLink",
                             "sallyport.token_broker.v1.Platform/Disconnect",
                             "sallyport.registry.v1.Registry/FinishApp",
                             "sallyport.vault.v1.Vault/Get",
                             "sallyport.vault.v1.Vault/OweRevocation",
                             "sallyport.vault.v1.Vault/Rename",
                             "sallyport.audit.v1.Audit/Append",
                             "sallyport.registry.v1.Registry/Nope",
                             "x",
                             "",
                             "sallyport.registry.v1.Registry"}) {
    EXPECT_EQ(Send("POST", std::string("/api/") + method, {kJson, Bearer("api-ada")}, "{}").status, 404) << method;
  }
}

TEST_F(EdgeServerTest, EndingThingsIsForWhoIsKnown) {
  for (const char* method :
       {"sallyport.authn.v1.Authn/RevokeUser", "sallyport.authn.v1.Clients/ListOwnClients",
        "sallyport.authn.v1.Clients/RemoveOwnClient", "sallyport.authn.v1.Clients/ListClients",
        "sallyport.authn.v1.Clients/RemoveClient", "sallyport.authn.v1.Revocation/RevokeConnections",
        "sallyport.authn.v1.Revocation/RevokeServer", "sallyport.token_broker.v1.TokenBroker/RenameConnection",
        "sallyport.token_broker.v1.TokenBroker/Disconnect"}) {
    EXPECT_EQ(Send("POST", std::string("/api/") + method, {kJson}, "{}").status, 401) << method;
  }
}

TEST_F(EdgeServerTest, ApiInputIsStrict) {
  for (const char* body : {R"({"slug":"a","slug":"b"})", R"({slug:"a"})", R"({"slug":"a"}x)", "[]", "7",
                           R"({"nope":1})", R"({"slug":1,})", R"({'slug':'a'})", R"({"slug":{}})"}) {
    EXPECT_EQ(Send("POST", kGet, {kJson, Bearer("api-ada")}, body).status, 400) << body;
  }
  EXPECT_EQ(Send("POST", kGet, {"Content-Type: text/plain", Bearer("api-ada")}, "{}").status, 415);
  EXPECT_EQ(Send("POST", kGet, {"Content-Type: application/jsonx", Bearer("api-ada")}, "{}").status, 415);
  EXPECT_EQ(Send("POST", kGet, {"Content-Type: application/json; charset=utf-8", Bearer("api-ada")}, "{}").status, 200);
  EXPECT_EQ(Send("GET", kGet, {kJson, Bearer("api-ada")}).status, 405);
  const Reply secret = Send("POST", "/api/sallyport.registry.v1.Registry/CreateMcpServer", {kJson, Bearer("api-ada")},
                            R"({"mcpServer":{"appAuth":{"bearer":{"token":"hunter2"}}}})");
  EXPECT_EQ(secret.status, 400);
  EXPECT_THAT(secret.body, Not(HasSubstr("hunter2")));
}

TEST_F(EdgeServerTest, ApiCallersMustBeKnown) {
  const Reply none = Send("POST", kGet, {kJson}, "{}");
  EXPECT_EQ(none.status, 401);
  EXPECT_EQ(none.Field("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(Send("POST", kGet, {kJson, Bearer("other")}, "{}").status, 401);
}

TEST_F(EdgeServerTest, WhatIsNoApiTokenIsRefusedWithoutAnRpc) {
  for (const char* token : {"\xff", "api-ada\xff", "api ada", "api-ada,x"}) {
    const Reply reply = Send("POST", kGet, {kJson, Bearer(token)}, "{}");
    EXPECT_EQ(reply.status, 401) << token;
    EXPECT_EQ(reply.Field("WWW-Authenticate"), "Bearer error=\"invalid_token\"");
    EXPECT_EQ(reply.Json()["error"], "unauthenticated");
  }
  EXPECT_THAT(authn_.passport_requests(), IsEmpty());
}

TEST_F(EdgeServerTest, ApiCookiesThatAreNotVisibleAsciiAreDropped) {
  const auto with = [&](const std::string& cookies) {
    return Send("POST", kGet,
                {kJson, "Cookie: " + cookies, "Origin: https://gw.example.com", "Sec-Fetch-Site: same-origin"},
                R"({"slug":"x"})")
        .status;
  };
  EXPECT_EQ(with("x=\xff; __Host-session=ada;\xc3\xa9=1; y=a b"), 200);
  ASSERT_THAT(authn_.passport_requests(), SizeIs(1));
  EXPECT_EQ(authn_.passport_requests()[0].cookie(), "__Host-session=ada");
  EXPECT_EQ(with("x=\xff"), 401);
  EXPECT_THAT(authn_.passport_requests(), SizeIs(1));
}

TEST_F(EdgeServerTest, ApiBodiesAreLimited) {
  const std::string object = R"({"slug":"x"})";
  const std::string padding((1 << 20) - object.size(), ' ');
  EXPECT_EQ(Send("POST", kGet, {kJson, Bearer("api-ada")}, object + padding).status, 200);
  EXPECT_EQ(Send("POST", kGet, {kJson, Bearer("api-ada")}, object + padding + " ").status, 413);
}

TEST_F(EdgeServerTest, WhoTradesTheAdminTokenIsToldByAddress) {
  const Reply reply = Send("POST", "/api/sallyport.authn.v1.Authn/RedeemAdminToken",
                           {kJson, "Sallyport-Client-Address: 203.0.113.9"}, R"({"token":"x"})");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Json().value("accessToken", ""), "127.0.0.1") << "that of the connection, whatever the client says";
}

TEST_F(EdgeServerTest, ACookieCountsOnlyFromOurOwnPages) {
  const std::vector<std::string> good = {kJson, "Cookie: __Host-session=ada", "Origin: https://gw.example.com",
                                         "Sec-Fetch-Site: same-origin"};
  EXPECT_EQ(Send("POST", kGet, good, R"({"slug":"x"})").status, 200);
  const auto without = [&](size_t index) {
    auto fields = good;
    fields.erase(fields.begin() + static_cast<std::ptrdiff_t>(index));
    return Send("POST", kGet, fields, "{}").status;
  };
  EXPECT_EQ(without(0), 415);
  EXPECT_EQ(without(1), 401);
  EXPECT_EQ(without(2), 403);
  EXPECT_EQ(without(3), 403);
  auto cross = good;
  cross[2] = "Origin: https://app.example.com";
  EXPECT_EQ(Send("POST", kGet, cross, "{}").status, 403) << "allowed for CORS, not for cookies";
  cross = good;
  cross[3] = "Sec-Fetch-Site: same-site";
  EXPECT_EQ(Send("POST", kGet, cross, "{}").status, 403);
  auto both = good;
  both.push_back(Bearer("other"));
  EXPECT_EQ(Send("POST", kGet, both, "{}").status, 401) << "with Authorization the cookie is ignored";
}

}  // namespace
}  // namespace sallyport::edge

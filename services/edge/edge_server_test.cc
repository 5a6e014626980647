// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_server.h"

#include <algorithm>
#include <mutex>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "common/base64url.h"
#include "services/edge/edge_testing.h"
#include "services/edge/http/engine_test_support.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

// A whole edge between a raw client and a raw upstream, with small authn, token_broker and registry services.
namespace sallyport::edge {
namespace {

using nlohmann::json;
using registry::v1::Invalidation;
using ::sallyport::testing::IsOk;
using testing::FakeUpstream;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::JsonResponse;
using ::testing::Not;
using testing::RawSocket;
using ::testing::SizeIs;

constexpr char kCall[] =
    R"({"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search","arguments":{"q":1}}})";
constexpr char kModernMeta[] =
    R"("_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"url":{}}}})";

std::string ModernCall(const std::string& extra = "") {
  return R"({"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"search","arguments":{"q":1},)" +
         std::string(kModernMeta) + extra + "}}";
}

struct Reply {
  int status = 0;
  std::string head;
  std::string body;
  // Value of the first such field; "" if there is none.
  std::string Field(const std::string& name) const {
    for (absl::string_view line : absl::StrSplit(head, "\r\n")) {
      const size_t colon = line.find(':');
      if (colon != absl::string_view::npos && absl::EqualsIgnoreCase(line.substr(0, colon), name)) {
        return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
      }
    }
    return "";
  }
  json Json() const { return json::parse(body, nullptr, false); }
  std::string Reason() const {
    const json parsed = Json();
    return parsed.is_object() && parsed.contains("error") && parsed["error"].is_object()
               ? parsed["error"]["data"].value("reason", "")
               : "";
  }
};

Reply ParseReply(const std::string& bytes) {
  Reply reply;
  const size_t end = bytes.find("\r\n\r\n");
  if (end == std::string::npos || bytes.size() < 12) return reply;
  reply.status = std::stoi(bytes.substr(9, 3));
  reply.head = bytes.substr(0, end);
  reply.body = bytes.substr(end + 4);
  return reply;
}

class EdgeServerTest : public ::testing::Test {
 protected:
  EdgeServerTest()
      : upstream_([this](RawSocket& socket) {
          while (true) {
            const std::string request = upstream_.ReadRequest(socket);
            if (request.empty() || !socket.Send(Answer(request))) return;
          }
        }) {
    AddServer("open", "srv_org_open", R"("agentAuth":{"passthrough":{}},"appAuth":{"apiKey":{"name":"X-Api-Key"}})");
    AddServer("query", "srv_org_query",
              R"("agentAuth":{"passthrough":{}},"appAuth":{"apiKey":{"name":"key","location":"QUERY"}})");
    AddServer("through", "srv_through", R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}})");
    AddServer("jwt", "srv_jwt",
              R"("agentAuth":{"passthrough":{"jwtValidation":{"connector":"okta"}}},"appAuth":{"passthrough":{}})");
    AddServer("org", "srv_org", R"("agentAuth":{"interactive":{}},"appAuth":{"apiKey":{"name":"X-Api-Key"}})");
    AddServer("agent", "srv_agent", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}})");
    AddServer("user", "srv_user",
              R"("agentAuth":{"interactive":{}},"appAuth":{"oauthAuthorization":{"app":"github","appUid":"app_x"}})");
    AddServer("claims", "srv_claims", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
        "outboundHeaders":[{"name":"X-User","callerIdentity":{"claim":"email"}},
                           {"name":"X-Token","prefix":"Bearer ","forwardCallerToken":{}}])");
    AddServer("off", "srv_off", R"("enabled":false,"agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}})");
    AddServer("near", "srv_near", R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}},
        "policy":{"allowedClientNetworks":["203.0.113.0/24"]})");
  }
  void SetUp() override {
    config::v1::EdgeConfig config = Config();
    auto edge = EdgeServer::Start(
        config, clock_,
        {authn_server_.channel(), broker_server_.channel(), authn_server_.channel(), registry_server_.channel()});
    ASSERT_THAT(edge, IsOk());
    edge_ = *std::move(edge);
    ASSERT_TRUE(Soon([&] { return edge_->Ready().ok(); })) << edge_->Ready();
  }
  ~EdgeServerTest() override {
    authn_.gate.Open();
    broker_.gate.Open();
    if (edge_) edge_->Shutdown(absl::ZeroDuration());
  }
  config::v1::EdgeConfig Config() {
    config::v1::EdgeConfig config;
    config.set_listen("127.0.0.1:0");
    config.set_data_directory(directory_.path());
    config.set_threads(1);
    config.set_replica("test");
    config.mutable_deployment()->set_public_url("https://gw.example.com");
    config.mutable_deployment()->add_allowed_origins("https://app.example.com");
    config.mutable_deployment()->mutable_egress()->add_upstream_networks("127.0.0.0/8");
    return config;
  }
  void AddServer(const std::string& slug, const std::string& uid, const std::string& fields) {
    registry_.Put(FromJson<registry::v1::McpServer>(R"({"uid":")" + uid + R"(","slug":")" + slug +
                                                    R"(","version":"1","upstreamUrl":"http://127.0.0.1:)" +
                                                    std::to_string(upstream_.port()) + R"(/up",)" + fields + "}"));
  }
  std::string Answer(const std::string& request) {
    std::lock_guard lock(mu_);
    return answer_ ? answer_(request) : JsonResponse(R"({"jsonrpc":"2.0","id":7,"result":{}})");
  }
  void SetAnswer(std::function<std::string(const std::string&)> answer) {
    std::lock_guard lock(mu_);
    answer_ = std::move(answer);
  }

  static std::string Render(const std::string& method, const std::string& target,
                            const std::vector<std::string>& fields, const std::string& body) {
    std::string request = method + " " + target + " HTTP/1.1\r\n";
    const bool has_host = std::any_of(fields.begin(), fields.end(),
                                      [](const auto& field) { return absl::StartsWithIgnoreCase(field, "host:"); });
    if (!has_host) request += "Host: gw.example.com\r\n";
    for (const auto& field : fields) request += field + "\r\n";
    if (!body.empty() || method == "POST") request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    return request + "\r\n" + body;
  }
  Reply Send(const std::string& method, const std::string& target, const std::vector<std::string>& fields = {},
             const std::string& body = "") {
    const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
    socket->Send(Render(method, target, fields, body));
    return ParseReply(socket->ReadMessage());
  }
  Reply Post(const std::string& slug, const std::vector<std::string>& fields = {}, const std::string& body = kCall) {
    return Send("POST", "/mcp/" + slug, fields, body);
  }
  static std::string Bearer(const std::string& token) { return "Authorization: Bearer " + token; }
  // A token whose unverified issuer is us.
  static std::string OwnJwt() {
    return absl::StrCat(Base64UrlEncode(R"({"alg":"ES256"})"), ".",
                        Base64UrlEncode(R"({"iss":"https://gw.example.com","sub":"x"})"), ".c2ln");
  }
  std::string LastUpstream() {
    const auto requests = upstream_.requests();
    return requests.empty() ? "" : requests.back();
  }
  static std::string Refusal(const std::string& challenge = "Bearer realm=\"up\"") {
    return "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nWWW-Authenticate: " + challenge + "\r\n\r\nno";
  }

  FakeClock clock_;
  FakeAuthn authn_{clock_};
  FakeBroker broker_;
  FakeRegistry registry_;
  FakeAudit audit_;
  FakeServer authn_server_{{&authn_}};
  FakeServer broker_server_{{&broker_}};
  FakeServer registry_server_{{&registry_, &audit_}};
  sallyport::testing::TempDirectory directory_;
  std::mutex mu_;
  std::function<std::string(const std::string&)> answer_;
  FakeUpstream upstream_;
  std::unique_ptr<EdgeServer> edge_;
};

// --- routes, hosts, origins ---

TEST_F(EdgeServerTest, UnknownAndDisabledServersAndOtherPathsAre404) {
  EXPECT_EQ(Post("nope").status, 404);
  EXPECT_EQ(Post("off").status, 404);
  EXPECT_EQ(Post("").status, 404);
  EXPECT_EQ(Post("open/more").status, 404);
  for (const char* path : {"/", "/mcp", "/mcpx/open", "/console/", "/metrics", "/healthz?path=/mcp/open"}) {
    EXPECT_EQ(Send("GET", path).status, 404) << path;
  }
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, ForeignHostsAndOriginsAreTurnedAway) {
  EXPECT_EQ(Post("open", {"Host: evil.example"}).status, 403);
  EXPECT_EQ(Post("open", {"Origin: https://evil.example"}).status, 403);
  EXPECT_EQ(Post("open", {"Origin: null"}).status, 403);
  EXPECT_EQ(Post("open", {"Origin: http://127.0.0.1"}).status, 403);
  EXPECT_THAT(upstream_.requests(), IsEmpty());
  EXPECT_EQ(Post("open", {"Origin: https://gw.example.com"}).status, 200);
}

TEST_F(EdgeServerTest, CorsForAllowedOriginsOnEveryKindOfAnswer) {
  const std::string origin = "Origin: https://app.example.com";
  for (const Reply& reply : {Post("open", {origin}), Post("org", {origin}), Post("nope", {origin})}) {
    EXPECT_EQ(reply.Field("Access-Control-Allow-Origin"), "https://app.example.com") << reply.head;
    EXPECT_THAT(reply.Field("Access-Control-Expose-Headers"), HasSubstr("WWW-Authenticate"));
  }
  EXPECT_EQ(Post("open").Field("Access-Control-Allow-Origin"), "");
}

TEST_F(EdgeServerTest, PreflightNeedsNoToken) {
  const Reply reply = Send("OPTIONS", "/mcp/org",
                           {"Origin: https://app.example.com", "Access-Control-Request-Method: POST",
                            "Access-Control-Request-Headers: authorization, mcp-param-region"});
  EXPECT_EQ(reply.status, 204);
  EXPECT_EQ(reply.Field("Access-Control-Allow-Origin"), "https://app.example.com");
  EXPECT_THAT(absl::AsciiStrToLower(reply.Field("Access-Control-Allow-Headers")), HasSubstr("mcp-param-region"));
  EXPECT_EQ(Send("OPTIONS", "/mcp/org", {"Origin: https://evil.example"}).status, 403);
  EXPECT_EQ(edge_->authenticate_calls(), 0U);
}

TEST_F(EdgeServerTest, OtherMethodsAre405AndSayWhich) {
  const Reply reply = Send("PUT", "/mcp/open");
  EXPECT_EQ(reply.status, 405);
  EXPECT_THAT(reply.Field("Allow"), HasSubstr("POST"));
}

TEST_F(EdgeServerTest, ClientNetworksAreChecked) {
  const Reply reply = Post("near", {"X-Forwarded-For: 203.0.113.9"});
  EXPECT_EQ(reply.status, 403);
  EXPECT_EQ(reply.Reason(), "client_network") << "nobody said this peer is a proxy";
}

// --- door one ---

TEST_F(EdgeServerTest, WithoutATokenTheChallengeIsExact) {
  const Reply reply = Post("org");
  EXPECT_EQ(reply.status, 401);
  EXPECT_EQ(
      reply.Field("WWW-Authenticate"),
      R"(Bearer resource_metadata="https://gw.example.com/.well-known/oauth-protected-resource/mcp/org", scope="mcp")");
  EXPECT_EQ(Post("jwt").Field("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(Post("org", {"Authorization: Basic eDp5"}).status, 401);
  EXPECT_EQ(Post("org", {"Authorization: Bearer "}).status, 401);
  EXPECT_EQ(Post("org", {"Cookie: session=ada"}).status, 401) << "cookies mean nothing here";
  const Reply invalid = Post("org", {Bearer("garbage")});
  EXPECT_EQ(invalid.status, 401);
  EXPECT_THAT(invalid.Field("WWW-Authenticate"), HasSubstr("error=\"invalid_token\""));
  EXPECT_EQ(Post("org", {Bearer("ours-stranger")}).status, 403);
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, AuthorizationTwiceIsRefused) {
  for (const char* slug : {"org", "through", "open"}) {
    EXPECT_EQ(Post(slug, {Bearer("ours-ada"), "authorization: Bearer other"}).status, 400) << slug;
  }
  EXPECT_EQ(Post("agent", {Bearer("ours-ada"), "X-Sallyport-Authorization: a", "x-sallyport-authorization: b"}).status,
            400);
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, AWarmRequestMakesNoRpc) {
  ASSERT_EQ(Post("org", {Bearer("ours-ada")}).status, 200);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Post("org", {Bearer("ours-ada")}).status, 200);
  EXPECT_EQ(edge_->authenticate_calls(), 1U);
  EXPECT_EQ(edge_->resolve_calls(), 1U);
}

TEST_F(EdgeServerTest, ARevokedSessionIsRefusedOnTheSameConnection) {
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  const std::string request = Render("POST", "/mcp/org", {Bearer("ours-ada")}, kCall);
  socket->Send(request);
  ASSERT_EQ(ParseReply(socket->ReadMessage()).status, 200);
  authn_.SetStatus({grpc::StatusCode::UNAUTHENTICATED, "revoked"});
  registry_.Invalidate(Invalidation::SESSION, "session-ada");
  EXPECT_TRUE(Soon([&] {
    socket->Send(request);
    return ParseReply(socket->ReadMessage()).status == 401;
  }));
}

TEST_F(EdgeServerTest, WhileAuthnIsDownUnknownCallersGet503) {
  ASSERT_EQ(Post("org", {Bearer("ours-ada")}).status, 200);
  authn_.SetStatus({grpc::StatusCode::UNAVAILABLE, "down"});
  EXPECT_EQ(Post("org", {Bearer("ours-ada")}).status, 200);
  const Reply reply = Post("org", {Bearer("ours-bob")});
  EXPECT_EQ(reply.status, 503);
  EXPECT_NE(reply.Field("Retry-After"), "");
}

// --- what goes upstream ---

TEST_F(EdgeServerTest, TheApiKeyGoesOutAndTheCallersOwnDoesNot) {
  const Reply reply = Post("open", {"X-Api-Key: mine", "x_api_key: mine", "Cookie: a=b", "X-Forwarded-For: 1.2.3.4",
                                    "X-Custom: kept", Bearer("some-token")});
  EXPECT_EQ(reply.status, 200);
  const std::string request = LastUpstream();
  EXPECT_THAT(request, HasSubstr("POST /up HTTP/1.1\r\n"));
  EXPECT_THAT(request, HasSubstr("\r\nX-Api-Key: org-key\r\n"));
  EXPECT_THAT(request, HasSubstr("X-Custom: kept\r\n"));
  for (const char* leaked : {"mine", "Cookie", "1.2.3.4", "some-token"}) EXPECT_THAT(request, Not(HasSubstr(leaked)));
  EXPECT_THAT(request, HasSubstr(kCall)) << "byte-exact";
}

TEST_F(EdgeServerTest, AQueryKeyReplacesTheCallers) {
  broker_.SetKeyName("");
  EXPECT_EQ(Send("POST", "/mcp/query?a=1&key=mine&k%65y=mine", {}, kCall).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("POST /up?a=1&key=org-key HTTP/1.1\r\n"));
}

TEST_F(EdgeServerTest, PassthroughForwardsTheCallersAuthorizationAsItCame) {
  EXPECT_EQ(Post("through", {"Authorization: Bearer  theirs"}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("\r\nAuthorization: Bearer  theirs\r\n"));
  EXPECT_EQ(Post("through", {"Authorization: Basic eDp5"}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("\r\nAuthorization: Basic eDp5\r\n"));
  EXPECT_EQ(Post("through").status, 200);
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("Authorization")));
}

TEST_F(EdgeServerTest, OurOwnTokenNeverLeaves) {
  const std::string jwt = OwnJwt();
  for (const std::string& value :
       {"Bearer " + jwt, "bearer " + jwt, "Bearer\t" + jwt, "DPoP " + jwt, jwt, "Bearer x, Bearer " + jwt,
        std::string("Bearer spa_abc"), std::string("Bearer spr_abc"), "Token token=\"" + jwt + "\""}) {
    for (const char* slug : {"through", "open"}) {
      const Reply reply = Post(slug, {"Authorization: " + value});
      EXPECT_EQ(reply.status, 401) << slug << " " << value;
      EXPECT_EQ(reply.Reason(), "own_token");
    }
  }
  EXPECT_EQ(Post("agent", {Bearer("ours-ada"), "X-Sallyport-Authorization: Bearer " + jwt}).status, 400);
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, WithInteractiveTheAgentsUpstreamCredentialHasAHeaderOfItsOwn) {
  EXPECT_EQ(Post("agent", {Bearer("ours-ada"), "X-Sallyport-Authorization: Bearer upstream"}).status, 200);
  const std::string request = LastUpstream();
  EXPECT_THAT(request, HasSubstr("\r\nAuthorization: Bearer upstream\r\n"));
  EXPECT_THAT(request, Not(HasSubstr("ours-ada")));
  EXPECT_THAT(absl::AsciiStrToLower(request), Not(HasSubstr("x-sallyport")));
  EXPECT_EQ(Post("agent", {Bearer("ours-ada")}).status, 200);
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("ours-ada")));
}

TEST_F(EdgeServerTest, ClaimsAndPresentedTokensAreSetOverTheCallers) {
  EXPECT_EQ(Post("claims", {Bearer("idp-ada"), "X-User: root", "x_user: root"}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("X-User: ada@example.com\r\n"));
  EXPECT_THAT(LastUpstream(), HasSubstr("X-Token: Bearer idp-ada\r\n"));
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("root")));
  const Reply evil = Post("claims", {Bearer("idp-evil")});
  EXPECT_EQ(evil.status, 500);
  EXPECT_EQ(evil.Reason(), "identity_unencodable");
}

TEST_F(EdgeServerTest, AForwardedTokenThatWasNotSentIsAskedForOnce) {
  AddServer("fwd", "srv_fwd", R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-Token","forwardCallerToken":{}}])");
  ASSERT_TRUE(Soon([&] { return Post("fwd").status != 404; }));
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  for (int i = 0; i < 3; ++i) {  // One answer each, on one connection.
    socket->Send(Render("POST", "/mcp/fwd", {}, kCall));
    const Reply reply = ParseReply(socket->ReadMessage());
    EXPECT_EQ(reply.status, 401);
    EXPECT_EQ(reply.Reason(), "no_caller_token");
    socket->Send(Render("POST", "/mcp/fwd", {Bearer("mine")}, kCall));
    EXPECT_EQ(ParseReply(socket->ReadMessage()).status, 200);
    EXPECT_THAT(LastUpstream(), HasSubstr("X-Token: mine\r\n"));
  }
}

// --- the body ---

TEST_F(EdgeServerTest, BodiesThatTwoReadersCouldReadDifferentlyAreRefused) {
  const auto code = [&](const std::string& body) {
    const Reply reply = Post("open", {}, body);
    EXPECT_EQ(reply.status, 400) << body;
    return reply.Json()["error"]["code"].get<int>();
  };
  EXPECT_EQ(code("{"), -32700);
  EXPECT_EQ(code("\xEF\xBB\xBF" + std::string(kCall)), -32700);
  EXPECT_EQ(code(R"({"id":1,"method":"a\xff"})"), -32700);
  EXPECT_EQ(code(R"({"id":1,"method":"a","method":"b"})"), -32600);
  EXPECT_EQ(code("[]"), -32600);
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, HeadersThatDisagreeWithAModernBodyAreRefused) {
  const auto send = [&](const std::vector<std::string>& fields) { return Post("open", fields, ModernCall()); };
  for (const auto& fields : std::vector<std::vector<std::string>>{{"MCP-Protocol-Version: 2025-11-25"},
                                                                  {"Mcp-Method: tools/list"},
                                                                  {"Mcp-Name: other"},
                                                                  {"Mcp-Name: Search"},
                                                                  {"Mcp-Name: =?base64?b3RoZXI=?="}}) {
    const Reply reply = send(fields);
    EXPECT_EQ(reply.status, 400) << fields[0];
    EXPECT_EQ(reply.Json()["error"]["code"], -32020);
    EXPECT_EQ(reply.Json()["id"], 8);
  }
  EXPECT_THAT(upstream_.requests(), IsEmpty());
  EXPECT_EQ(send({"MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: search"}).status, 200);
  EXPECT_EQ(send({"Mcp-Name: =?base64?c2VhcmNo?="}).status, 200);
}

// --- sessions ---

TEST_F(EdgeServerTest, ASessionBelongsToItsUser) {
  SetAnswer([](const std::string& request) {
    return JsonResponse("{}", absl::StrContains(request, "initialize") ? "Mcp-Session-Id: up-1\r\n" : "");
  });
  const Reply opened =
      Post("org", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}})");
  const std::string session = opened.Field("Mcp-Session-Id");
  EXPECT_THAT(session, ::testing::StartsWith("up-1."));
  EXPECT_EQ(Post("org", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("Mcp-Session-Id: up-1\r\n"));
  const size_t before = upstream_.requests().size();
  for (const std::string& wrong : {session + "x", std::string("up-1"), "up-2" + session.substr(4)}) {
    EXPECT_EQ(Post("org", {Bearer("ours-ada"), "Mcp-Session-Id: " + wrong}).status, 404) << wrong;
  }
  const Reply other = Post("org", {Bearer("ours-bob"), "Mcp-Session-Id: " + session});
  EXPECT_EQ(other.status, 404);
  EXPECT_EQ(other.Reason(), "session_not_found");
  EXPECT_EQ(Post("agent", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 404) << "another server's";
  EXPECT_EQ(upstream_.requests().size(), before);
}

TEST_F(EdgeServerTest, ASessionOfAnotherUserIsRefusedOnTheSameConnectionToo) {
  SetAnswer([](const std::string&) { return JsonResponse("{}", "Mcp-Session-Id: up-1\r\n"); });
  const std::string session = Post("org", {Bearer("ours-ada")}).Field("Mcp-Session-Id");
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  const auto as = [&](const std::string& token) {
    socket->Send(Render("POST", "/mcp/org", {Bearer(token), "Mcp-Session-Id: " + session}, kCall));
    return ParseReply(socket->ReadMessage()).status;
  };
  EXPECT_EQ(as("ours-ada"), 200);
  EXPECT_EQ(as("ours-bob"), 404);
  EXPECT_EQ(as("ours-ada"), 200);
}

// --- upstream 401 ---

TEST_F(EdgeServerTest, PassthroughInAndOutRelaysTheUpstreamsChallenge) {
  SetAnswer([](const std::string&) { return Refusal("Bearer realm=\"up\""); });
  const Reply open = Post("through", {"Authorization: Bearer theirs"});
  EXPECT_EQ(open.status, 401);
  EXPECT_EQ(open.Field("WWW-Authenticate"), "Bearer realm=\"up\"");
  EXPECT_EQ(open.body, "no");
  const Reply validated = Post("jwt", {Bearer("idp-ada")});
  EXPECT_EQ(validated.status, 401);
  EXPECT_EQ(validated.Field("WWW-Authenticate"), "Bearer realm=\"up\"");
}

TEST_F(EdgeServerTest, ARefusedSharedCredentialIs502AndNoChallenge) {
  SetAnswer([](const std::string&) { return Refusal(); });
  for (const Reply& reply : {Post("open"), Post("org", {Bearer("ours-ada")})}) {
    EXPECT_EQ(reply.status, 502);
    EXPECT_EQ(reply.Reason(), "credential_refused");
    EXPECT_EQ(reply.Field("WWW-Authenticate"), "");
  }
}

TEST_F(EdgeServerTest, ARefusedCredentialOfTheAgentIsToldSo) {
  SetAnswer([](const std::string&) { return Refusal(); });
  const Reply reply = Post("agent", {Bearer("ours-ada"), "X-Sallyport-Authorization: Bearer x"});
  EXPECT_EQ(reply.status, 502);
  EXPECT_EQ(reply.Reason(), "agent_credential_refused");
  EXPECT_EQ(reply.Field("WWW-Authenticate"), "");
}

TEST_F(EdgeServerTest, AUsersRefusedTokenIsRefreshedOnceAndTheCallRetried) {
  broker_.Link("ada");
  SetAnswer([](const std::string& request) {
    return absl::StrContains(request, "-v1") ? Refusal() : JsonResponse(R"({"ok":1})");
  });
  EXPECT_EQ(Post("user", {Bearer("ours-ada")}).status, 200);
  ASSERT_THAT(upstream_.requests(), SizeIs(2));
  EXPECT_THAT(upstream_.requests()[1], HasSubstr("app-token-of-ada-v2"));
  EXPECT_THAT(upstream_.requests()[1], HasSubstr(kCall)) << "the same body";
}

TEST_F(EdgeServerTest, RefusedAgainTheAccountNeedsLinking) {
  broker_.Link("ada");
  SetAnswer([](const std::string&) { return Refusal(); });
  const Reply reply = Post("user", {Bearer("ours-ada")});
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Json()["result"]["isError"], true);
  EXPECT_THAT(upstream_.requests(), SizeIs(2)) << "one retry";
  EXPECT_EQ(broker_.requests().back().refused_version(), 1);
}

TEST_F(EdgeServerTest, AnUpstreamThatIsGoneIs502) {
  SetAnswer([](const std::string&) { return std::string("nonsense\r\n\r\n"); });
  const Reply reply = Post("open");
  EXPECT_EQ(reply.status, 502);
  EXPECT_EQ(reply.Reason(), "upstream_bad_response");
}

// --- links ---

TEST_F(EdgeServerTest, TheLinkSignalHasTheFormTheClientUnderstands) {
  const Reply text = Post("user", {Bearer("ours-ada")});
  EXPECT_EQ(text.Json()["result"]["isError"], true);
  EXPECT_THAT(text.body, HasSubstr("https://gw.example.com/connect/user?for=x"));
  const Reply modern = Post("user", {Bearer("ours-ada")}, ModernCall());
  EXPECT_EQ(modern.Json()["result"]["resultType"], "input_required");
  EXPECT_EQ(modern.Json()["result"]["requestState"], "sp1.state");

  const Reply opened = Post("user", {Bearer("ours-ada")},
                            R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",
                                "capabilities":{"elicitation":{"url":{}}}}})");
  const Reply legacy = Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + opened.Field("Mcp-Session-Id")});
  EXPECT_EQ(legacy.Json()["error"]["code"], -32042) << legacy.body;
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, WithoutAnAccountNotificationsAreTakenAndListsAreSynthetic) {
  EXPECT_EQ(Post("user", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","method":"notifications/initialized"})").status,
            202);
  const Reply list = Post("user", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})");
  EXPECT_EQ(list.Json()["result"]["tools"][0]["name"], "connect_account");
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

std::string Retried(const std::string& action = "accept") {
  return ModernCall(R"(, "requestState":"sp1.state","inputResponses":{"sallyport_link_github":{"action":")" + action +
                    "\"}}");
}

TEST_F(EdgeServerTest, ALinkedRetryGoesUpstreamWithoutOurMembers) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  broker_.Link("ada");
  EXPECT_EQ(Post("user", {Bearer("ours-ada")}, Retried()).status, 200);
  const std::string request = LastUpstream();
  const std::string body = request.substr(request.find("\r\n\r\n") + 4);
  EXPECT_EQ(body, ModernCall()) << "as the client first made it";
  EXPECT_THAT(request, HasSubstr("Content-Length: " + std::to_string(body.size()) + "\r\n"));
}

TEST_F(EdgeServerTest, TheUpstreamsInputResponsesStay) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  broker_.Link("ada");
  Post(
      "user", {Bearer("ours-ada")},
      ModernCall(
          R"(,"inputResponses":{"theirs":{"action":"accept"},"sallyport_link_github":{"action":"accept"}},"requestState":"sp1.state")"));
  const std::string request = LastUpstream();
  const json params = json::parse(request.substr(request.find("\r\n\r\n") + 4))["params"];
  EXPECT_EQ(params["inputResponses"], json::parse(R"({"theirs":{"action":"accept"}})"));
  EXPECT_FALSE(params.contains("requestState"));
}

TEST_F(EdgeServerTest, AForgedOrForeignStateIsRefused) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  const Reply forged = Post("user", {Bearer("ours-ada")}, ModernCall(R"(,"requestState":"sp1.forged")"));
  EXPECT_EQ(forged.status, 400);
  EXPECT_EQ(forged.Json()["error"]["code"], -32602);
  std::string other_call = Retried();
  other_call.replace(other_call.find(R"("q":1)"), 5, R"("q":2)");
  EXPECT_EQ(Post("user", {Bearer("ours-ada")}, other_call).status, 400) << "of another call";
}

TEST_F(EdgeServerTest, DecliningEndsTheCall) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  for (const char* action : {"decline", "cancel"}) {
    const Reply reply = Post("user", {Bearer("ours-ada")}, Retried(action));
    EXPECT_EQ(reply.Json()["result"]["isError"], true) << action;
  }
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, AWaitingCallCompletesWhenTheUserReturns) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  socket->Send(Render("POST", "/mcp/user", {Bearer("ours-ada")}, Retried()));
  EXPECT_THAT(socket->ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  EXPECT_THAT(upstream_.requests(), IsEmpty());
  SetAnswer([](const std::string&) { return JsonResponse(R"({"jsonrpc":"2.0","id":8,"result":{"done":true}})"); });
  broker_.Link("ada");
  registry_.Invalidate(Invalidation::CONNECTION, "okta:ada\napp_x\n", 1);
  EXPECT_THAT(socket->ReadUntil("\"done\":true"), HasSubstr("data: "));
  EXPECT_THAT(upstream_.requests(), SizeIs(1));
}

TEST_F(EdgeServerTest, ALinkMadeJustBeforeWaitingIsNoticedWithoutBeingTold) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  socket->Send(Render("POST", "/mcp/user", {Bearer("ours-ada")}, Retried()));
  EXPECT_THAT(socket->ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  broker_.Link("ada");
  EXPECT_THAT(socket->ReadUntil("\"result\""), HasSubstr("data: "));
  EXPECT_THAT(upstream_.requests(), SizeIs(1));
}

TEST_F(EdgeServerTest, ASyntheticSessionIsReplayedAfterLinking) {
  const std::string initialize =
      R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}})";
  const Reply opened = Post("user", {Bearer("ours-ada")}, initialize);
  EXPECT_EQ(opened.Json()["result"]["protocolVersion"], "2025-11-25");
  const std::string session = opened.Field("Mcp-Session-Id");
  ASSERT_NE(session, "");
  EXPECT_EQ(Post("user", {Bearer("ours-bob"), "Mcp-Session-Id: " + session}).status, 404);

  broker_.Link("ada");
  SetAnswer([](const std::string& request) {
    return JsonResponse(R"({"jsonrpc":"2.0","id":7,"result":{}})",
                        absl::StrContains(request, "initialize\"") ? "Mcp-Session-Id: up-9\r\n" : "");
  });
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 200);
  auto requests = upstream_.requests();
  ASSERT_THAT(requests, SizeIs(3));
  EXPECT_THAT(requests[0], HasSubstr(R"("params":{"protocolVersion":"2025-11-25","capabilities":{}})"));
  EXPECT_THAT(requests[0], HasSubstr("app-token-of-ada"));
  EXPECT_THAT(requests[0], Not(HasSubstr("Mcp-Session-Id")));
  EXPECT_THAT(requests[1], HasSubstr("notifications/initialized"));
  EXPECT_THAT(requests[1], HasSubstr("Mcp-Session-Id: up-9\r\n"));
  EXPECT_THAT(requests[2], HasSubstr(kCall));
  EXPECT_THAT(requests[2], HasSubstr("Mcp-Session-Id: up-9\r\n"));
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 200);
  requests = upstream_.requests();
  ASSERT_THAT(requests, SizeIs(4)) << "replayed once";
  EXPECT_THAT(requests[3], HasSubstr("Mcp-Session-Id: up-9\r\n"));
}

TEST_F(EdgeServerTest, AnUpstreamThatRefusesTheReplayMakesTheClientInitializeAnew) {
  const Reply opened =
      Post("user", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}})");
  const std::string session = opened.Field("Mcp-Session-Id");
  broker_.Link("ada");
  SetAnswer([](const std::string&) { return std::string("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"); });
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 404);
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 404);
  EXPECT_THAT(upstream_.requests(), SizeIs(1));
}

// --- audit ---

TEST_F(EdgeServerTest, EveryCallAndEveryRefusalIsRecordedWithoutItsSecrets) {
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736";
  Post("org", {Bearer("ours-ada"), "traceparent: 00-" + trace + "-00f067aa0ba902b7-01"});
  Post("org", {Bearer("ours-ada"), "traceparent: 00-\xff\xff" + trace.substr(2) + "-00f067aa0ba902b7-01"});
  Post("org");
  Send("OPTIONS", "/mcp/org");
  Post("open", {}, "{\"id\":1,\"method\":\"a\xff\"}");
  ASSERT_TRUE(Soon([&] { return audit_.events().size() >= 4; }));
  const auto events = audit_.events();
  ASSERT_THAT(events, SizeIs(4)) << "preflights are not calls";
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].source(), "edge/test");
    EXPECT_EQ(events[i].sequence(), i + 1);
    EXPECT_EQ(events[i].client_address(), "127.0.0.1");
    EXPECT_EQ(events[i].SerializeAsString().find("ours-ada"), std::string::npos);
    EXPECT_EQ(events[i].SerializeAsString().find("org-key"), std::string::npos);
  }
  EXPECT_EQ(events[0].type(), "mcp.call");
  EXPECT_EQ(events[0].subject(), "okta:ada");
  EXPECT_EQ(events[0].rule(), "interactive.allow.everyone");
  EXPECT_EQ(events[0].mcp_method(), "tools/call");
  EXPECT_EQ(events[0].mcp_name(), "search");
  EXPECT_EQ(events[0].trace_id(), trace);
  EXPECT_EQ(events[0].status(), 200);
  ASSERT_THAT(events[0].credentials(), SizeIs(1));
  EXPECT_EQ(events[1].trace_id(), "") << "not what the format has";
  EXPECT_EQ(events[2].type(), "mcp.denied");
  EXPECT_EQ(events[2].status(), 401);
  EXPECT_EQ(events[2].decision(), audit::v1::DECISION_DENIED);
  EXPECT_EQ(events[3].status(), 400);
}

// --- the API ---

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
  for (const char* method :
       {"sallyport.registry.v1.Registry/Watch", "sallyport.registry.v1.Registry/PublishInvalidations",
        "sallyport.authn.v1.Authn/Authenticate", "sallyport.authn.v1.Authn/GetEdgeKeys",
        "sallyport.authn.v1.Authn/GetPassport", "sallyport.token_broker.v1.TokenBroker/ResolveCredentials",
        "sallyport.vault.v1.Vault/Get", "sallyport.audit.v1.Audit/Append", "sallyport.registry.v1.Registry/Nope", "x",
        "", "sallyport.registry.v1.Registry"}) {
    EXPECT_EQ(Send("POST", std::string("/api/") + method, {kJson, Bearer("api-ada")}, "{}").status, 404) << method;
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

// --- restarts, limits, configuration ---

TEST_F(EdgeServerTest, BeforeItHasAConfigurationNoServerIsSaidNotToExist) {
  edge_->Shutdown(absl::ZeroDuration());
  edge_.reset();
  registry_.SetDown(true);
  std::filesystem::remove(directory_.File("snapshot"));
  auto edge = EdgeServer::Start(
      Config(), clock_,
      {authn_server_.channel(), broker_server_.channel(), authn_server_.channel(), registry_server_.channel()});
  ASSERT_THAT(edge, IsOk());
  edge_ = *std::move(edge);
  EXPECT_FALSE(edge_->Ready().ok());
  const Reply reply = Post("open");
  EXPECT_EQ(reply.status, 503) << "a 404 would make clients forget it";
  EXPECT_EQ(reply.Field("Retry-After"), "1");
}

TEST_F(EdgeServerTest, ARestartedEdgeServesWithoutTheRegistry) {
  ASSERT_EQ(Post("open").status, 200);
  ASSERT_TRUE(Soon([&] { return std::filesystem::exists(directory_.File("snapshot")); }));
  edge_->Shutdown(absl::ZeroDuration());
  edge_.reset();
  registry_.SetDown(true);
  SetUp();
  EXPECT_EQ(Post("open").status, 200);
}

TEST_F(EdgeServerTest, AChangeOfConfigurationTakesEffect) {
  ASSERT_EQ(Post("open").status, 200);
  registry_.Put(FromJson<registry::v1::McpServer>(
      R"({"uid":"srv_org_open","slug":"open","version":"2","enabled":false,"upstreamUrl":"https://x.example.com",)"
      R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}}})"));
  EXPECT_TRUE(Soon([&] { return Post("open").status == 404; }));
}

TEST(EdgeConfig, RefusalsNameTheField) {
  const auto refused = [](const std::string& json_text) {
    return std::string(ValidateEdgeConfig(FromJson<config::v1::EdgeConfig>(json_text)).message());
  };
  EXPECT_THAT(refused("{}"), HasSubstr("listen"));
  const std::string base = R"("dataDirectory":"/x","deployment":{"publicUrl":"https://gw.example.com"})";
  EXPECT_EQ(refused(R"({"listen":"127.0.0.1:0",)" + base + "}"), "");
  EXPECT_THAT(refused(R"({"listen":"0.0.0.0:80",)" + base + "}"), HasSubstr("tls"));
  EXPECT_EQ(refused(R"({"listen":"0.0.0.0:80","behindTlsProxy":true,)" + base + "}"), "");
  EXPECT_THAT(refused(R"({"listen":"127.0.0.1:0","threads":1000,)" + base + "}"), HasSubstr("threads"));
  EXPECT_THAT(
      refused(R"({"listen":"127.0.0.1:0","dataDirectory":"/x","deployment":{"publicUrl":"https://gw.example.com/"}})"),
      HasSubstr("deployment.publicUrl"));
  EXPECT_THAT(
      refused(R"({"listen":"127.0.0.1:0","dataDirectory":"/x","deployment":{"publicUrl":"https://gw.example.com",
                          "allowedOrigins":["https://a.example/x"]}})"),
      HasSubstr("deployment.allowedOrigins"));
  EXPECT_THAT(
      refused(R"({"listen":"127.0.0.1:0","dataDirectory":"/x","deployment":{"publicUrl":"https://gw.example.com",
                          "trustedProxies":["x"]}})"),
      HasSubstr("trustedProxies"));
}

}  // namespace
}  // namespace sallyport::edge

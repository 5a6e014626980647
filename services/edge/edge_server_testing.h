// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "common/text/base64url.h"
#include "services/edge/edge_server.h"
#include "services/edge/edge_testing.h"
#include "services/edge/http/engine_test_support.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

// A whole edge between a raw client and a raw upstream, with small authn, token_broker and registry services.
namespace sallyport::edge {

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

inline constexpr char kCall[] =
    R"({"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search","arguments":{"q":1}}})";
inline constexpr char kModernMeta[] =
    R"("_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"url":{}}}})";

inline std::string ModernCall(const std::string& extra = "") {
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

inline Reply ParseReply(const std::string& bytes) {
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
  virtual config::v1::EdgeConfig Config() {
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
  // What was recorded, once it is so many.
  std::vector<audit::v1::Event> Events(size_t count) {
    Soon([&] { return audit_.events().size() >= count; });
    return audit_.events();
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
  FakeWeb authn_pages_;
  FakeWeb broker_pages_;
  FakeServer authn_server_{{&authn_, &authn_pages_}};
  FakeServer broker_server_{{&broker_, &broker_pages_}};
  FakeServer registry_server_{{&registry_, &audit_}};
  sallyport::testing::TempDirectory directory_;
  std::mutex mu_;
  std::function<std::string(const std::string&)> answer_;
  FakeUpstream upstream_;
  std::unique_ptr<EdgeServer> edge_;
};

}  // namespace sallyport::edge

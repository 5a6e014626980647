// SPDX-License-Identifier: Apache-2.0
#include "absl/strings/str_replace.h"

#include "services/edge/edge_server_testing.h"

// A hostile upstream and a browser: nothing an upstream sends is a page on the gateway's origin.
namespace sallyport::edge {
namespace {

constexpr char kScript[] = "<html xmlns=\"http://www.w3.org/1999/xhtml\"><script>fetch('/api/')</script></html>";

std::string Raw(const std::string& status, const std::string& fields, const std::string& body = kScript) {
  return "HTTP/1.1 " + status + " X\r\n" + fields + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

class EdgeServerBrowserTest : public EdgeServerTest {
 protected:
  void AnswerWith(const std::string& answer) {
    SetAnswer([answer](const std::string&) { return answer; });
  }
  static void ExpectNoPage(const Reply& reply) {
    EXPECT_EQ(reply.Field("X-Content-Type-Options"), "nosniff") << reply.head;
    EXPECT_EQ(reply.Field("Content-Security-Policy"), "sandbox; default-src 'none'; frame-ancestors 'none'");
    EXPECT_EQ(reply.Field("Cross-Origin-Resource-Policy"), "same-origin");
    EXPECT_EQ(reply.Field("Cache-Control"), "no-store, no-transform");
    for (const char* once : {"X-Content-Type-Options:", "Content-Security-Policy:", "Cross-Origin-Resource-Policy:",
                             "Cache-Control:", "Content-Type:", "Date:"}) {
      EXPECT_EQ(reply.head.find(once), reply.head.rfind(once)) << "one " << once << " in " << reply.head;
    }
    EXPECT_THAT(reply.head, HasSubstr("Date: "));
    EXPECT_THAT(reply.head, Not(HasSubstr("Location")));
    EXPECT_THAT(reply.head, Not(HasSubstr("Refresh")));
    EXPECT_THAT(reply.body, Not(HasSubstr("<")));
    EXPECT_THAT(reply.head, Not(HasSubstr("html")));
  }
  // The user's held call (resumed after linking), once the account is there: what goes into the stream.
  std::string Held() {
    const std::string retried =
        ModernCall(R"(, "requestState":"sp1.state","inputResponses":{"sallyport_link_github":{"action":"accept"}})");
    EXPECT_EQ(Post("user", {Bearer("ours-bob")}, ModernCall()).Json()["result"]["resultType"], "input_required");
    const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
    socket->Send(Render("POST", "/mcp/user", {Bearer("ours-bob")}, retried));
    const Reply opened = ParseReply(socket->ReadUntil("\r\n\r\n"));
    EXPECT_EQ(opened.Field("Content-Type"), "text/event-stream");
    ExpectNoPage(opened);
    broker_.Link("bob");
    registry_.Invalidate(Invalidation::CONNECTION, "okta:bob\napp_x\n", 1);
    return socket->ReadUntil("0\r\n\r\n");
  }
};

struct Hostile {
  const char* fields;
  const char* named;
};
constexpr Hostile kHostile[] = {
    {"Content-Type: text/html\r\n", "text/html"},
    {"Content-Type: TEXT/HTML;charset=utf-7\r\n", "text/html"},
    {"Content-Type: application/xhtml+xml\r\n", "application/xhtml+xml"},
    {"Content-Type: image/svg+xml\r\n", "image/svg+xml"},
    {"Content-Type: application/xml\r\n", "application/xml"},
    {"Content-Type: text/xml\r\n", "text/xml"},
    {"Content-Type: text/plain\r\n", "text/plain"},
    {"Content-Type: text/javascript\r\n", "text/javascript"},
    {"Content-Type: application/pdf\r\n", "application/pdf"},
    {"Content-Type: multipart/x-mixed-replace; boundary=x\r\n", "multipart/x-mixed-replace"},
    {"Content-Type: multipart/byteranges; boundary=x\r\n", "multipart/byteranges"},
    {"", "no Content-Type"},
    {"Content-Type:\r\n", "an unreadable Content-Type"},
    {"Content-Type: application/json\r\nContent-Type: text/html\r\n", "more than one Content-Type"},
    {"Content-Type: text/html\r\ncontent_type: application/json\r\n", "more than one Content-Type"},
    {"Content-Type: application/json, text/html\r\n", "an unreadable Content-Type"},
    {"Content-Type: application/json; charset=utf-16\r\n", "application/json that is not UTF-8"},
    {"Content-Type: text/html\r\nContent-Encoding: gzip\r\nRefresh: 0;url=/logout\r\nLocation: /logout\r\n",
     "text/html"},
};

TEST_F(EdgeServerBrowserTest, ABodyOfAnotherTypeIs502AndNamesTheType) {
  for (const Hostile& hostile : kHostile) {
    for (const char* status : {"200", "201", "203", "205", "206", "299"}) {
      AnswerWith(Raw(status, hostile.fields));
      for (const char* method : {"POST", "GET", "DELETE"}) {
        const Reply reply = Send(method, "/mcp/through", {}, std::string(method) == "POST" ? kCall : "");
        EXPECT_EQ(reply.status, 502) << status << " " << hostile.fields;
        EXPECT_EQ(reply.Field("Content-Type"), "application/json");
        EXPECT_EQ(reply.Reason(), "upstream_body_type") << reply.body;
        EXPECT_THAT(reply.body, HasSubstr(std::string("with ") + hostile.named + "; only")) << reply.body;
        EXPECT_EQ(reply.Json()["id"], std::string(method) == "POST" ? json(7) : json());
        ExpectNoPage(reply);
      }
    }
  }
}

TEST_F(EdgeServerBrowserTest, AnErrorKeepsItsStatusAndLosesABodyOfAnotherType) {
  for (const Hostile& hostile : kHostile) {
    for (const char* status : {"400", "401", "403", "404", "405", "406", "429", "500", "503", "599"}) {
      AnswerWith(
          Raw(status, std::string(hostile.fields) +
                          "Retry-After: 7\r\nAllow: POST\r\nWWW-Authenticate: Bearer realm=up\r\nX-Evil: 1\r\n"));
      const Reply reply = Send("GET", "/mcp/through");
      EXPECT_EQ(std::to_string(reply.status), status);
      EXPECT_EQ(reply.Field("Content-Type"), "application/json");
      EXPECT_EQ(reply.Field("Retry-After"), "7");
      EXPECT_EQ(reply.Field("WWW-Authenticate"), "Bearer realm=up") << "both doors are Passthrough";
      EXPECT_EQ(reply.Field("Allow"), std::string(status) == "405" ? "POST" : "");
      EXPECT_EQ(reply.Field("X-Evil"), "");
      EXPECT_EQ(reply.Reason(), "upstream_error");
      EXPECT_THAT(reply.body, HasSubstr(hostile.named));
      ExpectNoPage(reply);
    }
  }
  AnswerWith(Raw("403", "Content-Type: text/html\r\nWWW-Authenticate: Bearer realm=up\r\n"));
  const Reply validated = Post("org", {Bearer("ours-ada")});
  EXPECT_EQ(validated.status, 403);
  EXPECT_EQ(validated.Field("WWW-Authenticate"), "") << "not the caller's to answer";
  EXPECT_EQ(validated.Json()["id"], 7);
  EXPECT_EQ(Post("through", {"Origin: https://app.example.com"}).Field("Access-Control-Allow-Origin"),
            "https://app.example.com");
}

TEST_F(EdgeServerBrowserTest, TheUpstreamsErrorIsNoRefusalOfOursInTheAudit) {
  AnswerWith(Raw("403", "Content-Type: text/html\r\n"));
  EXPECT_EQ(Post("through").status, 403);
  AnswerWith(Raw("200", "Content-Type: text/html\r\n"));
  EXPECT_EQ(Post("through").status, 502);
  AnswerWith(Raw("307", "Location: /up/\r\n"));
  EXPECT_EQ(Post("through").status, 502);
  const auto events = Events(3);
  ASSERT_THAT(events, SizeIs(3));
  EXPECT_EQ(events[0].decision(), audit::v1::DECISION_ALLOWED);
  EXPECT_EQ(events[0].type(), "mcp.call");
  EXPECT_EQ(events[0].rule(), "passthrough");
  EXPECT_EQ(events[0].status(), 403);
  EXPECT_EQ(events[1].decision(), audit::v1::DECISION_FAILED);
  EXPECT_EQ(events[1].rule(), "upstream_body_type");
  EXPECT_EQ(events[2].rule(), "upstream_redirect");
}

TEST_F(EdgeServerBrowserTest, JsonAndEventStreamsPassWithEveryStatusAndNothingElseOfAPage) {
  const std::string evil =
      "Cache-Control: public, max-age=9\r\nContent-Security-Policy: x\r\nX-Content-Type-Options: x\r\n"
      "Cross-Origin-Resource-Policy: cross-origin\r\nLocation: /x\r\nRefresh: 0\r\nLink: </x>; rel=preload\r\n"
      "Content-Disposition: attachment\r\nX-Accel-Redirect: /x\r\n";
  for (const char* status : {"200", "206", "400", "404", "405", "500"}) {
    for (const char* type :
         {"application/json", "application/json; charset=UTF-8; x=\"text/html\"", "text/event-stream"}) {
      AnswerWith(Raw(status, evil + "X-Fine: 1\r\nContent-Type: " + type + "\r\n", "{}"));
      const Reply reply = Send("GET", "/mcp/through");
      EXPECT_EQ(std::to_string(reply.status), status);
      EXPECT_EQ(reply.Field("X-Fine"), "1");
      EXPECT_EQ(reply.Field("Content-Type"), absl::StartsWith(type, "text") ? "text/event-stream" : "application/json");
      EXPECT_EQ(reply.body, "{}");
      ExpectNoPage(reply);
      for (const char* gone : {"Link", "Content-Disposition", "X-Accel-Redirect"}) EXPECT_EQ(reply.Field(gone), "");
    }
  }
}

TEST_F(EdgeServerBrowserTest, AnswersWithoutABodyNeedNoType) {
  for (const char* answer :
       {"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 X\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 X\r\nContent-Type: text/html\r\n\r\n",
        "HTTP/1.1 202 X\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"}) {
    AnswerWith(answer);
    const Reply reply = Send("DELETE", "/mcp/through");
    EXPECT_EQ(std::to_string(reply.status), std::string(answer).substr(9, 3));
    EXPECT_EQ(reply.body, "");
    EXPECT_EQ(reply.Field("Content-Type"), "");
    ExpectNoPage(reply);
  }
}

TEST_F(EdgeServerBrowserTest, TheBodyOfA202IsDropped) {
  for (const std::string& answer :
       {Raw("202", "Content-Type: text/html\r\n"), Raw("202", "Content-Type: application/json\r\n", "{}"),
        Raw("202", ""),
        std::string("HTTP/1.1 202 X\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"),
        std::string("HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n<a>\r\n0\r\n\r\n")}) {
    AnswerWith(answer);
    const Reply reply = Post("through", {}, R"({"jsonrpc":"2.0","method":"notifications/initialized"})");
    EXPECT_EQ(reply.status, 202) << answer;
    EXPECT_EQ(reply.body, "");
    EXPECT_EQ(reply.Field("Content-Length"), "0");
    EXPECT_EQ(reply.Field("Content-Type"), "");
    ExpectNoPage(reply);
  }
}

TEST_F(EdgeServerBrowserTest, S4_RedirectsAreNotFollowedAndNameTheRemedy) {
  const std::string origin = "http://127.0.0.1:" + std::to_string(upstream_.port());
  for (const char* status : {"300", "301", "302", "303", "304", "307", "308"}) {
    AnswerWith(Raw(status, "Content-Type: application/json\r\nLocation: " + origin + "/up/?key=s3cret\r\n", "{}"));
    if (std::string(status) == "304") AnswerWith("HTTP/1.1 304 X\r\nLocation: " + origin + "/up/?key=s3cret\r\n\r\n");
    const Reply reply = Post("through");
    EXPECT_EQ(reply.status, 502) << status;
    EXPECT_EQ(reply.Reason(), "upstream_redirect");
    EXPECT_EQ(reply.Json()["error"]["message"], std::string("the upstream redirects (HTTP ") + status + ") to " +
                                                    origin +
                                                    "/up/, and redirects are not followed: set upstreamUrl to …/up/");
    EXPECT_THAT(reply.body, Not(HasSubstr("s3cret")));
    ExpectNoPage(reply);
  }
  EXPECT_THAT(upstream_.requests(), SizeIs(7));
  AnswerWith(Raw("302", "Location: javascript:alert(1)//<script>\r\n"));
  const Reply odd = Post("through");
  EXPECT_EQ(odd.status, 502);
  EXPECT_THAT(odd.body, Not(HasSubstr("script")));
}

TEST_F(EdgeServerBrowserTest, AHeldStreamTellsOfAnAnswerThatIsNoMcp) {
  AnswerWith(Raw("200", "Content-Type: text/html\r\n"));
  const std::string event = Held();
  EXPECT_THAT(event, HasSubstr("event: message\ndata: {"));
  EXPECT_THAT(event, HasSubstr("upstream_body_type"));
  EXPECT_THAT(event, HasSubstr("\"id\":8"));
  EXPECT_THAT(event, Not(HasSubstr("<")));
}

TEST_F(EdgeServerBrowserTest, AHeldStreamTellsOfAnErrorThatIsAPage) {
  AnswerWith(Raw("404", "Content-Type: text/html\r\n"));
  const std::string event = Held();
  EXPECT_THAT(event, HasSubstr("upstream_error"));
  EXPECT_THAT(event, HasSubstr("HTTP 404"));
  EXPECT_THAT(event, Not(HasSubstr("<")));
}

TEST_F(EdgeServerBrowserTest, AHeldStreamTellsOfARedirect) {
  AnswerWith(Raw("307", "Location: /up/\r\n"));
  EXPECT_THAT(Held(), HasSubstr("upstream_redirect"));
}

TEST_F(EdgeServerBrowserTest, AReplayedSessionTellsOfAnAnswerThatIsNoMcp) {
  for (const std::string& answer : {Raw("200", "Content-Type: text/html\r\n"), Raw("307", "Location: /up/\r\n")}) {
    const std::string user = absl::StartsWith(answer, "HTTP/1.1 2") ? "ours-ada" : "ours-bob";
    const Reply opened = Post("user", {Bearer(user)}, R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}})");
    const std::string session = "Mcp-Session-Id: " + opened.Field("Mcp-Session-Id");
    broker_.Link(user.substr(5));
    AnswerWith(answer);
    const Reply reply = Post("user", {Bearer(user), session});
    EXPECT_EQ(reply.status, 502);
    EXPECT_THAT(reply.Reason(), ::testing::AnyOf("upstream_body_type", "upstream_redirect"));
    ExpectNoPage(reply);
    AnswerWith(JsonResponse(R"({"jsonrpc":"2.0","id":7,"result":{}})"));
    EXPECT_EQ(Post("user", {Bearer(user), session}).status, 200) << "once the upstream is right, the session goes on";
  }
}

TEST_F(EdgeServerBrowserTest, AReplayTakesAnEmptyAnswerOfAnyType) {
  const Reply opened =
      Post("user", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}})");
  broker_.Link("ada");
  SetAnswer([](const std::string& request) {
    return absl::StrContains(request, "notifications/") ? std::string(
                                                              "HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\n"
                                                              "2\r\nok\r\n0\r\n\r\n")
                                                        : JsonResponse(R"({"jsonrpc":"2.0","id":7,"result":{}})");
  });
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + opened.Field("Mcp-Session-Id")}).status, 200);
}

TEST_F(EdgeServerBrowserTest, W9_TheGatewaysOwnAnswersUnderMcpAreNoPagesEither) {
  const std::string origin = "Origin: https://app.example.com";
  const auto check = [](int status, const Reply& reply) {
    EXPECT_EQ(reply.status, status) << reply.head;
    ExpectNoPage(reply);
  };
  check(404, Post("nope"));
  check(404, Post("off"));
  check(401, Post("org"));
  check(403, Post("near"));
  check(403, Post("open", {"Host: evil.example"}));
  check(403, Post("open", {"Origin: https://evil.example"}));
  check(405, Send("PUT", "/mcp/open"));
  check(204, Send("OPTIONS", "/mcp/org", {origin}));
  check(400, Post("open", {}, "{"));
  check(202, Post("user", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","method":"notifications/initialized"})"));
  check(200, Post("user", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})"));
  AnswerWith("nonsense\r\n\r\n");
  check(502, Post("open"));
  for (const auto& [status, head] : {std::pair(413, "Host: gw.example.com\r\nContent-Length: 99999999\r\n"),
                                     std::pair(400, "Content-Length: 0\r\n")}) {
    const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
    socket->Send(std::string("POST /mcp/open HTTP/1.1\r\n") + head + "\r\n");
    check(status, ParseReply(socket->ReadMessage()));
  }
  EXPECT_EQ(Send("GET", "/login").Field("Content-Security-Policy"), "") << "a page says so itself";
}

TEST_F(EdgeServerBrowserTest, ANavigationGetsAPageOfOurs) {
  std::vector<std::string> bodies;
  for (const char* slug : {"through", "org", "off", "nope", "near"}) {
    const Reply reply =
        Send("GET", std::string("/mcp/") + slug, {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"});
    EXPECT_EQ(reply.status, 406) << slug;
    EXPECT_EQ(reply.Field("Content-Type"), "text/html; charset=utf-8");
    EXPECT_THAT(reply.Field("Content-Security-Policy"), HasSubstr("default-src 'none'; style-src 'self'"));
    EXPECT_THAT(reply.Field("Content-Security-Policy"), HasSubstr("frame-ancestors 'none'"));
    EXPECT_THAT(reply.Field("Content-Security-Policy"), Not(HasSubstr("sandbox"))) << "or it would have no style";
    EXPECT_EQ(reply.Field("X-Content-Type-Options"), "nosniff");
    EXPECT_EQ(reply.Field("X-Frame-Options"), "DENY");
    EXPECT_EQ(reply.Field("Cross-Origin-Resource-Policy"), "same-origin");
    EXPECT_EQ(reply.Field("Cache-Control"), "no-store, no-transform");
    const std::string head = absl::AsciiStrToLower(reply.head);
    for (const char* once : {"content-security-policy:", "cache-control:", "x-content-type-options:"})
      EXPECT_EQ(head.find(once), head.rfind(once)) << once;
    EXPECT_THAT(reply.body, HasSubstr("This address is for MCP clients"));
    const std::string address = std::string("https://gw.example.com/mcp/") + slug;
    EXPECT_THAT(reply.body, HasSubstr("claude mcp add --transport http " + std::string(slug) + " " + address));
    bodies.push_back(
        absl::StrReplaceAll(reply.body, {{std::string("/mcp/") + slug, ""}, {std::string(" ") + slug, ""}}));
  }
  EXPECT_THAT(bodies, ::testing::Each(bodies[0])) << "it tells nothing of which servers there are";
  EXPECT_EQ(Send("POST", "/mcp/through", {"sec-fetch-mode: Navigate"}, "a=b").status, 406) << "a form";
  EXPECT_EQ(Send("GET", "/mcp/through", {"Sec-Fetch-Mode: navigate", "Origin: https://evil.example"}).status, 403);
  EXPECT_THAT(upstream_.requests(), IsEmpty());
  for (const char* mode : {"cors", "no-cors", "same-origin", "", "navigated"}) {
    EXPECT_EQ(Post("through", {std::string("Sec-Fetch-Mode: ") + mode}).status, 200) << mode;
  }
  EXPECT_EQ(Post("through", {"Sec-Fetch-Dest: navigate", "X-Sec-Fetch-Mode: navigate"}).status, 200);
}

TEST_F(EdgeServerBrowserTest, APathThatIsNoSlugIsNotPutOnThePage) {
  for (const char* path :
       {"/mcp/%3Cscript%3Eevil", "/mcp/-evil", "/mcp/a/evil", "/mcp/EVIL", "/mcp/1evil", "/mcp/call%20evil", "/mcp/"}) {
    const Reply reply = Send("GET", path, {"Sec-Fetch-Mode: navigate"});
    EXPECT_EQ(reply.status, 406) << path;
    EXPECT_THAT(absl::AsciiStrToLower(reply.body), Not(HasSubstr("evil"))) << path;
    EXPECT_THAT(reply.body, HasSubstr("https://gw.example.com/mcp/&lt;server&gt;")) << path;
  }
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/header_rules.h"

#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/edge/http/request_parser.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::edge {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

// A parsed head that owns its bytes.
struct Request {
  explicit Request(const std::string& fields) : text("POST /x HTTP/1.1\r\nHost: gw\r\n" + fields + "\r\n") {
    RequestParser parser;
    EXPECT_EQ(parser.Parse(text.data(), text.size(), head), RequestParser::Result::kDone) << parser.reason();
  }
  std::string text;
  RequestHead head;
};

RequestRules Rules(const std::vector<std::string>& restricted, const std::vector<std::string>& injected) {
  auto rules = RequestRules::Compile(restricted, injected);
  EXPECT_THAT(rules, IsOk());
  return *std::move(rules);
}

std::string Kept(const std::string& fields, const RequestRules& rules = RequestRules()) {
  const auto request = std::make_unique<Request>(fields);
  std::string out;
  rules.AppendFields(request->head, HeaderId::kOther, out);
  return out;
}

TEST(RequestRulesTest, OrdinaryAndMcpFieldsPassAsTheyCame) {
  const std::string fields =
      "Accept: application/json\r\ncontent-type: application/json\r\nMcp-Session-Id: s\r\nMCP-Protocol-Version: v\r\n"
      "Mcp-Param-Foo: bar\r\nLast-Event-ID: 7\r\ntraceparent: 00-1-2-01\r\nUser-Agent: x\r\nAccept-Encoding: gzip\r\n";
  EXPECT_EQ(Kept(fields), fields);
}

TEST(RequestRulesTest, HopByHopAndFramingFieldsAreDropped) {
  EXPECT_EQ(Kept("Connection: close\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nTE: trailers\r\nTrailer: x\r\n"
                 "Content-Length: 3\r\nExpect: 100-continue\r\nHTTP2-Settings: x\r\n"),
            "");
  EXPECT_EQ(Kept("Transfer-Encoding: chunked\r\n"), "");
}

TEST(RequestRulesTest, NamesListedInConnectionAreDropped) {
  EXPECT_EQ(Kept("Connection: close, X-A\r\nX_a: 1\r\nX-B: 2\r\n"), "X-B: 2\r\n");
}

class AlwaysDroppedTest : public ::testing::TestWithParam<const char*> {};
TEST_P(AlwaysDroppedTest, InEverySpelling) { EXPECT_EQ(Kept(std::string(GetParam()) + ": x\r\n"), ""); }
INSTANTIATE_TEST_SUITE_P(All, AlwaysDroppedTest,
                         ::testing::Values("authorization", "AUTHORIZATION", "Proxy-Authorization", "Cookie",
                                           "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X_Forwarded_Groups",
                                           "x-forwarded-", "X-Real-IP", "X-Original-URL", "X-Rewrite-URL",
                                           "X-HTTP-Method-Override", "Origin", "Referer", "Sec-Fetch-Site",
                                           "Sec_Fetch_Mode", "X-Sallyport-User", "x-sallyport_user",
                                           "X-Sallyport-Authorization", "X-Sallyport-Account", "x_sallyport_account"));

struct Identity {
  const char* name;
  bool passes = false;  // Though nobody has asked for identity headers to go on.
};
class IdentityHeaderTest : public ::testing::TestWithParam<Identity> {};
TEST_P(IdentityHeaderTest, IsDroppedUnlessTheServerForwardsIdentity) {
  const std::string fields = std::string(GetParam().name) + ": root\r\n";
  RequestRules forwarding;
  forwarding.ForwardIdentity();

  EXPECT_EQ(Kept(fields), GetParam().passes ? fields : "");
  EXPECT_EQ(Kept(fields, forwarding), fields);
}
INSTANTIATE_TEST_SUITE_P(
    All, IdentityHeaderTest,
    ::testing::Values(
        Identity{"Impersonate-User"}, Identity{"impersonate_group"}, Identity{"Impersonate-Extra-Scopes"},
        Identity{"Proxy"}, Identity{"PROXY"}, Identity{"X-HTTP-Method"}, Identity{"X-Method-Override"},
        Identity{"X-Original-Host"}, Identity{"X-Host"}, Identity{"True-Client-IP"}, Identity{"CF-Connecting-IP"},
        Identity{"Cf-Access-Jwt-Assertion"}, Identity{"Cf-Access-Authenticated-User-Email"}, Identity{"X-Client-IP"},
        Identity{"X-Cluster-Client-IP"}, Identity{"Client-Cert"}, Identity{"Client-Cert-Chain"},
        Identity{"SSL-Client-Cert"}, Identity{"X-SSL-Client-Verify"}, Identity{"Remote-User"}, Identity{"REMOTE_USER"},
        Identity{"Remote-Groups"}, Identity{"X-Remote-User"}, Identity{"X-Remote-Extra-scopes"},
        Identity{"X-Auth-Request-Email"}, Identity{"X-Forwarded-User"}, Identity{"x_forwarded_user"},
        Identity{"X-Forwarded-Email"}, Identity{"X-WEBAUTH-USER"}, Identity{"X-Amzn-Oidc-Data"},
        Identity{"X-Goog-IAP-JWT-Assertion"}, Identity{"X-Goog-Authenticated-User-Email"},
        Identity{"X-MS-Client-Principal"}, Identity{"X-MS-CLIENT-PRINCIPAL-NAME"}, Identity{"X-Pomerium-Jwt-Assertion"},
        Identity{"Tailscale-User-Login"},
        // Names that only begin like one of them.
        Identity{"X-Hosted", true}, Identity{"Proxying", true}, Identity{"Remote", true}, Identity{"X-Remotely", true},
        Identity{"Impersonates", true}, Identity{"X-Goog-User-Project", true}, Identity{"Cf-Ray", true},
        Identity{"X-Auth-Token", true}, Identity{"X-Amzn-Trace-Id", true}, Identity{"X-MS-Client-Request-Id", true},
        Identity{"X", true}, Identity{"X-", true}),
    [](const auto& tested) {
      std::string name = tested.param.name;
      for (char& c : name) {
        c = c == '-' ? 'D' : c;
      }
      return name;
    });

TEST(RequestRulesTest, ForwardingIdentityForwardsNothingElse) {
  RequestRules rules = Rules({"x-remote-extra-*"}, {"Remote-User"});
  rules.ForwardIdentity();
  EXPECT_EQ(Kept("X-Forwarded-For: a\r\nX-Forwarded-Groups: b\r\nX-HTTP-Method-Override: c\r\nX-Sallyport-User: d\r\n"
                 "Cookie: e\r\nremote_user: f\r\nX-Remote-Extra-A: g\r\nX-Remote-User: h\r\n",
                 rules),
            "X-Remote-User: h\r\n");
}

TEST(RequestRulesTest, RestrictedGlobsMatchNormalizedNames) {
  const RequestRules rules = Rules({"x-internal-*", "*-secret", "x-?-id", "Exact_Name"}, {});

  EXPECT_EQ(
      Kept("X-Internal-A: 1\r\nx-internal-: 1\r\nx_internal-a: 1\r\nMy-Secret: 1\r\nX-9-Id: 1\r\nexact-name: 1\r\n",
           rules),
      "");
  EXPECT_EQ(Kept("xinternal-a: 1\r\nx-10-id: 1\r\nsecret-x: 1\r\n", rules),
            "xinternal-a: 1\r\nx-10-id: 1\r\nsecret-x: 1\r\n");
}

TEST(RequestRulesTest, InjectedNamesCannotBePreSet) {
  const RequestRules rules = Rules({}, {"X-User-Email", "X-API-Key"});
  EXPECT_EQ(Kept("x-user-email: a\r\nX_User_Email: b\r\nX-USER-EMAIL: c, d\r\nx-api-key: e\r\nX-Other: f\r\n", rules),
            "X-Other: f\r\n");
}

TEST(RequestRulesTest, DecideNamesTheFirstRuleThatDrops) {
  const RequestRules rules = Rules({"x-internal-*", "cookie"}, {"x-internal-user"});
  const auto request = std::make_unique<Request>(
      "Cookie: a\r\nX-Internal-User: b\r\nConnection: X-Listed\r\nX-Listed: c\r\nX-Fine: d\r\nRemote-User: e\r\n");
  std::vector<DropReason> reasons;
  for (const HeaderField& field : request->head.fields()) {
    reasons.push_back(rules.Decide(request->head, field));
  }
  EXPECT_THAT(reasons, ::testing::ElementsAre(DropReason::kFraming, DropReason::kAlways, DropReason::kRestricted,
                                              DropReason::kHopByHop, DropReason::kConnectionListed, DropReason::kKept,
                                              DropReason::kIdentity));
  EXPECT_EQ(DropReasonName(DropReason::kIdentity), "identity");
  EXPECT_EQ(DropReasonName(DropReason::kFraming), "framing");
}

TEST(RequestRulesTest, SkipsOneMoreField) {
  const auto request = std::make_unique<Request>("Mcp-Session-Id: s\r\nAccept: a\r\n");
  std::string out;
  RequestRules().AppendFields(request->head, HeaderId::kMcpSessionId, out);
  EXPECT_EQ(out, "Accept: a\r\n");
}

TEST(NamePatternsTest, RefusesWhatIsNoPattern) {
  EXPECT_THAT(NamePatterns::Compile({""}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(NamePatterns::Compile({"a b"}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(NamePatterns::Compile({"a:"}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(NamePatterns::Compile({std::string(129, 'a')}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(RequestRules::Compile({}, {"X-*"}), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(NamePatternsTest, ManyStarsStayCheap) {
  const auto patterns = NamePatterns::Compile({"*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"});
  ASSERT_THAT(patterns, IsOk());
  EXPECT_FALSE(patterns->Matches(std::string(8000, 'a')));
}

UpstreamTarget Target(const std::string& url) {
  auto target = ParseUpstreamUrl(url);
  EXPECT_THAT(target, IsOk());
  return *std::move(target);
}

std::string Line(const std::string& url, std::string_view query, std::string_view key = "",
                 std::string_view value = "") {
  std::string out;
  AppendRequestLine("POST", Target(url), query, key, value, out);
  return out.substr(0, out.find("\r\n"));
}

TEST(RequestLineTest, CallersQueryFollowsTheUrlsOwn) {
  EXPECT_EQ(Line("https://a.example/mcp", ""), "POST /mcp HTTP/1.1");
  EXPECT_EQ(Line("https://a.example/mcp", "x=1"), "POST /mcp?x=1 HTTP/1.1");
  EXPECT_EQ(Line("https://a.example/mcp?v=2", "x=1"), "POST /mcp?v=2&x=1 HTTP/1.1");
  EXPECT_EQ(Line("https://a.example", ""), "POST / HTTP/1.1");
}

TEST(RequestLineTest, ApiKeyReplacesWhatTheCallerSent) {
  EXPECT_EQ(Line("https://a.example/mcp", "api_key=mine&x=1&api%5Fkey=again&api_key", "api_key", "k 1&"),
            "POST /mcp?x=1&api_key=k%201%26 HTTP/1.1");
  EXPECT_EQ(Line("https://a.example/mcp?api_key=old", "", "api_key", "new"), "POST /mcp?api_key=new HTTP/1.1");
  EXPECT_EQ(Line("https://a.example/mcp?v=2;API_KEY=3", "api_keys=1&API_KEY=2", "api_key", "n"),
            "POST /mcp?v=2&api_keys=1&api_key=n HTTP/1.1");
}

TEST(RequestLineTest, HostIsTheUpstreams) {
  std::string out;
  AppendRequestLine("GET", Target("http://A.Example:8080/mcp"), "", "", "", out);
  EXPECT_EQ(out, "GET /mcp HTTP/1.1\r\nHost: a.example:8080\r\n");
}

TEST(AppendFieldTest, AValueThatWouldSplitTheHeadIsRefused) {
  std::string out;
  EXPECT_FALSE(AppendField("X-User", "", "a\r\nEvil: 1", out));
  EXPECT_FALSE(AppendField("X-User", "", std::string_view("a\0b", 3), out));
  EXPECT_FALSE(AppendField("X User", "", "a", out));
  EXPECT_EQ(out, "");
  EXPECT_TRUE(AppendField("X-User", "Bearer ", "j\xc3\xbcrgen", out));
  EXPECT_EQ(out, "X-User: Bearer j\xc3\xbcrgen\r\n");
}

TEST(CorsTest, PreflightEchoesOnlyMcpParams) {
  const std::string allowed = CorsAllowHeaders("mcp-param-region, x-evil, Mcp-Param-B, mcp-param-");
  EXPECT_THAT(allowed, HasSubstr(", mcp-param-region, Mcp-Param-B"));
  EXPECT_THAT(allowed, Not(HasSubstr("x-evil")));
}

TEST(UpstreamUrlTest, SplitsUrls) {
  const UpstreamTarget target = Target("https://API.example:8443/v1/mcp?x=1");
  EXPECT_TRUE(target.tls);
  EXPECT_EQ(target.host, "api.example");
  EXPECT_EQ(target.port, 8443);
  EXPECT_EQ(target.origin, "https://api.example:8443");
  EXPECT_EQ(target.path, "/v1/mcp");
  EXPECT_EQ(target.query, "x=1");
  EXPECT_EQ(Target("http://[::1]/").host, "::1");
  EXPECT_EQ(Target("http://[::1]/").host_header, "[::1]");
  EXPECT_EQ(Target("https://a:443/").origin, "https://a");
}

TEST(UpstreamUrlTest, RefusesWhatCannotBeDialled) {
  for (const char* url :
       {"ftp://a/", "//a/", "https://", "https://u:p@a/", "https://a/#x", "https://a:0/", "https://a:65536/",
        "https://a/ b", "https://a\\b/", "https://[::1/", "https://a,b/", "http:/a"}) {
    EXPECT_THAT(ParseUpstreamUrl(url), StatusIs(absl::StatusCode::kInvalidArgument)) << url;
  }
}

}  // namespace
}  // namespace sallyport::edge

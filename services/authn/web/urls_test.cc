// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/urls.h"

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace sallyport::authn::web {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::Not;

TEST(FormTest, CountsAndNamesDuplicates) {
  ASSERT_OK_AND_ASSIGN(const Form form, Form::Parse("a=1&resource=x&resource=y&b=%26+2"));
  EXPECT_EQ(form.Get("b"), "& 2");
  EXPECT_EQ(form.Count("resource"), 2);
  EXPECT_EQ(form.Duplicate(), "resource");
  EXPECT_EQ(form.Duplicate("resource"), "");
}

TEST(FormTest, RefusesMalformedText) {
  for (const char* text : {"a=%", "a=%4", "a=%zz", "a=%00", "a=%ff", "a=%c0%af", "a=%ed%a0%80"}) {
    EXPECT_THAT(Form::Parse(text), Not(IsOk())) << text;
  }
}

TEST(FormTest, RefusesTooManyParameters) {
  std::string text;
  for (int i = 0; i < 65; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : "&", "p", i, "=1");
  }
  EXPECT_THAT(Form::Parse(text), Not(IsOk()));
}

TEST(RedirectUriTest, AcceptsWhatClientsInUseRegister) {
  for (const char* uri : {"https://claude.ai/api/mcp/auth_callback", "https://vscode.dev/redirect", "http://127.0.0.1/",
                          "http://127.0.0.1:33418/", "http://localhost:3118/callback", "http://[::1]:5/cb",
                          "http://localhost/callback", "cursor://anysphere.cursor-mcp/oauth/callback",
                          "com.example.app:/oauth", "https://chatgpt.com/connector/oauth/a-b?x=1"}) {
    EXPECT_THAT(ValidateRedirectUri(uri), IsOk()) << uri;
  }
}

TEST(RedirectUriTest, RefusesWhatIsDangerousOrVague) {
  for (const char* uri : {"",
                          "/cb",
                          "cb",
                          "http://example.com/cb",
                          "http://127.0.0.1.evil.com/",
                          "http://127.0.0.2/cb",
                          "http://localhost.evil/",
                          "https://",
                          "https:///cb",
                          "https://*.example.com/cb",
                          "https://user@example.com/cb",
                          "https://a:b@example.com/",
                          "https://example.com/cb#frag",
                          "https://example.com/c b",
                          "https://example.com/\\evil",
                          "https://Example.com/cb",
                          "HTTPS://example.com/cb",
                          "javascript:alert(1)",
                          "javascript://x/%0aalert(1)",
                          "data:text/html,x",
                          "file:///etc/passwd",
                          "vbscript:x",
                          "blob:https://x/y",
                          "about:blank",
                          "view-source:https://x",
                          "ws://x/y",
                          "intent://x",
                          "mailto:a@b.c",
                          "tel:1",
                          "cursor:callback",
                          "x:/cb",
                          "https://example.com/%zz",
                          "https://example.com:99999x/",
                          "ftp://example.com/",
                          "https://exa\tmple.com/",
                          "https://example.com/\r\nx"}) {
    EXPECT_THAT(ValidateRedirectUri(uri), Not(IsOk())) << uri;
  }
  EXPECT_THAT(ValidateRedirectUri("https://example.com/" + std::string(2048, 'a')), Not(IsOk()));
}

TEST(RedirectUriTest, MatchesByteForByte) {
  const char* registered = "https://c.example/cb";
  EXPECT_TRUE(RedirectUriMatches(registered, registered));
  for (const char* other :
       {"https://c.example/cb/", "https://c.example/c", "https://c.example/cb/x", "https://c.example/cb?x=1",
        "https://c.example/cb#f", "https://c.example/%63b", "https://C.example/cb", "https://c.example:443/cb",
        "https://u@c.example/cb", "http://c.example/cb", "https://c.example.evil.com/cb", "https://evil.com/cb",
        "https://c.example/./cb", "https://c.example/x/../cb", "https://c.example//cb", "javascript:alert(1)",
        "data:text/html,x", ""}) {
    EXPECT_FALSE(RedirectUriMatches(registered, other)) << other;
  }
}

TEST(RedirectUriTest, LoopbackMayHaveAnyPortButNothingElseMayDiffer) {
  EXPECT_TRUE(RedirectUriMatches("http://127.0.0.1:5/cb", "http://127.0.0.1:49152/cb"));
  EXPECT_TRUE(RedirectUriMatches("http://localhost/callback", "http://localhost:3118/callback"));
  EXPECT_TRUE(RedirectUriMatches("http://[::1]/cb", "http://[::1]:80/cb"));
  for (const char* other : {"http://localhost:5/cb", "http://127.0.0.1:5/other", "http://127.0.0.1:5/cb?x=1",
                            "https://127.0.0.1:5/cb", "http://u@127.0.0.1:5/cb", "http://127.0.0.1:5/cb#f",
                            "http://127.0.0.1.evil.com:5/cb", "http://[::1]:5/cb", "http://127.0.0.1:5x/cb"}) {
    EXPECT_FALSE(RedirectUriMatches("http://127.0.0.1:5/cb", other)) << other;
  }
  EXPECT_FALSE(RedirectUriMatches("https://c.example:1/cb", "https://c.example:2/cb"));
  EXPECT_FALSE(RedirectUriMatches("http://c.example:1/cb", "http://c.example:2/cb"));
}

TEST(RedirectUriTest, HostIsWhatTheUserIsShown) {
  EXPECT_EQ(RedirectHost("https://claude.ai/x"), "claude.ai");
  EXPECT_EQ(RedirectHost("http://127.0.0.1:5/x"), "127.0.0.1");
  EXPECT_EQ(RedirectHost("cursor://a.b/c"), "cursor:");
}

TEST(ReturnToTest, KeepsPathsOfOurOwn) {
  for (const char* path : {"/", "/console/servers", "/oauth/continue?txn=a-b_c", "/connect/github?txn=x&for=y",
                           "/a/b.c~d", "/x?next=https%3A%2F%2Fevil.example"}) {
    EXPECT_EQ(SafeReturnTo(path), path);
  }
}

// Everything a browser could take for another origin, or that two parsers could read in two ways.
TEST(ReturnToTest, RefusesEveryOtherShape) {
  const std::vector<std::string> leads = {"//",
                                          "///",
                                          "////",
                                          "/\\",
                                          "\\\\",
                                          "\\/",
                                          "/\t/",
                                          "\t//",
                                          "/\n/",
                                          "/\r/",
                                          " //",
                                          "/ /",
                                          "/%2f",
                                          "/%2F/",
                                          "/%5c",
                                          "/%5C",
                                          "/%09/",
                                          "/%0d%0a",
                                          "/./",
                                          "/../",
                                          "/.//",
                                          "/..//",
                                          "/%2e%2e/",
                                          "/;/",
                                          "/@",
                                          "http:",
                                          "http://",
                                          "https://",
                                          "https:/",
                                          "https:///",
                                          "HTTPS://",
                                          "hTtP://",
                                          "ftp://",
                                          "javascript:",
                                          "JavaScript:",
                                          "data:",
                                          "vbscript:",
                                          "file://",
                                          "blob:",
                                          "x:",
                                          "//user@",
                                          "/\xE3\x80\x82/",
                                          "//\xE3\x80\x82",
                                          "/\x01/",
                                          "/\x7f/",
                                          "//gw.example.com@",
                                          "//gw.example.com.",
                                          "https://gw.example.com",
                                          "https://gw.example.com@",
                                          "/%00/",
                                          "/a//",
                                          "/a/../../"};
  const std::vector<std::string> hosts = {"evil.example", "evil.example/x", "evil.example?gw.example.com",
                                          "gw.example.com.evil.example", "evil.example\\@gw.example.com"};
  int shapes = 0;
  for (const std::string& lead : leads) {
    for (const std::string& host : hosts) {
      EXPECT_EQ(SafeReturnTo(lead + host), "/") << lead + host;
      ++shapes;
    }
  }
  for (const char* shape : {"", "evil", "evil.example", "?x", "#x", "/x#y", "/a b", "/a\"b", "/<x>", "/a/..", "/.",
                            "/..", "/%zz", "/x?\r\nset-cookie:a"}) {
    EXPECT_EQ(SafeReturnTo(shape), "/") << shape;
    ++shapes;
  }
  EXPECT_EQ(SafeReturnTo("/" + std::string(2048, 'a')), "/");
  EXPECT_GE(shapes, 200);
}

TEST(PkceTest, VerifierAndChallengeGrammar) {
  EXPECT_TRUE(IsCodeVerifier(std::string(43, 'a')));
  EXPECT_TRUE(IsCodeVerifier(absl::StrCat(std::string(127, '~'), ".")));
  EXPECT_FALSE(IsCodeVerifier(std::string(42, 'a')));
  EXPECT_FALSE(IsCodeVerifier(std::string(129, 'a')));
  EXPECT_FALSE(IsCodeVerifier(absl::StrCat(std::string(43, 'a'), "+")));
  EXPECT_TRUE(IsS256Challenge("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"));
  EXPECT_FALSE(IsS256Challenge("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c"));
  EXPECT_FALSE(IsS256Challenge("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM"));
}

TEST(WithParametersTest, KeepsTheQueryThatIsThere) {
  EXPECT_EQ(WithParameters("https://c.example/cb", {{"code", "a"}, {"state", ""}}), "https://c.example/cb?code=a");
  EXPECT_EQ(WithParameters("https://c.example/cb?x=1", {{"code", "a"}}), "https://c.example/cb?x=1&code=a");
  EXPECT_EQ(WithParameters("https://c.example/cb?", {{"code", "a"}}), "https://c.example/cb?code=a");
}

// A state must not be able to add parameters of its own.
TEST(WithParametersTest, EncodesWhatItAdds) {
  EXPECT_EQ(WithParameters("https://c.example/cb", {{"state", "x&code=evil#f"}}),
            "https://c.example/cb?state=x%26code%3Devil%23f");
}

}  // namespace
}  // namespace sallyport::authn::web

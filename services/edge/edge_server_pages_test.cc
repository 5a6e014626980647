// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_server_testing.h"

// Pages of authn and the broker.
namespace sallyport::edge {
namespace {

std::string HeaderOf(const web::v1::WebRequest& request, const std::string& name) {
  for (const web::v1::Header& header : request.headers()) {
    if (header.name() == name) return header.value();
  }
  return "";
}

TEST_F(EdgeServerTest, CookiesThatAreNotVisibleAsciiReachNoPage) {
  const std::string cookies = "Cookie: x=\xff; __Host-session=ada;\xc3\xa9=1";
  EXPECT_EQ(Send("GET", "/login", {cookies, "Cookie: second=1"}).status, 200);
  ASSERT_THAT(authn_pages_.requests(), SizeIs(1));
  EXPECT_EQ(HeaderOf(authn_pages_.requests()[0], "cookie"), "__Host-session=ada; second=1");

  EXPECT_EQ(Send("GET", "/connect/user", {cookies}).status, 200);
  ASSERT_THAT(authn_.passport_requests(), SizeIs(1));
  EXPECT_EQ(authn_.passport_requests()[0].cookie(), "__Host-session=ada");
  ASSERT_THAT(broker_pages_.requests(), SizeIs(1));
  EXPECT_EQ(broker_pages_.requests()[0].passport(), "passport-ada");
  EXPECT_EQ(HeaderOf(broker_pages_.requests()[0], "cookie"), "");
}

TEST_F(EdgeServerTest, WithoutACookieThatCountsABrokersPageHasNoUser) {
  EXPECT_EQ(Send("GET", "/connect/user", {"Cookie: x=\xff"}).status, 200);
  EXPECT_THAT(authn_.passport_requests(), IsEmpty());
  ASSERT_THAT(broker_pages_.requests(), SizeIs(1));
  EXPECT_EQ(broker_pages_.requests()[0].passport(), "");
}

TEST_F(EdgeServerTest, BareOriginIsAPageForBrowsersOnly) {
  EXPECT_EQ(Send("GET", "/", {"Accept: text/html,application/xhtml+xml,*/*;q=0.8"}).status, 200);
  ASSERT_THAT(authn_pages_.requests(), SizeIs(1));
  EXPECT_EQ(authn_pages_.requests()[0].path(), "/");

  EXPECT_EQ(Send("GET", "/", {"Accept: text/event-stream"}).status, 404);
  EXPECT_EQ(Send("GET", "/", {"Accept: */*"}).status, 404);
  EXPECT_EQ(Send("GET", "/", {}).status, 404);
  EXPECT_EQ(Send("POST", "/", {"Accept: application/json, text/html"}, "{}").status, 404);
  EXPECT_THAT(authn_pages_.requests(), SizeIs(1));
}

TEST_F(EdgeServerTest, BodiesOfPagesAreLimited) {
  const std::string most(64 << 10, 'a');
  for (const char* path : {"/oauth/token", "/connect/user"}) {
    EXPECT_EQ(Send("POST", path, {}, most).status, 200) << path;
    EXPECT_EQ(Send("POST", path, {}, most + "a").status, 413) << path;
  }
  EXPECT_THAT(authn_pages_.requests(), SizeIs(1));
  EXPECT_THAT(broker_pages_.requests(), SizeIs(1));
}

}  // namespace
}  // namespace sallyport::edge

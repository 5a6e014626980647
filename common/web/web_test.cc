// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "common/web/same_origin.h"
#include "common/web/ticket.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::web {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;

constexpr char kPublicUrl[] = "https://gw.example.com";
const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

Secret Key(char c = 'k') { return Secret(std::string(32, c)); }

absl::Status CheckHeaders(const std::vector<std::pair<std::string, std::string>>& headers) {
  WebRequest request;
  request.set_method("POST");
  for (const auto& [name, value] : headers) {
    v1::Header* header = request.add_headers();
    header->set_name(name);
    header->set_value(value);
  }
  return CheckSameOrigin(request, kPublicUrl);
}

TEST(SameOrigin, TakesWhatBrowsersSendWithOurForms) {
  EXPECT_THAT(CheckHeaders({{"origin", kPublicUrl}}), IsOk());
  EXPECT_THAT(CheckHeaders({{"origin", kPublicUrl}, {"sec-fetch-site", "same-origin"}}), IsOk());
}

TEST(SameOrigin, RefusesAMissingOrigin) {
  EXPECT_THAT(CheckHeaders({}), StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(CheckHeaders({{"sec-fetch-site", "same-origin"}}), StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST(SameOrigin, RefusesEveryOtherOrigin) {
  for (const char* origin :
       {"", "null", "http://gw.example.com", "https://gw.example.com:8443", "https://GW.example.com",
        "https://gw.example.com/", "https://evil.example", "https://gw.example.com.evil.example"}) {
    EXPECT_FALSE(CheckHeaders({{"origin", origin}}).ok()) << origin;
  }
  EXPECT_FALSE(CheckHeaders({{"origin", kPublicUrl}, {"origin", "https://evil.example"}}).ok());
  EXPECT_FALSE(CheckHeaders({{"origin", kPublicUrl}, {"origin", kPublicUrl}}).ok());
}

TEST(SameOrigin, RefusesWhatTheBrowserSaysComesFromElsewhere) {
  for (const char* site : {"cross-site", "same-site", "none", ""}) {
    EXPECT_FALSE(CheckHeaders({{"origin", kPublicUrl}, {"sec-fetch-site", site}}).ok()) << site;
  }
}

TEST(Ticket, IsGoodForItsKeyAndPartsUntilItExpires) {
  const std::string ticket = SignTicket(Key(), {"link", "ada", "srv_1"}, kNow + absl::Minutes(10));
  EXPECT_EQ(CheckTicket(Key(), ticket, {"link", "ada", "srv_1"}, kNow), TicketVerdict::kGood);
  EXPECT_EQ(CheckTicket(Key('x'), ticket, {"link", "ada", "srv_1"}, kNow), TicketVerdict::kForged);
  EXPECT_EQ(CheckTicket(Key(), ticket, {"form", "ada", "srv_1"}, kNow), TicketVerdict::kForged);
  EXPECT_EQ(CheckTicket(Key(), ticket, {"link", "adas", "rv_1"}, kNow), TicketVerdict::kForged);
  EXPECT_EQ(CheckTicket(Key(), ticket, {"link", "ada"}, kNow), TicketVerdict::kForged);
  EXPECT_EQ(CheckTicket(Key(), ticket, {"link", "ada", "srv_1"}, kNow + absl::Minutes(10)), TicketVerdict::kExpired);
}

TEST(Ticket, WrittenInAnotherWayIsForged) {
  const std::string ticket = SignTicket(Key(), {"link"}, kNow + absl::Minutes(10));
  for (const std::string& other : {std::string(), std::string("."), "+" + ticket, "0" + ticket, " " + ticket,
                                   ticket + "=", ticket.substr(0, ticket.size() - 1), std::string(5000, '1')}) {
    EXPECT_EQ(CheckTicket(Key(), other, {"link"}, kNow), TicketVerdict::kForged) << other;
  }
}

TEST(CsrfToken, BelongsToOneBrowserAndPurpose) {
  const std::string token = CsrfToken("cookie", "sign-out");
  EXPECT_TRUE(CsrfTokenFits(token, "cookie", "sign-out"));
  EXPECT_FALSE(CsrfTokenFits(token, "other", "sign-out"));
  EXPECT_FALSE(CsrfTokenFits(token, "cookie", "consent"));
  EXPECT_FALSE(CsrfTokenFits("", "cookie", "sign-out"));
  EXPECT_FALSE(CsrfTokenFits(CsrfToken("", "sign-out"), "", "sign-out")) << "no cookie, no form";
}

}  // namespace
}  // namespace sallyport::web

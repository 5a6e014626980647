// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/http_token_endpoint.h"

#include <atomic>
#include <map>

#include <gtest/gtest.h>

#include "tests/testing/fake_clock.h"
#include "tests/testing/http_server.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::TestHttpServer;

class HttpTokenEndpointTest : public ::testing::Test {
 protected:
  HttpTokenEndpointTest() {
    HttpClient::Options options;
    options.policy = EgressPolicy({*Network::Parse("127.0.0.0/8")}, EgressPolicy::PlainHttp::kLoopback);
    options.clock = &clock_;
    http_ = *HttpClient::Create(std::move(options));
    endpoint_ = std::make_unique<HttpTokenEndpoint>(*http_, clock_);
  }
  static Provider At(const std::string& origin) {
    Provider provider;
    provider.token_url = origin + "/token";
    provider.client_id = "client";
    return provider;
  }
  ProviderError Refresh(const Provider& provider) {
    const TokenResult result = endpoint_->Refresh(provider, Secret(std::string("rt")));
    const auto* error = std::get_if<ProviderError>(&result);
    return error == nullptr ? ProviderError{.code = "no error"} : *error;
  }

  // 2026-11-25 12:00 UTC.
  FakeClock clock_{absl::FromCivil(absl::CivilSecond(2026, 11, 25, 12, 0, 0), absl::UTCTimeZone())};
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<HttpTokenEndpoint> endpoint_;
};

TEST_F(HttpTokenEndpointTest, RefreshTokenArrivesOnceThoughAConnectionIsAtHand) {
  std::atomic<int> posts{0};
  TestHttpServer server([&](const TestHttpServer::Request& request) {
    TestHttpServer::Response response;
    response.hang_up = request.method == "POST";
    posts += response.hang_up ? 1 : 0;
    return response;
  });
  HttpRequest warm;
  warm.url = server.origin();
  ASSERT_THAT(http_->Fetch(std::move(warm)), IsOk());

  EXPECT_EQ(Refresh(At(server.origin())).failure, ProviderFailure::kAmbiguous);
  EXPECT_EQ(posts, 1);
}

TEST_F(HttpTokenEndpointTest, ProviderThatCannotBeReachedWasSentNothing) {
  std::string gone;
  {
    TestHttpServer server([](const TestHttpServer::Request&) { return TestHttpServer::Response{}; });
    gone = server.origin();
  }
  EXPECT_EQ(Refresh(At(gone)).failure, ProviderFailure::kNotSent);
}

TEST_F(HttpTokenEndpointTest, ClientThatWasRejectedIsNotPresentedForAMinute) {
  TestHttpServer server([](const TestHttpServer::Request&) {
    return TestHttpServer::Response{401, {{"Content-Type", "application/json"}}, R"({"error":"invalid_client"})", ""};
  });
  EXPECT_EQ(Refresh(At(server.origin())).failure, ProviderFailure::kClientRejected);
  clock_.Advance(absl::Seconds(20));

  const ProviderError error = Refresh(At(server.origin()));

  EXPECT_EQ(error.failure, ProviderFailure::kNotSent);
  EXPECT_EQ(error.retry_after, absl::Seconds(40)) << "what is left of it";
  EXPECT_EQ(server.requests(), 1);
  clock_.Advance(absl::Seconds(40));
  EXPECT_EQ(Refresh(At(server.origin())).failure, ProviderFailure::kClientRejected);
}

// An authorization server that ends one user's grant says so in many ways; the others go on.
TEST_F(HttpTokenEndpointTest, RefusalOfOneGrantParksNoClient) {
  for (const auto& [status, body] : std::multimap<int, std::string>{{400, R"({"error":"unauthorized_client"})"},
                                                                    {403, R"({"error":"unauthorized_client"})"},
                                                                    {403, "{}"},
                                                                    {200, R"({"error":"bad_refresh_token"})"},
                                                                    {200, R"({"ok":false})"},
                                                                    {200, "{}"}}) {
    std::atomic<int> posts{0};
    TestHttpServer server([&, status = status, body = body](const TestHttpServer::Request&) {
      return posts++ == 0 ? TestHttpServer::Response{status, {{"Content-Type", "application/json"}}, body, ""}
                          : TestHttpServer::Response{
                                200, {{"Content-Type", "application/json"}}, R"({"access_token":"at"})", ""};
    });
    EXPECT_NE(Refresh(At(server.origin())).code, "no error") << body;

    EXPECT_EQ(Refresh(At(server.origin())).code, "no error") << "the next user's: " << body;
  }
}

TEST_F(HttpTokenEndpointTest, ARefusalToRevokeIsAboutTheTokenOrAboutUs) {
  using Result = RevocationResult;
  for (const auto& [answer, result] :
       std::map<std::pair<int, std::string>, Result>{{{200, ""}, Result::kRevoked},
                                                     {{204, ""}, Result::kRevoked},
                                                     {{400, R"({"error":"invalid_token"})"}, Result::kRevoked},
                                                     {{400, R"({"error":"invalid_request"})"}, Result::kRefused},
                                                     {{400, R"({"error":7})"}, Result::kRefused},
                                                     {{400, "<html>"}, Result::kRefused},
                                                     {{422, ""}, Result::kRefused},
                                                     {{400, R"({"error":"invalid_client"})"}, Result::kRetry},
                                                     {{400, R"({"error":"unauthorized_client"})"}, Result::kRetry},
                                                     {{401, R"({"error":"invalid_token"})"}, Result::kRetry},
                                                     {{403, ""}, Result::kRetry},
                                                     {{404, ""}, Result::kRetry},
                                                     {{408, ""}, Result::kRetry},
                                                     {{429, ""}, Result::kRetry},
                                                     {{302, ""}, Result::kRetry},
                                                     {{503, ""}, Result::kRetry}}) {
    TestHttpServer server([&, answer = answer](const TestHttpServer::Request&) {
      return TestHttpServer::Response{answer.first, {{"Content-Type", "application/json"}}, answer.second, ""};
    });
    Provider provider = At(server.origin());
    provider.revocation_url = server.origin() + "/revoke";
    EXPECT_EQ(endpoint_->Revoke(provider, Secret(std::string("rt")), "refresh_token"), result)
        << answer.first << " " << answer.second;
  }
}

TEST_F(HttpTokenEndpointTest, RetryAfterMayBeADate) {
  TestHttpServer server([](const TestHttpServer::Request&) {
    return TestHttpServer::Response{503, {{"Retry-After", "Wed, 25 Nov 2026 12:02:00 GMT"}}, "", ""};
  });
  EXPECT_EQ(Refresh(At(server.origin())).retry_after, absl::Minutes(2));
}

}  // namespace
}  // namespace sallyport::token_broker

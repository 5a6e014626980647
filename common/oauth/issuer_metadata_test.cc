// SPDX-License-Identifier: Apache-2.0
#include "common/oauth/issuer_metadata.h"

#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::oauth {
namespace {

using Code = absl::StatusCode;
using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
const std::string kIssuer = "https://idp.example";
const std::string kRfc8414 = "https://idp.example/.well-known/oauth-authorization-server";
const std::string kOidc = "https://idp.example/.well-known/openid-configuration";

std::string Document(const std::string& more = "", const std::string& issuer = kIssuer) {
  return absl::StrCat(R"({"issuer":")", issuer, R"(","token_endpoint":"https://idp.example/token")", more, "}");
}

class FakeFetcher final : public DocumentFetcher {
 public:
  absl::StatusOr<std::string> Fetch(const std::string& url, size_t /*max_bytes*/) override {
    MutexLock lock(mu_);
    ++fetches[url];
    const auto it = answers.find(url);
    return it == answers.end() ? absl::StatusOr<std::string>(absl::NotFoundError("the issuer answered 404"))
                               : it->second;
  }
  std::map<std::string, absl::StatusOr<std::string>> answers;
  std::map<std::string, int> fetches;

 private:
  Mutex mu_;
};

class MetadataCacheTest : public ::testing::Test {
 protected:
  FakeFetcher fetcher_;
  MetadataCache cache_{fetcher_, {.timing = {absl::Minutes(10), absl::Minutes(1), absl::Seconds(10), absl::Hours(24)}}};
};

TEST(IssuerMetadata, IsReadAsFarAsItIsUsed) {
  ASSERT_OK_AND_ASSIGN(const IssuerMetadata metadata,
                       ParseIssuerMetadata(Document(R"(,"authorization_endpoint":"https://idp.example/a",)"
                                                    R"("jwks_uri":"https://idp.example/jwks","revocation_endpoint":7,)"
                                                    R"("end_session_endpoint":"https://idp.example/logout",)"
                                                    R"("authorization_response_iss_parameter_supported":true,)"
                                                    R"("token_endpoint_auth_methods_supported":["private_key_jwt"])"),
                                           kIssuer));
  EXPECT_EQ(metadata.issuer, kIssuer);
  EXPECT_EQ(metadata.authorization_endpoint, "https://idp.example/a");
  EXPECT_EQ(metadata.token_endpoint, "https://idp.example/token");
  EXPECT_EQ(metadata.jwks_uri, "https://idp.example/jwks");
  EXPECT_EQ(metadata.revocation_endpoint, "");
  EXPECT_EQ(metadata.end_session_endpoint, "https://idp.example/logout");
  EXPECT_TRUE(metadata.iss_parameter_supported);
  EXPECT_THAT(*metadata.token_endpoint_auth_methods, ElementsAre("private_key_jwt"));
}

TEST(IssuerMetadata, OfAnotherIssuerIsRefused) {
  for (const std::string issuer : {"https://evil.example", "https://idp.example/", "https://IDP.example", ""}) {
    EXPECT_THAT(ParseIssuerMetadata(Document("", issuer), kIssuer), StatusIs(Code::kFailedPrecondition)) << issuer;
  }
  for (const std::string text : {"", "[]", "<html>", R"({"token_endpoint":"https://idp.example/token"})"}) {
    EXPECT_THAT(ParseIssuerMetadata(text, kIssuer), StatusIs(Code::kFailedPrecondition)) << text;
  }
}

TEST(IssuerMetadata, IsLookedForWhereBothStandardsPutIt) {
  EXPECT_THAT(MetadataUrls("https://idp.example/realms/a/"),
              ElementsAre("https://idp.example/.well-known/oauth-authorization-server/realms/a",
                          "https://idp.example/realms/a/.well-known/openid-configuration"));
  EXPECT_THAT(MetadataUrls(kIssuer), ElementsAre(kRfc8414, kOidc));
  EXPECT_THAT(MetadataUrls("https://idp.example/?a=b"), IsEmpty());
  EXPECT_THAT(MetadataUrls("idp.example"), IsEmpty());
}

TEST(IssuerMetadata, TellsHowAClientAuthenticates) {
  IssuerMetadata metadata;
  EXPECT_EQ(ClientAuthMethod(metadata, false), "none");
  EXPECT_EQ(ClientAuthMethod(metadata, true), "client_secret_basic");
  metadata.token_endpoint_auth_methods = {"client_secret_post", "private_key_jwt"};
  EXPECT_EQ(ClientAuthMethod(metadata, true), "client_secret_post");
  metadata.token_endpoint_auth_methods = {"client_secret_post", "client_secret_basic"};
  EXPECT_EQ(ClientAuthMethod(metadata, true), "client_secret_basic");
  metadata.token_endpoint_auth_methods = {"private_key_jwt"};
  EXPECT_EQ(ClientAuthMethod(metadata, true), "client_secret_basic");
}

TEST_F(MetadataCacheTest, KeepsADocumentAndServesItThroughAnOutage) {
  fetcher_.answers[kRfc8414] = Document();
  for (int i = 0; i < 3; ++i) ASSERT_THAT(cache_.Get(kIssuer, kNow + i * absl::Minutes(3)), IsOk());
  EXPECT_EQ(fetcher_.fetches[kRfc8414], 1);

  fetcher_.answers[kRfc8414] = absl::UnavailableError("down");
  EXPECT_THAT(cache_.Get(kIssuer, kNow + absl::Hours(23)), IsOk());
  EXPECT_THAT(cache_.Get(kIssuer, kNow + absl::Hours(24)), StatusIs(Code::kUnavailable));
}

TEST_F(MetadataCacheTest, TellsAnIssuerWithoutMetadataFromOneThatDoesNotAnswer) {
  EXPECT_THAT(cache_.Get(kIssuer, kNow), StatusIs(Code::kNotFound));
  fetcher_.answers[kRfc8414] = absl::UnavailableError("the issuer answered 503");
  fetcher_.answers[kOidc] = Document();
  const absl::Status down = cache_.Get(kIssuer, kNow + absl::Seconds(10)).status();
  EXPECT_THAT(down, StatusIs(Code::kUnavailable, "503"));
  EXPECT_EQ(DetailOf(down).retry_after, absl::Seconds(10));
  EXPECT_EQ(fetcher_.fetches[kOidc], 1) << "the other document does not replace one that cannot be fetched";
}

TEST_F(MetadataCacheTest, AddressThatMayNotBeReachedKeepsItsReason) {
  fetcher_.answers[kRfc8414] = WithReason(absl::PermissionDeniedError("10.0.0.7 is private"), "network_not_allowed");
  const absl::Status refused = cache_.Get(kIssuer, kNow).status();
  EXPECT_THAT(refused, StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(ReasonOf(refused), "network_not_allowed");
}

TEST_F(MetadataCacheTest, DocumentThatIsRefusedIsNotTakenAndTheNextOneIs) {
  fetcher_.answers[kRfc8414] = Document("", "https://evil.example");
  EXPECT_THAT(cache_.Get(kIssuer, kNow), StatusIs(Code::kFailedPrecondition));
  fetcher_.answers[kOidc] = Document();
  EXPECT_THAT(cache_.Get(kIssuer, kNow + absl::Seconds(10)), IsOk());
}

TEST_F(MetadataCacheTest, OneOfAllWhoPeekIsToldToFetch) {
  bool due = false;
  EXPECT_EQ(cache_.Peek(kIssuer, kNow, &due), nullptr);
  EXPECT_TRUE(due);
  EXPECT_EQ(cache_.Peek(kIssuer, kNow, &due), nullptr);
  EXPECT_FALSE(due);
  fetcher_.answers[kRfc8414] = Document();
  ASSERT_THAT(cache_.Get(kIssuer, kNow), IsOk());
  EXPECT_NE(cache_.Peek(kIssuer, kNow + absl::Minutes(9), &due), nullptr);
  EXPECT_FALSE(due);
  EXPECT_NE(cache_.Peek(kIssuer, kNow + absl::Minutes(10), &due), nullptr);
  EXPECT_TRUE(due);
}

TEST_F(MetadataCacheTest, ManyWhoAskAtOnceFetchOnce) {
  fetcher_.answers[kRfc8414] = Document();
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i) callers.emplace_back([&] { EXPECT_THAT(cache_.Get(kIssuer, kNow), IsOk()); });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(fetcher_.fetches[kRfc8414], 1);
}

}  // namespace
}  // namespace sallyport::oauth

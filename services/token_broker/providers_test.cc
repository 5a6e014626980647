// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/providers.h"

#include <chrono>
#include <map>
#include <thread>

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/metrics.h"
#include "services/token_broker/testing/fake_peers.h"
#include "services/token_broker/testing/http_provider.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

using Code = absl::StatusCode;
using ::sallyport::testing::StatusIs;
using testing::HttpProvider;

constexpr char kRfc8414[] = "/.well-known/oauth-authorization-server";
constexpr char kOidc[] = "/.well-known/openid-configuration";

class ProvidersTest : public ::testing::Test {
 protected:
  ProvidersTest()
      : issuer_([this](const HttpProvider::Request& request) {
          MutexLock lock(mu_);
          ++asked_[request.path];
          const auto found = answers_.find(request.path);
          return found == answers_.end() ? HttpProvider::Response{404, "", "", ""} : found->second;
        }) {
    HttpClient::Options options;
    options.policy = policy_;
    options.clock = &clock_;
    http_ = *HttpClient::Create(std::move(options));
    Restart();
    app_.set_uid("app_1");
    app_.set_issuer(issuer_.Url(""));
    app_.set_authorization_url("https://provider.example/authorize");
    app_.set_token_url("https://provider.example/token");
    app_.set_client_id("client");
  }

  void Restart() {
    providers_ = std::make_unique<Providers>(peers_.Channel(), *http_, policy_, secrets_, runner_, clock_);
  }
  void Answer(const std::string& path, int status, const std::string& body = "") {
    MutexLock lock(mu_);
    answers_[path] = {status, body, "application/json", ""};
  }
  int asked(const std::string& path) {
    MutexLock lock(mu_);
    return asked_[path];
  }
  void SetSecret() {
    vault::v1::PutRequest put;
    *put.mutable_record() = OrganizationRecord("app_secret", "app_1/client_secret");
    put.set_payload("s3cret");
    put.add_origins("https://provider.example");
    put.add_origins(Url::Parse(issuer_.Url("/"))->origin());
    EXPECT_TRUE(peers_.vault.Put(testing::FakeVaultClient::Registry(), put).ok());
    app_.mutable_client_secret()->set_set(true);
    app_.mutable_client_secret()->set_version(1);
    app_.mutable_client_secret()->set_vault_record("app_1/client_secret");
  }
  std::string Document(const std::string& host, const std::string& more = "") {
    return absl::StrCat(R"({"issuer":")", issuer_.Url(""), R"(","token_endpoint":"https://)", host,
                        R"(/token","authorization_endpoint":"https://)", host,
                        R"(/authorize","revocation_endpoint":"https://)", host, R"(/revoke")", more, "}");
  }

  FakeClock clock_{absl::Now()};
  testing::FakePeers peers_{clock_};
  Mutex mu_;
  std::map<std::string, HttpProvider::Response> answers_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int> asked_ ABSL_GUARDED_BY(mu_);
  HttpProvider issuer_;
  const EgressPolicy policy_{{*Network::Parse("127.0.0.0/8")}, EgressPolicy::PlainHttp::kLoopback};
  std::unique_ptr<HttpClient> http_;
  SecretReader secrets_{peers_.vault, clock_};
  std::unique_ptr<Providers> providers_;
  TaskRunner runner_{1, 100};
  registry::v1::App app_;
};

TEST_F(ProvidersTest, MetadataFillsWhatTheConfigurationLeavesOut) {
  Answer(kRfc8414, 200, Document("idp.example", R"(,"authorization_response_iss_parameter_supported":true)"));

  ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(app_));

  EXPECT_EQ(provider.token_url, "https://provider.example/token");
  EXPECT_EQ(provider.revocation_url, "https://idp.example/revoke");
  EXPECT_TRUE(provider.iss_promised);
  EXPECT_FALSE(provider.metadata_missing);
}

TEST_F(ProvidersTest, OutageIsToldFromAnIssuerWithoutMetadata) {
  Answer(kRfc8414, 503);
  ASSERT_OK_AND_ASSIGN(const Provider down, providers_->ForApp(app_));
  EXPECT_TRUE(down.metadata_missing);
  EXPECT_EQ(down.revocation_url, "");

  Answer(kRfc8414, 404);
  clock_.Advance(absl::Seconds(11));
  ASSERT_OK_AND_ASSIGN(const Provider none, providers_->ForApp(app_));
  EXPECT_FALSE(none.metadata_missing);
  EXPECT_EQ(none.revocation_url, "");
}

TEST_F(ProvidersTest, AnotherDocumentIsNotTakenInPlaceOfOneThatCannotBeHad) {
  Answer(kOidc, 200, Document("oidc.example"));
  for (const int status : {500, 503, 408, 425, 429}) {
    Answer(kRfc8414, status);
    ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(app_));
    EXPECT_TRUE(provider.metadata_missing) << status;
    clock_.Advance(absl::Seconds(11));
  }
  EXPECT_EQ(asked(kOidc), 0);

  Answer(kRfc8414, 404);
  ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(app_));
  EXPECT_EQ(provider.revocation_url, "https://oidc.example/revoke");
}

TEST_F(ProvidersTest, SitesThatAnswerUnknownPathsInTheirOwnWayAreAskedForTheOtherDocument) {
  Answer(kOidc, 200, Document("oidc.example"));
  for (const auto& [status, body] : std::map<int, std::string>{{200, "<html>"}, {302, ""}, {400, ""}, {403, ""}}) {
    Answer(kRfc8414, status, body);
    Restart();
    ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(app_));
    EXPECT_EQ(provider.revocation_url, "https://oidc.example/revoke") << status;
  }
}

TEST_F(ProvidersTest, WhatWasOnceKnownServesThroughAnOutage) {
  Answer(kRfc8414, 200, Document("idp.example"));
  ASSERT_OK_AND_ASSIGN(const Provider before, providers_->ForApp(app_));
  for (const int status : {503, 404}) {
    Answer(kRfc8414, status);
    clock_.Advance(absl::Minutes(11));
    ASSERT_OK_AND_ASSIGN(const Provider during, providers_->ForApp(app_));
    EXPECT_EQ(during.revocation_url, before.revocation_url) << status;
    EXPECT_FALSE(during.metadata_missing) << status;
  }
}

TEST_F(ProvidersTest, AppThatNeedsMetadataWaitsForIt) {
  app_.clear_token_url();
  for (const int status : {503, 404}) {
    Answer(kRfc8414, status);
    const absl::Status refused = providers_->ForApp(app_).status();
    EXPECT_THAT(refused, StatusIs(Code::kUnavailable)) << status;
    EXPECT_GT(DetailOf(refused).retry_after, absl::ZeroDuration());
    clock_.Advance(absl::Seconds(11));
  }
  Answer(kRfc8414, 200, Document("idp.example"));
  ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(app_));
  EXPECT_EQ(provider.token_url, "https://idp.example/token");
}

TEST_F(ProvidersTest, TokenEndpointOfMetadataTellsWhetherAnAppHasMoved) {
  const std::string here = "https://idp.example";
  EXPECT_TRUE(providers_->HasMoved(app_, here)) << "what is configured decides";
  EXPECT_FALSE(providers_->HasMoved(app_, "https://provider.example"));
  app_.clear_token_url();
  Answer(kRfc8414, 200, Document("idp.example"));
  const auto becomes = [this](bool moved, const std::string& label) {
    for (int i = 0; i < 200 && providers_->HasMoved(app_, label) != moved; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return providers_->HasMoved(app_, label) == moved;
  };

  EXPECT_FALSE(providers_->HasMoved(app_, "https://other.example")) << "it is not known yet, and nobody waits for it";
  EXPECT_TRUE(becomes(true, "https://other.example"));
  EXPECT_FALSE(providers_->HasMoved(app_, here));
  EXPECT_EQ(asked(kRfc8414), 1);

  Answer(kRfc8414, 503);
  clock_.Advance(absl::Minutes(11));
  EXPECT_FALSE(providers_->HasMoved(app_, here)) << "what was once known serves";
  Answer(kRfc8414, 200, Document("elsewhere.example"));
  clock_.Advance(absl::Seconds(11));
  bool moved = becomes(true, here);
  if (!moved) {
    // The failure came in after the clock had gone on, and is kept from there.
    clock_.Advance(absl::Seconds(11));
    moved = becomes(true, here);
  }
  EXPECT_TRUE(moved);
  EXPECT_LE(asked(kRfc8414), 4) << "however many ask";
}

// An administrator may not enter such URLs either. A browser would go there with the user.
TEST_F(ProvidersTest, EndpointThatMayNotBeConfiguredIsNotTakenFromMetadata) {
  app_.clear_authorization_url();
  app_.clear_token_url();
  const std::map<std::string, std::string> good = {{"authorization_endpoint", "https://idp.example/authorize"},
                                                   {"token_endpoint", "https://idp.example/token"},
                                                   {"revocation_endpoint", "https://idp.example/revoke"}};
  for (const auto& [field, url] : good) {
    for (const std::string bad : {"http://idp.example/x", "https://10.0.0.1/x", "https://169.254.169.254/x",
                                  "https://idp.example:25/x", "https://metadata.google.internal/x"}) {
      std::map<std::string, std::string> endpoints = good;
      endpoints[field] = bad;
      std::string document = absl::StrCat(R"({"issuer":")", issuer_.Url(""), "\"");
      for (const auto& [name, value] : endpoints) absl::StrAppend(&document, ",\"", name, "\":\"", value, "\"");
      Answer(kRfc8414, 200, document + "}");
      Restart();

      const absl::Status refused = providers_->ForApp(app_).status();

      EXPECT_THAT(refused, StatusIs(Code::kFailedPrecondition, field)) << bad;
      EXPECT_GT(DetailOf(refused).retry_after, absl::ZeroDuration()) << "the issuer may mend it";
    }
  }
}

// --- Client authentication ---

constexpr char kMethods[] = R"(,"token_endpoint_auth_methods_supported":)";

TEST_F(ProvidersTest, ClientAuthThatIsNotConfiguredIsWhatTheIssuerAnnounces) {
  using Auth = Provider::ClientAuth;
  SetSecret();
  for (const auto& [announced, auth] :
       std::map<std::string, Auth>{{R"(["client_secret_post"])", Auth::kPost},
                                   {R"(["private_key_jwt","client_secret_post","none"])", Auth::kPost},
                                   {R"(["client_secret_basic"])", Auth::kBasic},
                                   {R"(["client_secret_post","client_secret_basic"])", Auth::kBasic},
                                   {R"(["private_key_jwt"])", Auth::kBasic},
                                   {"", Auth::kBasic}}) {
    Answer(kRfc8414, 200, Document("idp.example", announced.empty() ? "" : absl::StrCat(kMethods, announced)));
    Restart();
    ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(app_));
    EXPECT_EQ(provider.client_auth, auth) << announced;
  }
}

TEST_F(ProvidersTest, ClientAuthWithoutAnAnnouncementIsWhatMostServersTake) {
  using Auth = Provider::ClientAuth;
  SetSecret();
  Answer(kRfc8414, 503);
  ASSERT_OK_AND_ASSIGN(const Provider down, providers_->ForApp(app_));
  EXPECT_EQ(down.client_auth, Auth::kBasic);

  Answer(kRfc8414, 404);
  clock_.Advance(absl::Seconds(11));
  ASSERT_OK_AND_ASSIGN(const Provider none, providers_->ForApp(app_));
  EXPECT_EQ(none.client_auth, Auth::kPost) << "the issuer says that it announces nothing";

  app_.clear_issuer();
  ASSERT_OK_AND_ASSIGN(const Provider no_issuer, providers_->ForApp(app_));
  EXPECT_EQ(no_issuer.client_auth, Auth::kPost);

  app_.clear_client_secret();
  ASSERT_OK_AND_ASSIGN(const Provider public_client, providers_->ForApp(app_));
  EXPECT_EQ(public_client.client_auth, Auth::kNone);
}

TEST_F(ProvidersTest, ClientAuthThatIsConfiguredStandsAndAContradictionIsFound) {
  SetSecret();
  app_.set_slug(absl::StrCat("app-", issuer_.Url("").substr(17)));
  app_.set_client_auth(registry::v1::POST);
  auto snapshot = std::make_shared<RegistrySnapshot>();
  snapshot->apps_by_uid["app_1"] = std::make_shared<registry::v1::App>(app_);
  auto& finding =
      MetricGauge("sallyport_broker_app_findings", "Settings of apps that contradict what their issuer announces",
                  {{"app", app_.slug()}, {"setting", "client_auth"}});
  const auto becomes = [&](double value) {
    providers_->Examine(snapshot);
    for (int i = 0; i < 500 && finding.Value() != value; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return finding.Value() == value;
  };

  Answer(kRfc8414, 200, Document("idp.example"));
  EXPECT_TRUE(becomes(1)) << "absent means basic";
  ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(app_));
  EXPECT_EQ(provider.client_auth, Provider::ClientAuth::kPost) << "the setting stands";

  Answer(kRfc8414, 200, Document("idp.example", absl::StrCat(kMethods, R"(["client_secret_post"])")));
  clock_.Advance(absl::Minutes(11));
  EXPECT_TRUE(becomes(0));

  Answer(kRfc8414, 200, Document("idp.example", absl::StrCat(kMethods, R"(["client_secret_basic"])")));
  clock_.Advance(absl::Minutes(11));
  EXPECT_TRUE(becomes(1));
  snapshot = std::make_shared<RegistrySnapshot>();
  EXPECT_TRUE(becomes(0)) << "the app is gone";
}

TEST_F(ProvidersTest, EndpointThatIsConfiguredIsNotTakenFromMetadata) {
  Answer(kRfc8414, 200,
         absl::StrCat(
             R"({"issuer":")", issuer_.Url(""),
             R"(","token_endpoint":"http://idp.example/token","authorization_endpoint":"http://idp.example/a"})"));
  ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(app_));
  EXPECT_EQ(provider.token_url, "https://provider.example/token");
}

}  // namespace
}  // namespace sallyport::token_broker

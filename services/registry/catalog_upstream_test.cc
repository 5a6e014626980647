// SPDX-License-Identifier: Apache-2.0
// Addresses that are secrets, and client certificates: what is stored of them, and what moves with them.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#include "services/registry/catalog_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr char kUrl[] = R"({"value": "https://hooks.example/canary-path?k=canary-query"})";
constexpr char kBearerToken[] = R"({"bearer": {"token": {"value": "hunter2"}}})";

class CatalogUpstreamTest : public CatalogTest {
 protected:
  static std::string Secret(const std::string& url = kUrl, const std::string& app_auth = R"({"passthrough": {}})",
                            const std::string& more = "") {
    return absl::StrCat(R"({"slug": "a", "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": )",
                        app_auth, R"(, "secretUpstreamUrl": )", url, more, "}");
  }
  std::string Key(const std::string& path) {
    return absl::StrCat("server_secret ", Stored().mcp_servers(0).uid(), "/", path);
  }
  std::string Identity() {
    const auto made = sallyport::testing::MakeTestCertificate(nullptr, {});
    return absl::StrReplaceAll(made.CertificatePem() + made.KeyPem(), {{"\n", "\\n"}});
  }
};
INSTANTIATE_ENGINES(CatalogUpstreamTest);

TEST_P(CatalogUpstreamTest, OfASecretAddressOnlyTheOriginIsStoredAndShown) {
  ASSERT_OK_AND_ASSIGN(const auto written, Create<v1::McpServer>(Secret()));
  EXPECT_EQ(written.resource.upstream_origin(), "https://hooks.example");
  EXPECT_TRUE(written.resource.secret_upstream_url().set());
  for (const auto& message : {written.resource.SerializeAsString(), Stored().SerializeAsString()}) {
    EXPECT_THAT(message, Not(HasSubstr("canary")));
  }
  const auto held = vault_.Look(Key("secret_upstream_url"));
  EXPECT_EQ(held.versions.at(1), "https://hooks.example/canary-path?k=canary-query");
  EXPECT_THAT(held.origins.at(1), ElementsAre("https://hooks.example"));
  for (const auto& event : Events()) EXPECT_THAT(event.SerializeAsString(), Not(HasSubstr("canary")));
}

TEST_P(CatalogUpstreamTest, OtherFieldsChangeWithoutTheAddress) {
  ASSERT_THAT(Create<v1::McpServer>(Secret(kUrl, kBearerToken)), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto kept,
                       Update<v1::McpServer>(Secret("{}", R"({"bearer": {}})", R"(, "description": "x")")));
  EXPECT_EQ(kept.resource.upstream_origin(), "https://hooks.example");
  EXPECT_EQ(kept.resource.secret_upstream_url().version(), 1);
  EXPECT_TRUE(kept.resource.app_auth().bearer().token().set());
  // What was read can be written back, and changes nothing; nor does somebody else's word for the origin.
  v1::McpServer read = kept.resource;
  read.set_upstream_origin("https://evil.example.com");
  ASSERT_OK_AND_ASSIGN(const auto again, catalog_->Update(read, false, admin_));
  EXPECT_EQ(again.resource.version(), kept.resource.version());
  EXPECT_EQ(again.resource.upstream_origin(), "https://hooks.example");
  // The same address given again is recognised in the vault.
  ASSERT_OK_AND_ASSIGN(const auto same,
                       Update<v1::McpServer>(Secret(kUrl, R"({"bearer": {}})", R"(, "description": "x")")));
  EXPECT_EQ(same.resource.version(), kept.resource.version());
}

TEST_P(CatalogUpstreamTest, ItsSecretsStayAtItsOrigin) {
  ASSERT_THAT(Create<v1::McpServer>(Secret(kUrl, kBearerToken)), IsOk());
  EXPECT_THAT(vault_.Look(Key("app_auth.bearer.token")).origins.at(1), ElementsAre("https://hooks.example"));
  const std::string elsewhere = R"({"value": "https://evil.example.com/x"})";
  EXPECT_THAT(Refused(Update<v1::McpServer>(Secret(elsewhere, R"({"bearer": {}})")).status()),
              UnorderedElementsAre("appAuth.bearer.token", "secretUpstreamUrl"));
  const std::string another_path = R"({"value": "https://hooks.example/other"})";
  ASSERT_OK_AND_ASSIGN(const auto moved, Update<v1::McpServer>(Secret(another_path, R"({"bearer": {}})")));
  EXPECT_EQ(moved.resource.secret_upstream_url().version(), 2);
  ASSERT_THAT(Update<v1::McpServer>(Secret(elsewhere, kBearerToken)), IsOk());
  EXPECT_THAT(vault_.Look(Key("app_auth.bearer.token")).origins.rbegin()->second,
              ElementsAre("https://evil.example.com"));
  EXPECT_EQ(Stored().mcp_servers(0).upstream_origin(), "https://evil.example.com");
}

TEST_P(CatalogUpstreamTest, AppsAndCredentialsGoToItsOriginOnlyWhereTheyMay) {
  ASSERT_THAT(Create<v1::App>(kApp), IsOk());
  ASSERT_THAT(Create<v1::McpServer>(Secret(kUrl, R"({"oauthAuthorization": {"app": "github"}})")), IsOk());
  EXPECT_THAT(Stored().apps(0).allowed_upstream_origins(), ElementsAre("https://hooks.example")) << "its first server";
  EXPECT_THAT(Refused(Update<v1::McpServer>(Secret(R"({"value": "https://evil.example.com/"})",
                                                   R"({"oauthAuthorization": {"app": "github"}})"))
                          .status()),
              ElementsAre("secretUpstreamUrl"));
}

TEST_P(CatalogUpstreamTest, ExactlyOneAddressIsNeeded) {
  EXPECT_THAT(Refused(Create<v1::McpServer>(Secret("{}")).status()), ElementsAre("secretUpstreamUrl"))
      << "none is stored";
  ASSERT_THAT(Create<v1::McpServer>(Secret()), IsOk());
  EXPECT_THAT(Refused(Update<v1::McpServer>(Secret(R"({"clear": true})")).status()), Contains("secretUpstreamUrl"));
  EXPECT_THAT(Refused(Update<v1::McpServer>(Secret(R"({"value": ""})")).status()), Contains("secretUpstreamUrl"));
  EXPECT_THAT(Refused(Update<v1::McpServer>(
                          Secret("{}", R"({"passthrough": {}})", R"(, "upstreamUrl": "https://api.example.com/")"))
                          .status()),
              ElementsAre("secretUpstreamUrl"));
  // The open address in its place erases it, and nothing brings it back.
  ASSERT_OK_AND_ASSIGN(const auto open, Update<v1::McpServer>(kOpen));
  EXPECT_EQ(open.resource.upstream_origin(), "");
  EXPECT_THAT(vault_.Keys(), IsEmpty());
  EXPECT_THAT(Refused(Update<v1::McpServer>(Secret("{}")).status()), ElementsAre("secretUpstreamUrl"));
}

TEST_P(CatalogUpstreamTest, AClientCertificateIsBoundToTheOriginAndGoesWithItsMessage) {
  const auto tls = [](const std::string& content) {
    return FromJson<v1::McpServer>(absl::StrReplaceAll(
        kOpen, {{R"("appAuth")", absl::StrCat(R"("policy": {"tls": )", content, R"(}, "appAuth")")}}));
  };
  const std::string given = absl::StrCat(R"({"clientCert": {"value": ")", Identity(), R"("}})");
  ASSERT_OK_AND_ASSIGN(const auto written, catalog_->Create(tls(given), false, admin_));
  EXPECT_TRUE(written.resource.policy().tls().client_cert().set());
  EXPECT_THAT(Stored().SerializeAsString(), Not(HasSubstr("PRIVATE KEY")));
  EXPECT_THAT(vault_.Look(Key("policy.tls.client_cert")).origins.at(1), ElementsAre("https://api.example.com"));

  v1::McpServer moved = tls("{}");
  moved.set_upstream_url("https://evil.example.com/");
  EXPECT_THAT(Refused(catalog_->Update(moved, false, admin_).status()),
              UnorderedElementsAre("policy.tls.clientCert", "upstreamUrl"));
  ASSERT_OK_AND_ASSIGN(const auto kept, catalog_->Update(tls("{}"), false, admin_));
  EXPECT_TRUE(kept.resource.policy().tls().client_cert().set()) << "absent: the one that is stored";
  ASSERT_OK_AND_ASSIGN(const auto cleared, catalog_->Update(tls(R"({"clientCert": {"clear": true}})"), false, admin_));
  EXPECT_FALSE(cleared.resource.policy().tls().client_cert().set());
  EXPECT_THAT(vault_.Keys(), IsEmpty());

  ASSERT_THAT(catalog_->Update(tls(given), false, admin_), IsOk());
  EXPECT_THAT(vault_.Keys(), SizeIs(1));
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
  ASSERT_OK_AND_ASSIGN(const auto back, catalog_->Update(tls("{}"), false, admin_));
  EXPECT_FALSE(back.resource.policy().tls().client_cert().set()) << "nobody asked for one";
}

}  // namespace
}  // namespace sallyport::registry

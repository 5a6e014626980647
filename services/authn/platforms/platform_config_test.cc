// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/platform_config.h"

#include <functional>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/authn/authn_testing.h"
#include "services/authn/platforms/platforms_testing.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn::platforms {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> FieldsOf(const absl::Status& status) {
  std::vector<std::string> fields;
  for (const auto& violation : DetailOf(status).violations) {
    fields.push_back(violation.field);
  }
  return fields;
}

class PlatformConfigTest : public ::testing::Test {
 protected:
  PlatformConfigTest() {
    AddConnector("corp");
    AddCluster("main");
    auto& chat = *good_.add_platforms();
    chat.set_id("chat");
    chat.add_certificate_uris("spiffe://example.org/ns/chat/sa/bot");
    chat.add_certificate_dns_names("chat.example.com");
    chat.add_service_accounts("main:chat/bot");
    chat.set_rate_limit(20);
    chat.add_return_origins("https://chat.example.com");
    chat.add_subject_token_audiences("api://chat");
    auto& grant = *chat.add_grants();
    grant.add_apps("mail");
    grant.add_users("corp:00u1");
    grant.add_groups("corp:team");
  }
  void AddConnector(const std::string& id) {
    auto& connector = *good_.add_connectors();
    connector.set_id(id);
    connector.mutable_oidc()->set_issuer("https://idp.example/" + id);
  }
  void AddCluster(const std::string& id) {
    auto& cluster = *good_.add_kubernetes();
    cluster.set_id(id);
    cluster.set_issuer("https://k8s.example/" + id);
    cluster.set_audience("sallyport");
    cluster.set_jwks_url("https://k8s.example/openid/v1/jwks");
  }
  std::vector<std::string> Platform(const std::function<void(config::v1::Platform&)>& change) {
    config::v1::AuthnConfig config = good_;
    change(*config.mutable_platforms(0));
    return FieldsOf(ValidatePlatforms(config));
  }
  std::vector<std::string> Grant(const std::function<void(config::v1::PlatformGrant&)>& change) {
    return Platform([&](auto& platform) { change(*platform.mutable_grants(0)); });
  }
  std::vector<std::string> Cluster(const std::function<void(config::v1::KubernetesCluster&)>& change) {
    config::v1::AuthnConfig config = good_;
    change(*config.mutable_kubernetes(0));
    return FieldsOf(ValidateClusters(config.kubernetes()));
  }
  std::vector<std::string> Second(const std::function<void(config::v1::Platform&)>& change) {
    config::v1::AuthnConfig config = good_;
    auto& second = *config.add_platforms();
    second.set_id("second");
    change(second);
    return FieldsOf(ValidatePlatforms(config));
  }

  config::v1::AuthnConfig good_;
};

TEST_F(PlatformConfigTest, AWholeOneIsAccepted) {
  EXPECT_THAT(ValidatePlatforms(good_), IsOk());
  EXPECT_THAT(ValidateClusters(good_.kubernetes()), IsOk());
  EXPECT_THAT(ValidatePlatforms(config::v1::AuthnConfig()), IsOk());
  EXPECT_THAT(Platform([](auto& p) { p.clear_grants(); }), ElementsAre()) << "it may ask for nothing";
  EXPECT_THAT(Platform([](auto& p) { p.set_service_accounts(0, "chat/bot"); }), ElementsAre());
  EXPECT_THAT(Platform([](auto& p) { p.set_certificate_uris(0, "urn:example:chat"); }), ElementsAre());
  EXPECT_THAT(Platform([](auto& p) { p.set_return_origins(0, "http://127.0.0.1:3000"); }), ElementsAre());
  EXPECT_THAT(Grant([](auto& g) { g.set_apps(0, "*"); }), ElementsAre());
  EXPECT_THAT(Grant([](auto& g) { g.set_groups(0, "team"); }), ElementsAre()) << "one connector gives groups";
  EXPECT_THAT(Grant([](auto& g) { g.set_without_user(true); }), ElementsAre()) << "for its users";
}

TEST_F(PlatformConfigTest, AnIdIsAName) {
  for (const char* id : {"", "Chat", "chat_bot", "chat/bot", "chat bot", "unknown"}) {
    EXPECT_THAT(Platform([&](auto& p) { p.set_id(id); }), ElementsAre("platforms[0].id")) << id;
  }
  EXPECT_THAT(Second([](auto& p) {
                p.set_id("chat");
                p.add_certificate_dns_names("second.example.com");
              }),
              ElementsAre("platforms[1].id"));
  EXPECT_THAT(Platform([](auto& p) { p.set_display_name("a\nb"); }), ElementsAre("platforms[0].displayName"));
}

TEST_F(PlatformConfigTest, AnIdentityIsWholeAndOfOnePlatform) {
  EXPECT_THAT(Second([](auto&) {}), ElementsAre("platforms[1]"));
  EXPECT_THAT(Second([](auto& p) { p.add_certificate_uris("spiffe://example.org/ns/chat/sa/bot"); }),
              ElementsAre("platforms[1].certificateUris[0]"));
  EXPECT_THAT(Second([](auto& p) { p.add_certificate_dns_names("chat.example.com"); }),
              ElementsAre("platforms[1].certificateDnsNames[0]"));
  EXPECT_THAT(Second([](auto& p) { p.add_service_accounts("chat/bot"); }),
              ElementsAre("platforms[1].serviceAccounts[0]"))
      << "the same account in another spelling";
  for (const char* uri : {"",
                          "chat",
                          "spiffe:",
                          "spiffe://",
                          "spiffe://example.org",
                          "spiffe://example.org/",
                          "spiffe:///ns/chat",
                          "spiffe://Example.org/ns",
                          "spiffe://example.org:8443/ns",
                          "spiffe://a@example.org/ns",
                          "spiffe://example.org//ns",
                          "spiffe://example.org/ns/",
                          "spiffe://example.org/../ns",
                          "spiffe://example.org/ns?x",
                          "spiffe://example.org/*",
                          "https://chat.example.com/*",
                          "urn:a b",
                          "1urn:x",
                          ":x",
                          "urn:"}) {
    EXPECT_THAT(Platform([&](auto& p) { p.set_certificate_uris(0, uri); }),
                ElementsAre("platforms[0].certificateUris[0]"))
        << uri;
  }
  for (const char* name : {"", "*.example.com", "Chat.example.com", "chat.example.com.", "chat..com", "-chat.com",
                           "a/b", "chat example"}) {
    EXPECT_THAT(Platform([&](auto& p) { p.set_certificate_dns_names(0, name); }),
                ElementsAre("platforms[0].certificateDnsNames[0]"))
        << name;
  }
  for (const char* account : {"", "chat", "main:chat", "main:a:b/c", "other:chat/bot", "main:*/bot"}) {
    EXPECT_THAT(Platform([&](auto& p) { p.set_service_accounts(0, account); }),
                ElementsAre("platforms[0].serviceAccounts[0]"))
        << account;
  }
}

TEST_F(PlatformConfigTest, TheClusterIsNamedWhereThereAreSeveral) {
  AddCluster("second");
  EXPECT_THAT(Platform([](auto& p) { p.set_service_accounts(0, "chat/bot"); }),
              ElementsAre("platforms[0].serviceAccounts[0]"));
  EXPECT_THAT(Platform([](auto& p) { p.set_service_accounts(0, "second:chat/bot"); }), ElementsAre());
  good_.clear_kubernetes();
  EXPECT_THAT(ValidatePlatforms(good_), StatusIs(absl::StatusCode::kInvalidArgument, "describe it under kubernetes"));
}

TEST_F(PlatformConfigTest, LimitsAndOriginsAreChecked) {
  for (const double limit :
       {-1.0, 1e7, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THAT(Platform([&](auto& p) { p.set_rate_limit(limit); }), ElementsAre("platforms[0].rateLimit")) << limit;
  }
  EXPECT_THAT(Platform([](auto& p) { p.set_rate_burst(-1); }), ElementsAre("platforms[0].rateBurst"));
  EXPECT_THAT(Platform([](auto& p) {
                p.set_rate_limit(0);
                p.set_rate_burst(5);
              }),
              ElementsAre("platforms[0].rateBurst"));
  for (const char* origin : {"", "chat.example.com", "http://chat.example.com", "https://chat.example.com/",
                             "https://chat.example.com/x", "https://Chat.example.com", "https://*.example.com",
                             "https://chat.example.com:443", "javascript:alert(1)", "null"}) {
    EXPECT_THAT(Platform([&](auto& p) { p.set_return_origins(0, origin); }),
                ElementsAre("platforms[0].returnOrigins[0]"))
        << origin;
  }
  for (const char* audience : {"", "api://a b", "a\nb"}) {
    EXPECT_THAT(Platform([&](auto& p) { p.set_subject_token_audiences(0, audience); }),
                ElementsAre("platforms[0].subjectTokenAudiences[0]"));
  }
}

TEST_F(PlatformConfigTest, AGrantSaysWhatAndForWhom) {
  EXPECT_THAT(Grant([](auto& g) { g.clear_apps(); }), ElementsAre("platforms[0].grants[0].apps"));
  for (const char* app : {"", "Mail", "mail*", "**"}) {
    EXPECT_THAT(Grant([&](auto& g) { g.set_apps(0, app); }), ElementsAre("platforms[0].grants[0].apps[0]")) << app;
  }
  for (const char* user :
       {"", "ann", "corp:", ":ann", "other:ann", "server-x:y", "sallyport:admin-token", "Corp:ann"}) {
    EXPECT_THAT(Grant([&](auto& g) { g.set_users(0, user); }), ElementsAre("platforms[0].grants[0].users[0]")) << user;
  }
  // As long as the vault takes names of users.
  EXPECT_THAT(Grant([&](auto& g) { g.set_users(0, "corp:" + std::string(507, 'a')); }), ElementsAre());
  EXPECT_THAT(Grant([&](auto& g) { g.set_users(0, "corp:" + std::string(508, 'a')); }),
              ElementsAre("platforms[0].grants[0].users[0]"));
  for (const char* group : {"", "other:team", "corp:"}) {
    EXPECT_THAT(Grant([&](auto& g) { g.set_groups(0, group); }), ElementsAre("platforms[0].grants[0].groups[0]"))
        << group;
  }
  EXPECT_THAT(Grant([](auto& g) {
                g.set_without_user(true);
                g.clear_users();
              }),
              ElementsAre("platforms[0].grants[0].withoutUser"));
  AddConnector("partner");
  EXPECT_THAT(Grant([](auto& g) { g.set_groups(0, "team"); }), ElementsAre("platforms[0].grants[0].groups[0]"))
      << "whose?";
}

TEST_F(PlatformConfigTest, AClusterSaysWhoseItsTokensAre) {
  for (const char* id : {"", "Main", "a:b", "a/b"}) {
    EXPECT_THAT(Cluster([&](auto& c) { c.set_id(id); }), ElementsAre("kubernetes[0].id")) << id;
  }
  EXPECT_THAT(Cluster([](auto& c) { c.clear_issuer(); }), ElementsAre("kubernetes[0].issuer"));
  EXPECT_THAT(Cluster([](auto& c) { c.clear_audience(); }), ElementsAre("kubernetes[0].audience"));
  EXPECT_THAT(Cluster([](auto& c) { c.set_audience(c.issuer()); }), ElementsAre("kubernetes[0].audience"));
  for (const char* api_server :
       {"kubernetes.default.svc", "https://kubernetes.default.svc", "https://kubernetes.default.svc/",
        "https://kubernetes.default.svc.cluster.local", "kubernetes.default.svc.example.org"}) {
    EXPECT_THAT(Cluster([&](auto& c) { c.set_audience(api_server); }), ElementsAre("kubernetes[0].audience"))
        << api_server << ", whatever the issuer is";
  }
  EXPECT_THAT(Cluster([](auto& c) { c.set_audience("kubernetes.default.svcx"); }), ElementsAre());
  EXPECT_THAT(Cluster([](auto& c) { c.clear_keys(); }), ElementsAre("kubernetes[0]"));
  EXPECT_THAT(Cluster([](auto& c) { c.set_jwks_url("k8s.example"); }), ElementsAre("kubernetes[0].jwksUrl"));
  for (const char* url :
       {"k8s.example", "https://k8s.example/", "https://k8s.example/apis", "https://k8s.example:443"}) {
    EXPECT_THAT(Cluster([&](auto& c) { c.set_token_review_url(url); }), ElementsAre("kubernetes[0].tokenReviewUrl"))
        << url;
  }
  AddCluster("main");
  EXPECT_THAT(FieldsOf(ValidateClusters(good_.kubernetes())),
              ElementsAre("kubernetes[1].id", "kubernetes[1].audience"));
  good_.mutable_kubernetes(1)->set_id("second");
  good_.mutable_kubernetes(1)->set_audience("sallyport-second");
  EXPECT_THAT(ValidateClusters(good_.kubernetes()), IsOk());
}

TEST_F(PlatformConfigTest, FilesOfAClusterAreThere) {
  EXPECT_THAT(Cluster([](auto& c) { c.set_ca_bundle("/none"); }), ElementsAre("kubernetes[0].caBundle"));
  EXPECT_THAT(Cluster([](auto& c) { c.set_token_file("/none"); }), ElementsAre("kubernetes[0].tokenFile"));
  EXPECT_THAT(Cluster([](auto& c) { c.set_jwks_file("/none"); }), ElementsAre("kubernetes[0].jwksFile"));
  const TempDirectory directory;
  const std::string jwks = directory.path() + "/jwks";
  ASSERT_THAT(WriteFileAtomic(jwks, "{}"), IsOk());
  EXPECT_THAT(Cluster([&](auto& c) { c.set_jwks_file(jwks); }), ElementsAre("kubernetes[0].jwksFile"));
  ASSERT_THAT(WriteFileAtomic(jwks, TestCluster().Jwks()), IsOk());
  EXPECT_THAT(Cluster([&](auto& c) { c.set_jwks_file(jwks); }), ElementsAre());
  EXPECT_THAT(Cluster([&](auto& c) {
                c.set_jwks_file(jwks);
                c.set_token_file(jwks);
                c.set_ca_bundle(jwks);
              }),
              ElementsAre("kubernetes[0].caBundle", "kubernetes[0].tokenFile"));
}

TEST_F(PlatformConfigTest, AClusterIsReachedWhereTheNetworksAllowIt) {
  const auto check = [this](const std::string& url, bool review) {
    config::v1::AuthnConfig config = good_;
    if (review) {
      config.mutable_kubernetes(0)->set_token_review_url(url);
    } else {
      config.mutable_kubernetes(0)->set_jwks_url(url);
    }
    return CheckClusterNetworks(config.kubernetes(),
                                EgressPolicy({*Network::Parse("127.0.0.0/8")}, EgressPolicy::PlainHttp::kLoopback));
  };
  EXPECT_THAT(check("https://k8s.example", true), IsOk());
  EXPECT_THAT(check("http://127.0.0.1:6443", true), IsOk());
  EXPECT_EQ(FieldsOf(check("http://k8s.example", true)), std::vector<std::string>{"kubernetes[0].tokenReviewUrl"});
  EXPECT_EQ(FieldsOf(check("http://k8s.example/jwks", false)), std::vector<std::string>{"kubernetes[0].jwksUrl"});
  EXPECT_THAT(std::string(check("https://10.0.0.1", true).message()), HasSubstr("deployment.egress.oauthNetworks"));
  EXPECT_THAT(check("https://169.254.169.254/jwks", false), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace sallyport::authn::platforms

// SPDX-License-Identifier: Apache-2.0
#include "common/config/service_config.h"

#include <filesystem>

#include <gmock/gmock.h>

#include "common/config/egress.h"
#include "common/error.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The fields a check refuses.
std::vector<std::string> Fields(const absl::Status& status) {
  std::vector<std::string> fields;
  for (const auto& violation : DetailOf(status).violations) {
    fields.push_back(violation.field);
  }
  return fields;
}

TEST(MergeViolationsTest, EveryFieldIsNamedOnce) {
  EXPECT_THAT(MergeViolations({absl::OkStatus(), absl::OkStatus()}), IsOk());
  const absl::Status merged =
      MergeViolations({InvalidFields({{"a", "first"}, {"b", "x"}}), absl::OkStatus(), InvalidField("a", "second")});
  EXPECT_THAT(Fields(merged), ElementsAre("a", "b"));
  EXPECT_THAT(merged, StatusIs(absl::StatusCode::kInvalidArgument, "a: first; b: x"));
  EXPECT_THAT(MergeViolations({InvalidField("a", "x"), absl::NotFoundError("no field")}),
              StatusIs(absl::StatusCode::kNotFound, "no field"));
}

TEST(CheckListenAddressTest, WantsAddressAndPort) {
  for (const char* good : {"127.0.0.1:7001", "[::1]:0", "localhost:65535", "0.0.0.0:80", "[::]:443"}) {
    EXPECT_THAT(CheckListenAddress("x", good), IsOk()) << good;
  }
  for (const char* bad : {"", "7001", ":7001", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536",
                          "127.0.0.1:-1", "::1:7001", "unix:/tmp/x"}) {
    EXPECT_THAT(Fields(CheckListenAddress("x", bad)), ElementsAre("x")) << bad;
  }
}

TEST(IsLoopbackListenTest, OnlyAddressesOfThisHost) {
  for (const char* good : {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"}) {
    EXPECT_TRUE(IsLoopbackListen(good)) << good;
  }
  for (const char* bad : {"", "0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.example:1", "[::1"}) {
    EXPECT_FALSE(IsLoopbackListen(bad)) << bad;
  }
}

class ServiceConfigFilesTest : public ::testing::Test {
 protected:
  std::string Private(const std::string& name, const std::string& content) const {
    std::string path = directory_.Write(name, content);
    std::filesystem::permissions(path, std::filesystem::perms::owner_read);
    return path;
  }
  config::v1::Server GoodServer() const {
    config::v1::Server server;
    server.set_listen("127.0.0.1:7001");
    server.mutable_tls()->set_certificate(directory_.Write("crt", "c"));
    server.mutable_tls()->set_private_key(directory_.Write("key", "k"));
    server.mutable_tls()->set_ca_bundle(directory_.Write("ca", "a"));
    server.mutable_tls()->set_trust_domain("sallyport.test");
    return server;
  }

  testing::TempDirectory directory_;
};

TEST_F(ServiceConfigFilesTest, AServerNeedsAListenerAndMutualTls) {
  EXPECT_THAT(ValidateServer(GoodServer()), IsOk());
  EXPECT_THAT(Fields(ValidateServer({})),
              ElementsAre("server.listen", "server.tls.certificate", "server.tls.privateKey", "server.tls.caBundle",
                          "server.tls.trustDomain"));
  config::v1::Server server = GoodServer();
  server.clear_listen();
  EXPECT_THAT(ValidateServer(server, Listener::kOptional), IsOk());
  server.set_listen("7001");
  server.mutable_tls()->set_private_key(directory_.File("none"));
  server.set_max_threads(-1);
  EXPECT_THAT(Fields(ValidateServer(server, Listener::kOptional)),
              ElementsAre("server.listen", "server.tls.privateKey", "server.maxThreads"));
}

TEST_F(ServiceConfigFilesTest, PeersAreNamedAsInTheFile) {
  config::v1::Peers peers;
  peers.set_vault("127.0.0.1:1");
  EXPECT_THAT(Fields(ValidatePeers(peers, {"authn", "tokenBroker", "vault"})),
              ElementsAre("peers.authn", "peers.tokenBroker"));
}

TEST_F(ServiceConfigFilesTest, ADatabaseNeedsAnEngineAndItsPasswordFile) {
  config::v1::Database database;
  EXPECT_THAT(Fields(ValidateDatabase(database)), ElementsAre("database"));
  database.set_sqlite("x.db");
  EXPECT_THAT(ValidateDatabase(database), IsOk());
  database.set_sqlite("a\"b");
  EXPECT_THAT(Fields(ValidateDatabase(database)), ElementsAre("database.sqlite"));
  for (const char* bad : {"postgresql://db/x", "host=db password=x"}) {
    database.set_postgresql(bad);
    EXPECT_THAT(Fields(ValidateDatabase(database)), ElementsAre("database.postgresql")) << bad;
  }
  database.set_postgresql("host=db dbname=x");
  database.set_password_file(Private("password", "x\n"));
  EXPECT_THAT(ValidateDatabase(database), IsOk());
  database.set_password_file(directory_.Write("open", "x"));
  database.set_pool_size(513);
  database.set_audit_outbox_limit(1);
  EXPECT_THAT(Fields(ValidateDatabase(database)),
              ElementsAre("database.poolSize", "database.passwordFile", "database.auditOutboxLimit"));
}

TEST_F(ServiceConfigFilesTest, ThePublicUrlIsABareOrigin) {
  for (const char* good : {"https://gw.example.com", "https://gw.example.com:8443", "http://127.0.0.1:8080",
                           "http://localhost", "http://[::1]:8080"}) {
    EXPECT_THAT(CheckPublicUrl(good), IsOk()) << good;
  }
  for (const char* bad : {"", "gw.example.com", "https://gw.example.com/", "https://gw.example.com/x",
                          "https://GW.example.com", "https://gw.example.com:443", "http://gw.example.com"}) {
    EXPECT_THAT(Fields(CheckPublicUrl(bad)), ElementsAre("deployment.publicUrl")) << bad;
  }
}

TEST_F(ServiceConfigFilesTest, FurtherHostsAreAsHostSaysThem) {
  const auto check = [](const std::string& host) {
    config::v1::Deployment deployment;
    deployment.set_public_url("https://gw.example.com");
    deployment.add_extra_hosts(host);
    return Fields(ValidateDeployment(deployment));
  };
  for (const char* good : {"x", "gateway.internal", "Gateway.internal:8443", "gw.example:443", "gw.example:80",
                           "10.0.0.7", "10.0.0.7:8080", "[::1]", "[fd00::1]:8443"}) {
    EXPECT_THAT(check(good), IsEmpty()) << good;
  }
  for (const char* bad : {"", "https://gw.internal", "gw.internal/", "gw.internal/x", "gw.internal?x", "gw.internal#x",
                          "ann@gw.internal", "gw.internal:", "gw.internal:0", "gw.internal:65536", "gw internal",
                          "*.internal", "::1", "[::1", "[0:0:0:0:0:0:0:1]", "gw.internal:08443", "gw.internal."}) {
    EXPECT_THAT(check(bad), ElementsAre("deployment.extraHosts[0]")) << bad;
  }
}

TEST_F(ServiceConfigFilesTest, ADeploymentIsCheckedEntryByEntry) {
  config::v1::Deployment deployment;
  deployment.set_public_url("https://gw.example.com");
  deployment.add_allowed_origins("https://app.example.com");
  deployment.add_trusted_proxies("10.0.0.0/8");
  EXPECT_THAT(Fields(ValidateDeployment(deployment)), IsEmpty());
  deployment.add_allowed_origins("https://app.example.com/x");
  deployment.add_trusted_proxies("10.0.0.1/8");
  deployment.mutable_egress()->add_upstream_networks("x");
  deployment.mutable_egress()->add_oauth_networks("y");
  deployment.mutable_egress()->set_ca_bundle(directory_.File("none"));
  EXPECT_THAT(Fields(ValidateDeployment(deployment)),
              ElementsAre("deployment.trustedProxies[1]", "deployment.egress.upstreamNetworks[0]",
                          "deployment.egress.oauthNetworks[0]", "deployment.allowedOrigins[1]"));
  EXPECT_THAT(Fields(CheckEgressFiles(deployment.egress())), ElementsAre("deployment.egress.caBundle"));
}

TEST_F(ServiceConfigFilesTest, AnEgressProxyIsCheckedFieldByField) {
  config::v1::Deployment deployment;
  deployment.set_public_url("https://gw.example.com");
  EXPECT_EQ(*EgressProxyFrom(deployment.egress()), nullptr);
  config::v1::EgressProxy& proxy = *deployment.mutable_egress()->mutable_proxy();
  EXPECT_THAT(Fields(ValidateDeployment(deployment)), ElementsAre("deployment.egress.proxy.url"));
  proxy.set_url("http://proxy.example:3128");
  proxy.add_no_proxy(".internal");
  EXPECT_THAT(Fields(ValidateDeployment(deployment)), IsEmpty());
  proxy.set_username("gate");
  EXPECT_THAT(Fields(ValidateDeployment(deployment)), ElementsAre("deployment.egress.proxy.passwordFile"));
  proxy.set_password_file(Private("proxy-password", "pw\n"));
  EXPECT_THAT(Fields(ValidateDeployment(deployment)), IsEmpty());
  EXPECT_THAT(CheckEgressFiles(deployment.egress()), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto made, EgressProxyFrom(deployment.egress()));
  EXPECT_EQ(made->authorization().Expose(), "Basic Z2F0ZTpwdw==");
  ASSERT_OK_AND_ASSIGN(const auto routes, EgressProxyWithoutPassword(deployment.egress()));
  EXPECT_TRUE(routes->Covers("api.example.com"));
  EXPECT_FALSE(routes->Covers("git.internal"));
  for (const std::string& file :
       {directory_.Write("open-password", "pw"), directory_.File("none"), Private("two-lines", "a\nb\n")}) {
    proxy.set_password_file(file);
    EXPECT_THAT(Fields(CheckEgressFiles(deployment.egress())), ElementsAre("deployment.egress.proxy.passwordFile"))
        << file;
  }
  proxy.set_username("");
  proxy.add_no_proxy("*");
  EXPECT_THAT(Fields(ValidateDeployment(deployment)),
              ElementsAre("deployment.egress.proxy.noProxy[1]", "deployment.egress.proxy.username"));
}

TEST_F(ServiceConfigFilesTest, HostedClientOriginsAreOriginsOrNone) {
  const auto check = [](const std::vector<std::string>& origins) {
    config::v1::Deployment deployment;
    deployment.set_public_url("https://gw.example.com");
    deployment.mutable_hosted_client_origins()->Assign(origins.begin(), origins.end());
    return Fields(ValidateDeployment(deployment));
  };
  EXPECT_THAT(check({"none"}), IsEmpty());
  EXPECT_THAT(check({"https://claude.ai", "https://chat.example.com:8443"}), IsEmpty());
  EXPECT_THAT(check({"https://claude.ai", "none"}), ElementsAre("deployment.hostedClientOrigins[1]"));
  for (const char* bad : {"", "null", "*", "claude.ai", "https://claude.ai/", "https://*.claude.ai", "None",
                          "https://Claude.ai", "https://claude.ai:443"}) {
    EXPECT_THAT(check({bad}), ElementsAre("deployment.hostedClientOrigins[0]")) << bad;
  }
}

}  // namespace
}  // namespace sallyport

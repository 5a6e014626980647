// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_broker_server.h"

#include <filesystem>

#include <gmock/gmock.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::ElementsAre;

std::vector<std::string> FieldsOf(const absl::Status& status) {
  std::vector<std::string> names;
  for (const auto& violation : DetailOf(status).violations) names.push_back(violation.field);
  return names;
}

config::v1::TokenBrokerConfig Good() {
  config::v1::TokenBrokerConfig config;
  config.mutable_deployment()->set_public_url("https://gw.example.com");
  config.set_data_directory("/x");
  return config;
}

TEST(TokenBrokerConfig, RefusalsNameTheField) {
  EXPECT_THAT(ValidateTokenBrokerConfig(Good()), IsOk());
  EXPECT_THAT(FieldsOf(ValidateTokenBrokerConfig({})), ElementsAre("deployment.publicUrl", "dataDirectory"));
  config::v1::TokenBrokerConfig config = Good();
  config.mutable_idle_refresh()->set_seconds(60);
  config.mutable_deployment()->mutable_egress()->set_ca_bundle("/none");
  config.mutable_deployment()->mutable_egress()->add_oauth_networks("x");
  EXPECT_THAT(FieldsOf(ValidateTokenBrokerConfig(config)),
              ElementsAre("deployment.egress.oauthNetworks[0]", "deployment.egress.caBundle", "idleRefresh"));
}

TEST(TokenBrokerConfig, NobodyIsDisconnectedSoonerThanTheyAreLookedAt) {
  config::v1::TokenBrokerConfig config = Good();
  const auto check = [&](absl::Duration refresh, absl::Duration revoke_after) {
    *config.mutable_idle_refresh() = ToProtoDuration(refresh);
    *config.mutable_idle_revoke_after() = ToProtoDuration(revoke_after);
    return ValidateTokenBrokerConfig(config);
  };
  EXPECT_THAT(check(absl::Hours(1), absl::Hours(24)), IsOk());
  EXPECT_THAT(FieldsOf(check(absl::Hours(1), absl::Hours(23))), ElementsAre("idleRevokeAfter"));
  EXPECT_THAT(FieldsOf(check(absl::Hours(48), absl::Hours(48))), ElementsAre("idleRevokeAfter"));
  EXPECT_THAT(check(absl::Hours(48), absl::Hours(49)), IsOk());
  config.clear_idle_refresh();
  EXPECT_THAT(FieldsOf(ValidateTokenBrokerConfig(config)), ElementsAre("idleRevokeAfter")) << "7 days unless it is set";
}

TEST(TokenBrokerConfig, RedisNeedsAnAddressAndWithAUserAPassword) {
  config::v1::TokenBrokerConfig config = Good();
  config::v1::TokenBrokerConfig::Redis& redis = *config.mutable_redis();
  for (const char* good : {"127.0.0.1:6379", "redis:1", "::1:6379", "unix:/run/redis"}) {
    redis.set_address(good);
    EXPECT_THAT(ValidateTokenBrokerConfig(config), IsOk()) << good;
  }
  for (const char* bad : {"", "redis", ":6379", "redis:0", "redis:65536", "unix:redis"}) {
    redis.set_address(bad);
    EXPECT_THAT(FieldsOf(ValidateTokenBrokerConfig(config)), ElementsAre("redis.address")) << bad;
  }
  redis.set_address("redis:6379");
  redis.set_username("broker");
  EXPECT_THAT(FieldsOf(ValidateTokenBrokerConfig(config)), ElementsAre("redis.passwordFile"));
  redis.set_password_file("/none");
  redis.mutable_timeout();
  EXPECT_THAT(FieldsOf(ValidateTokenBrokerConfig(config)), ElementsAre("redis.timeout", "redis.passwordFile"));

  const sallyport::testing::TempDirectory directory;
  redis.set_password_file(directory.Write("password", "x\n"));
  std::filesystem::permissions(redis.password_file(), std::filesystem::perms::owner_read);
  redis.clear_timeout();
  EXPECT_THAT(ValidateTokenBrokerConfig(config), IsOk());
}

TEST(TokenBrokerConfig, TlsOfRedisIsCheckedWithItsFiles) {
  const sallyport::testing::TempDirectory directory;
  const auto ca = sallyport::testing::MakeTestCertificate(nullptr, {});
  config::v1::TokenBrokerConfig config = Good();
  config::v1::TokenBrokerConfig::Redis& redis = *config.mutable_redis();
  redis.set_address("redis:6379");
  redis.mutable_tls();
  EXPECT_THAT(ValidateTokenBrokerConfig(config), IsOk()) << "the system's authorities";
  redis.mutable_tls()->set_ca_bundle(directory.Write("ca.crt", ca.CertificatePem()));
  EXPECT_THAT(ValidateTokenBrokerConfig(config), IsOk());
  redis.mutable_tls()->set_certificate("/none");
  EXPECT_THAT(FieldsOf(ValidateTokenBrokerConfig(config)), ElementsAre("redis.tls.certificate"));
  redis.mutable_tls()->set_certificate(directory.File("ca.crt"));
  EXPECT_THAT(FieldsOf(ValidateTokenBrokerConfig(config)), ElementsAre("redis.tls.privateKey"));
  redis.mutable_tls()->set_private_key(directory.Write("ca.key", ca.KeyPem()));
  EXPECT_THAT(ValidateTokenBrokerConfig(config), IsOk());
  redis.mutable_tls()->set_ca_bundle(directory.Write("empty", ""));
  EXPECT_THAT(FieldsOf(ValidateTokenBrokerConfig(config)), ElementsAre("redis.tls.caBundle"));
  redis.set_address("unix:/run/redis");
  EXPECT_THAT(FieldsOf(ValidateTokenBrokerConfig(config)), ElementsAre("redis.tls"));
  redis.clear_tls();
  redis.set_address("rediss://redis:6379");
  EXPECT_THAT(FieldsOf(ValidateTokenBrokerConfig(config)), ElementsAre("redis.address"));
}

TEST(TokenBrokerConfig, AProcessOfItsOwnNeedsAListenerAndPeers) {
  EXPECT_THAT(FieldsOf(ValidateSplitConfig(Good())),
              ElementsAre("server.listen", "server.tls.certificate", "server.tls.privateKey", "server.tls.caBundle",
                          "server.tls.trustDomain", "peers.registry", "peers.authn", "peers.vault"));
}

}  // namespace
}  // namespace sallyport::token_broker

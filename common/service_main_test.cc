// SPDX-License-Identifier: Apache-2.0
#include "common/service_main.h"

#include <gmock/gmock.h>

#include "common/error.h"
#include "sallyport/config/v1/services.pb.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using config::v1::VaultConfig;
using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;

struct Outcome {
  int code = -1;
  std::string out;
  std::string error;
  bool started = false;
};

// Only paths that end before anything is started: what runs afterwards is seen by the end-to-end tests.
Outcome RunWith(std::vector<std::string> words) {
  words.insert(words.begin(), "sallyport-vault");
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  Outcome outcome;
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  outcome.code = RunService<VaultConfig>(
      static_cast<int>(argv.size()), argv.data(), "vault",
      [](const VaultConfig& config) {
        return config.database().sqlite().empty() ? InvalidField("database.sqlite", "is required") : absl::OkStatus();
      },
      [&](const VaultConfig&, const Clock&) -> absl::StatusOr<std::unique_ptr<RunningService>> {
        outcome.started = true;
        return absl::UnavailableError("not in this test");
      });
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.error = ::testing::internal::GetCapturedStderr();
  return outcome;
}

TEST(ServiceMainTest, HelpAndVersionNeedNoConfiguration) {
  EXPECT_THAT(RunWith({"--help"}).out, HasSubstr("--check-config"));
  const Outcome version = RunWith({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.out, std::string("sallyport-vault ") + SALLYPORT_VERSION + "\n");
}

TEST(ServiceMainTest, BadUsageIsTwo) {
  EXPECT_EQ(RunWith({}).code, 2);
  EXPECT_EQ(RunWith({"--config"}).code, 2);
  const Outcome unknown = RunWith({"--confg=x"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.error, HasSubstr("unknown option --confg=x"));
}

TEST(ServiceMainTest, ConfigurationErrorsNameFileLineAndField) {
  const testing::TempDirectory directory;
  const std::string unknown = directory.Write("a.yaml", "server:\n  lisen: x\n");
  const Outcome first = RunWith({"--config", unknown});
  EXPECT_EQ(first.code, 2);
  EXPECT_EQ(first.error, unknown + ":2: field server.lisen: unknown field\n");

  const std::string invalid = directory.Write("b.yaml", "server: {listen: x}\ndatabase:\n  poolSize: 3\n");
  const Outcome second = RunWith({"--config=" + invalid});
  EXPECT_EQ(second.code, 2);
  EXPECT_EQ(second.error, invalid + ":2: field database.sqlite: is required\n");
  EXPECT_FALSE(second.started);

  const std::string level = directory.Write("c.yaml", "server:\n  logLevel: loud\n");
  EXPECT_THAT(RunWith({"--config", level}).error, HasSubstr(":2: field server.logLevel: must be debug"));
  EXPECT_THAT(RunWith({"--config", directory.File("none.yaml")}).error, HasSubstr("none.yaml"));
}

TEST(ServiceMainTest, CheckConfigStartsNothing) {
  const testing::TempDirectory directory;
  const Outcome good = RunWith({"--check-config", "--config", directory.Write("a.yaml", "database: {sqlite: x.db}\n")});
  EXPECT_EQ(good.code, 0);
  EXPECT_FALSE(good.started);
  EXPECT_THAT(good.out, HasSubstr("the configuration is good"));
}

TEST(RpcOptionsTest, EveryMissingFieldIsNamed) {
  config::v1::Server server;
  const absl::Status status = RpcOptionsFrom(server).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, "server.tls.privateKey: is required"));
  EXPECT_EQ(DetailOf(status).violations.size(), 5U);
}

TEST(RpcOptionsTest, ACompleteConfigurationIsTaken) {
  config::v1::Server server;
  server.set_listen("127.0.0.1:7001");
  server.mutable_tls()->set_certificate("c");
  server.mutable_tls()->set_private_key("k");
  server.mutable_tls()->set_ca_bundle("a");
  server.mutable_tls()->set_trust_domain("sallyport.test");
  server.set_max_threads(7);
  ASSERT_OK_AND_ASSIGN(const RpcServer::Options options, RpcOptionsFrom(server));
  EXPECT_EQ(options.max_threads, 7);
  EXPECT_EQ(options.tls.trust_domain, "sallyport.test");
  server.set_max_threads(-1);
  EXPECT_THAT(RpcOptionsFrom(server), StatusIs(absl::StatusCode::kInvalidArgument, "server.maxThreads"));
}

}  // namespace
}  // namespace sallyport

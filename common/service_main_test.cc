// SPDX-License-Identifier: Apache-2.0
#include "common/service_main.h"

#include <cstdlib>
#include <functional>

#include <gmock/gmock.h>
#include <sys/resource.h>

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
using ::testing::Not;

struct Outcome {
  int code = -1;
  std::string out;
  std::string error;
  bool started = false;
};

// Only paths that end before a service runs: what comes afterwards is seen by the tests of the programs.
Outcome RunWith(
    std::vector<std::string> words, const absl::Status& start = absl::UnavailableError("not in this test"),
    const std::string& name = "vault", const std::function<void()>& while_starting = [] {}) {
  setenv("SALLYPORT_ALLOW_CORE", "1", 1);  // A leak check of this process needs ptrace.
  words.insert(words.begin(), "program");
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  Outcome outcome;
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  outcome.code = RunService<VaultConfig>(
      static_cast<int>(argv.size()), argv.data(), name,
      [](const VaultConfig& config) {
        return config.database().sqlite().empty() ? InvalidField("database.sqlite", "is required") : absl::OkStatus();
      },
      [&](const VaultConfig&, const Clock&) -> absl::StatusOr<std::unique_ptr<RunningService>> {
        outcome.started = true;
        while_starting();
        return start;
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

TEST(ServiceMainTest, TheProgramIsCalledAsItsFile) {
  EXPECT_THAT(RunWith({"--version"}, absl::OkStatus(), "token_broker").out, HasSubstr("sallyport-token-broker "));
  EXPECT_THAT(RunWith({"--help"}, absl::OkStatus(), "token_broker").out, HasSubstr("sallyport-token-broker: "));
  EXPECT_THAT(RunWith({"-x"}, absl::OkStatus(), "token_broker").error, HasSubstr("sallyport-token-broker: unknown"));
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

  const std::string admin = directory.Write("d.yaml", "database: {sqlite: x}\nserver:\n  adminListen: here\n");
  const Outcome third = RunWith({"--config", admin, "--check-config"});
  EXPECT_EQ(third.code, 2);
  EXPECT_THAT(third.error, HasSubstr(admin + ":3: field server.adminListen: must be address:port"));
}

TEST(ServiceMainTest, AFaultThatOnlyTheStartFindsIsLocatedToo) {
  const testing::TempDirectory directory;
  const std::string file = directory.Write("a.yaml", "database:\n  sqlite: x.db\n");
  const Outcome located = RunWith({"--config", file}, InvalidField("database.sqlite", "is no database"));
  EXPECT_TRUE(located.started);
  EXPECT_EQ(located.code, 2);
  EXPECT_EQ(located.error, file + ":2: field database.sqlite: is no database\n");

  const Outcome other = RunWith({"--config", file}, absl::UnavailableError("the port is taken"));
  EXPECT_EQ(other.code, 1);
  EXPECT_EQ(other.error, "sallyport-vault: the port is taken\n");
}

TEST(ServiceMainTest, WhatLibrariesSayIsALineOfTheLog) {
  const testing::TempDirectory directory;
  const Outcome outcome = RunWith({"--config", directory.Write("a.yaml", "database: {sqlite: x.db}\n")},
                                  absl::UnavailableError("x"), "vault", [] {
                                    VaultConfig invalid;
                                    invalid.mutable_database()->set_sqlite("\xff");
                                    invalid.SerializeAsString();
                                  });
  EXPECT_THAT(outcome.out, HasSubstr("\"level\":\"warning\",\"service\":\"vault\",\"event\":\"protobuf\""));
  EXPECT_THAT(outcome.out, HasSubstr("Database.sqlite"));
  EXPECT_THAT(outcome.error, Not(HasSubstr("libprotobuf")));
}

TEST(ServiceMainTest, CheckConfigStartsNothing) {
  const testing::TempDirectory directory;
  const Outcome good = RunWith({"--check-config", "--config", directory.Write("a.yaml", "database: {sqlite: x.db}\n")});
  EXPECT_EQ(good.code, 0);
  EXPECT_FALSE(good.started);
  EXPECT_THAT(good.out, HasSubstr("the configuration is good"));
}

TEST(RpcOptionsTest, MissingFieldsAreNamed) {
  EXPECT_THAT(RpcOptionsFrom({}), StatusIs(absl::StatusCode::kInvalidArgument, "server.tls.privateKey: is required"));
}

TEST(RpcOptionsTest, ACompleteConfigurationIsTaken) {
  const testing::TempDirectory directory;
  config::v1::Server server;
  server.set_listen("127.0.0.1:7001");
  server.mutable_tls()->set_certificate(directory.Write("crt", "c"));
  server.mutable_tls()->set_private_key(directory.Write("key", "k"));
  server.mutable_tls()->set_ca_bundle(directory.Write("ca", "a"));
  server.mutable_tls()->set_trust_domain("sallyport.test");
  server.set_max_threads(7);
  ASSERT_OK_AND_ASSIGN(const RpcServer::Options options, RpcOptionsFrom(server));
  EXPECT_EQ(options.max_threads, 7);
  EXPECT_EQ(options.tls.trust_domain, "sallyport.test");
  server.set_max_threads(0);
  EXPECT_EQ(RpcOptionsFrom(server)->max_threads, 256);
  server.set_max_threads(-1);
  EXPECT_THAT(RpcOptionsFrom(server), StatusIs(absl::StatusCode::kInvalidArgument, "server.maxThreads"));
}

TEST(ServiceMainTest, AsManyFilesMayBeOpenAsTheSystemAllows) {
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_GT(before.rlim_max, 256U);
  const rlimit low = {256, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  const testing::TempDirectory directory;
  rlimit started = {};
  RunWith({"--config", directory.Write("vault.yaml", "database: {sqlite: x}\n")}, absl::UnavailableError("enough"),
          "vault", [&] { getrlimit(RLIMIT_NOFILE, &started); });
  EXPECT_EQ(started.rlim_cur, before.rlim_max);
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
}

}  // namespace
}  // namespace sallyport

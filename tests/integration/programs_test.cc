// SPDX-License-Identifier: Apache-2.0
// The programs themselves: what a wrong configuration is answered, and gRPC health.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <thread>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/rpc/server.h"
#include "tests/testing/health_check.h"
#include "tests/testing/process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsServing;
using ::sallyport::testing::MakeTestCertificate;
using ::sallyport::testing::TempDirectory;
using ::sallyport::testing::TestCertificate;
using ::testing::HasSubstr;

constexpr const char* kSplit[] = {"vault", "registry", "authn", "token-broker", "edge"};

std::string Binary(const std::string& program) { return absl::StrCat(SALLYPORT_BIN, "/sallyport-", program); }

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}

// Configurations of all programs, good as they are, below one directory.
class Programs : public ::testing::Test {
 protected:
  Programs() {
    directory_.Write("ca.crt", ca_.CertificatePem());
    for (const char* service : {"vault", "registry", "authn", "token_broker", "edge"}) {
      const TestCertificate made = MakeTestCertificate(&ca_, {absl::StrCat("spiffe://sallyport.test/", service)});
      directory_.Write(absl::StrCat(service, ".crt"), made.CertificatePem());
      directory_.Write(absl::StrCat(service, ".key"), made.KeyPem());
    }
    for (const char* program : kSplit) {
      ports_[program] = FreePort();
    }
    ports_["standalone"] = FreePort();
  }

  static std::string Service(const std::string& program) { return absl::StrReplaceAll(program, {{"-", "_"}}); }
  std::string Target(const std::string& program) const { return absl::StrCat("127.0.0.1:", ports_.at(program)); }

  // One field a line, so that every fault has a line of its own.
  std::string Config(const std::string& program) const {
    const std::string own = absl::StrCat(directory_.path(), "/", program);
    if (program == "standalone") {
      return absl::StrCat("dataDirectory: ", own,
                          "\nlisten: 127.0.0.1:0\ndeployment:\n  publicUrl: https://gw.example.com\n",
                          "adminListen: 127.0.0.1:0\nhealthListen: ", Target(program), "\n");
    }
    std::string text = absl::StrCat(
        "server:\n  listen: ", Target(program),
        "\n  adminListen: 127.0.0.1:0\n  tls:\n    certificate: ", directory_.File(Service(program) + ".crt"),
        "\n    privateKey: ", directory_.File(Service(program) + ".key"), "\n    caBundle: ", directory_.File("ca.crt"),
        "\n    trustDomain: sallyport.test\npeers:\n  vault: ", Target("vault"), "\n  authn: ", Target("authn"),
        "\n  registry: ", Target("registry"), "\n  tokenBroker: ", Target("token-broker"),
        "\ndeployment:\n  publicUrl: https://gw.example.com\n");
    if (program == "vault") absl::StrAppend(&text, "kek:\n  directory: ", own, "-kek\n");
    if (program == "edge") absl::StrAppend(&text, "listen: 127.0.0.1:0\n");
    if (program == "edge" || program == "token-broker") {
      absl::StrAppend(&text, "dataDirectory: ", own, "\n");
    } else {
      absl::StrAppend(&text, "database:\n  sqlite: ", own, ".db\n");
    }
    return text;
  }

  struct Outcome {
    int code = -1;
    std::string output;
  };
  // Runs a program to its end.
  Outcome Run(const std::string& program, const std::vector<std::string>& options) {
    const std::string log = directory_.Write("run.log", "");
    std::vector<std::string> argv = {Binary(program)};
    argv.insert(argv.end(), options.begin(), options.end());
    const absl::StatusOr<int> code = testing::WaitForExit(*testing::Spawn(argv, log), absl::Seconds(60));
    return {code.value_or(-1), Content(log)};
  }

  const TestCertificate ca_ = MakeTestCertificate(nullptr, {});
  const TempDirectory directory_;
  std::map<std::string, int> ports_;
};

// A line of a good configuration is replaced (by nothing: it is missing), and the error names `field` at the first line
// that begins with `at`; the first line of the file if that is empty.
struct Fault {
  std::string line;
  std::string replacement;
  std::string at;
  std::string field;
};

std::vector<Fault> FaultsOfServer(const std::string& program) {
  std::vector<Fault> faults = {
      {"  listen:", "  listen: 7001", "  listen:", "server.listen"},
      {"  adminListen:", "  adminListen: nowhere", "  adminListen:", "server.adminListen"},
      {"  adminListen:", "  logLevel: loud", "  logLevel:", "server.logLevel"},
      {"  adminListen:", "  lisen: x", "  lisen:", "server.lisen"},
      {"  adminListen:", "  maxThreads: -1", "  maxThreads:", "server.maxThreads"},
      {"    certificate:", "", "  tls:", "server.tls.certificate"},
      {"    privateKey:", "    privateKey: /none", "    privateKey:", "server.tls.privateKey"},
      {"    caBundle:", "    caBundle: /none", "    caBundle:", "server.tls.caBundle"},
      {"    trustDomain:", "", "  tls:", "server.tls.trustDomain"},
      {"  publicUrl:", "  publicUrl: https://gw.example.com/", "  publicUrl:", "deployment.publicUrl"},
      {"  publicUrl:", "  extraHosts: [x]", "deployment:", "deployment.publicUrl"},
      {"deployment:", "deployment:\n  extraHosts:\n    - gw.internal\n    - https://gw.internal",
       "    - https:", "deployment.extraHosts[1]"},
      {"deployment:", "deployment:\n  egress:\n    oauthNetworks: [x]",
       "    oauthNetworks:", "deployment.egress.oauthNetworks[0]"},
      {"deployment:", "deployment:\n  egress:\n    proxy:\n      url: https://proxy.example:3128",
       "      url:", "deployment.egress.proxy.url"},
      {"deployment:", "deployment:\n  egress:\n    proxy:\n      noProxy: [x]",
       "    proxy:", "deployment.egress.proxy.url"},
      {"deployment:", "deployment:\n  egress:\n    proxy:\n      url: http://p:1\n      noProxy: [\"*\"]",
       "      noProxy:", "deployment.egress.proxy.noProxy[0]"},
      {"deployment:", "deployment:\n  egress:\n    proxy:\n      url: http://p:1\n      username: x",
       "    proxy:", "deployment.egress.proxy.passwordFile"},
  };
  const std::map<std::string, std::vector<std::string>> peers = {
      {"vault", {"authn"}},
      {"registry", {"vault", "authn"}},
      {"authn", {"vault", "registry", "tokenBroker"}},
      {"token-broker", {"vault", "authn", "registry"}},
      {"edge", {"vault", "authn", "registry", "tokenBroker"}}};
  for (const std::string& peer : peers.at(program)) {
    faults.push_back({absl::StrCat("  ", peer, ":"), "", "peers:", absl::StrCat("peers.", peer)});
  }
  if (program != "edge") {
    faults.push_back({"  listen:", "", "server:", "server.listen"});
  }
  return faults;
}

std::vector<Fault> FaultsOfDatabase() {
  return {
      {"  sqlite:", "  poolSize: 1", "database:", "database"},
      {"  sqlite:", "  sqlite: x\n  passwordFile: /none", "  passwordFile:", "database.passwordFile"},
      {"  sqlite:", "  postgresql: postgresql://db/x", "  postgresql:", "database.postgresql"},
      {"  sqlite:", "  sqlite: x\n  poolSize: 513", "  poolSize:", "database.poolSize"},
      {"  sqlite:", "  sqlite: x\n  auditOutboxLimit: 5", "  auditOutboxLimit:", "database.auditOutboxLimit"},
  };
}

std::vector<Fault> FaultsOfConnectors() {
  const auto corp = [](const std::string& more) {
    return absl::StrCat("connectors:\n  - id: corp\n    oidc:\n      issuer: https://idp.example\n", more,
                        "\ndeployment:");
  };
  return {
      {"deployment:", corp("  - id: Corp"), "  - id: Corp", "connectors[1].id"},
      {"deployment:", corp("  - id: two"), "  - id: two", "connectors[1]"},
      {"deployment:", corp("      clientSecretFile: /none"),
       "      clientSecretFile:", "connectors[0].oidc.clientSecretFile"},
      {"deployment:", corp("      clientId: x\n      clientSecretFile: /none"),
       "      clientSecretFile:", "connectors[0].oidc.clientSecretFile"},
      {"deployment:", corp("      jwksFile: /none"), "      jwksFile:", "connectors[0].oidc.jwksFile"},
      {"deployment:", corp("      issur: x"), "      issur:", "connectors[0].oidc.issur"},
      {"deployment:", corp("  - id: local\n    local: {users: [{username: ann}]}"),
       "    local:", "connectors[1].local.users[0].passwordHash"},
      {"deployment:", corp("  - id: local\n    local: {users: [{username: ann, passwordHash: hunter2}]}"),
       "    local:", "connectors[1].local.users[0].passwordHash"},
  };
}

std::vector<Fault> FaultsOfClients() {
  const auto client = [](const std::string& more) {
    return absl::StrCat("clients:\n  - clientId: chatbot\n    redirectUris: [https://chat.example.com/cb]\n", more,
                        "\ndeployment:");
  };
  return {
      {"deployment:", client(""), "  - clientId:", "clients[0].clientSecretFile"},
      {"deployment:", client("    clientSecretFile: /none"), "    clientSecretFile:", "clients[0].clientSecretFile"},
      {"deployment:", client("    approvedServers: [Git Hub]"),
       "    approvedServers:", "clients[0].approvedServers[0]"},
      {"deployment:", client("  - clientId: Chatbot"), "  - clientId: Chatbot", "clients[1].clientId"},
      {"deployment:", client("  - clientId: two\n    redirectUris: [http://127.0.0.1/cb]"),
       "    redirectUris: [http:", "clients[1].redirectUris[0]"},
      {"deployment:", client("    secret: x"), "    secret:", "clients[0].secret"},
  };
}

std::vector<Fault> FaultsOfPlatforms() {
  const auto platform = [](const std::string& more) {
    return absl::StrCat("platforms:\n  - id: chat\n    certificateUris: [spiffe://example.org/chat]\n", more,
                        "\ndeployment:");
  };
  const auto cluster = [](const std::string& more) {
    return absl::StrCat("kubernetes:\n  - id: main\n    issuer: https://k8s.example\n    audience: sallyport\n", more,
                        "\ndeployment:");
  };
  return {
      {"deployment:", platform("  - id: Chat"), "  - id: Chat", "platforms[1].id"},
      {"deployment:", platform("    serviceAccounts: [chat/bot]"),
       "    serviceAccounts:", "platforms[0].serviceAccounts[0]"},
      {"deployment:", platform("    grants:\n      - users: [nobody]"),
       "      - users:", "platforms[0].grants[0].users[0]"},
      {"deployment:", cluster("    jwksFile: /none"), "    jwksFile:", "kubernetes[0].jwksFile"},
      {"deployment:", cluster("    jwksUrl: http://k8s.example/jwks"), "    jwksUrl:", "kubernetes[0].jwksUrl"},
  };
}

std::vector<Fault> FaultsOfRedis() {
  const auto redis = [](const std::string& text) { return absl::StrCat("redis:\n  ", text, "\ndeployment:"); };
  return {
      {"deployment:", redis("address: nowhere"), "  address:", "redis.address"},
      {"deployment:", redis("username: x"), "redis:", "redis.address"},
      {"deployment:", redis("address: h:1\n  username: x"), "redis:", "redis.passwordFile"},
      {"deployment:", redis("address: h:1\n  passwordFile: /none"), "  passwordFile:", "redis.passwordFile"},
      {"deployment:", redis("address: h:1\n  tls:\n    caBundle: /none"), "    caBundle: /none", "redis.tls.caBundle"},
  };
}

std::vector<Fault> FaultsOf(const std::string& program) {
  std::vector<Fault> faults;
  const auto add = [&](const std::vector<Fault>& more) { faults.insert(faults.end(), more.begin(), more.end()); };
  if (program != "standalone") add(FaultsOfServer(program));
  if (program == "vault" || program == "registry" || program == "authn") add(FaultsOfDatabase());
  if (program == "authn" || program == "standalone") add(FaultsOfConnectors());
  if (program == "authn" || program == "standalone") add(FaultsOfClients());
  if (program == "authn" || program == "standalone") add(FaultsOfPlatforms());
  if (program == "token-broker" || program == "standalone") add(FaultsOfRedis());
  if (program != "vault" && program != "registry") {
    add({{"deployment:", "deployment:\n  egress:\n    caBundle: /none", "    caBundle: /none",
          "deployment.egress.caBundle"},
         {"deployment:",
          "deployment:\n  egress:\n    proxy:\n      url: http://p:1\n      username: x\n      passwordFile: /none",
          "      passwordFile:", "deployment.egress.proxy.passwordFile"}});
  }
  if (program == "vault") add({{"  directory:", "", "kek:", "kek.directory"}});
  if (program == "registry")
    add({{"deployment:", "auditRetention: 1s\ndeployment:", "auditRetention:", "auditRetention"}});
  if (program == "authn") {
    add({{"deployment:", "accessTokenLifetime: 1s\ndeployment:", "accessTokenLifetime:", "accessTokenLifetime"},
         {"deployment:", "sessionLifetime: 1s\ndeployment:", "sessionLifetime:", "sessionLifetime"}});
  }
  if (program == "token-broker") {
    add({{"dataDirectory:", "", "", "dataDirectory"},
         {"deployment:", "idleRefresh: 1s\ndeployment:", "idleRefresh:", "idleRefresh"}});
  }
  if (program == "edge" || program == "standalone") {
    add({{"dataDirectory:", "", "", "dataDirectory"},
         {"listen:", "", "", "listen"},
         {"listen:", "listen: localhost:0", "listen:", "listen"},
         {"listen:", "listen: 0.0.0.0:1", "", "tls"},
         {"listen:", "listen: 127.0.0.1:0\ntls:\n  certificate: /none", "tls:", "tls"},
         {"listen:", "listen: 127.0.0.1:0\ntls:\n  certificate: /none\n  privateKey: /none", "  certificate: /none",
          "tls.certificate"},
         {"listen:", "listen: 127.0.0.1:0\ntls:\n  certificate: /etc/passwd\n  privateKey: /etc/passwd", "tls:", "tls"},
         {"listen:", "listen: 127.0.0.1:0\nthreads: 10000", "threads:", "threads"},
         {"deployment:", "deployment:\n  extraHosts: [gw.internal/mcp]", "  extraHosts:", "deployment.extraHosts[0]"},
         {"deployment:", "deployment:\n  trustedProxies: [x]", "  trustedProxies:", "deployment.trustedProxies[0]"},
         {"deployment:", "deployment:\n  allowedOrigins: [x]", "  allowedOrigins:", "deployment.allowedOrigins[0]"},
         {"deployment:", "deployment:\n  hostedClientOrigins: [x]",
          "  hostedClientOrigins:", "deployment.hostedClientOrigins[0]"}});
  }
  if (program == "edge") {
    add({{"listen:", "listen: 127.0.0.1:0\nauthnOutageGrace: 15m1s", "authnOutageGrace:", "authnOutageGrace"},
         {"listen:", "listen: 127.0.0.1:0\nauditBacklogLimit: 5", "auditBacklogLimit:", "auditBacklogLimit"}});
  }
  if (program == "standalone") {
    add({{"adminListen:", "adminListen: nowhere", "adminListen:", "adminListen"},
         {"adminListen:", "logLevel: loud", "logLevel:", "logLevel"},
         {"healthListen:", "healthListen: 0.0.0.0:1", "healthListen:", "healthListen"},
         {"healthListen:", "healthListen: x", "healthListen:", "healthListen"},
         {"deployment:", "auditOutboxLimit: 5\ndeployment:", "auditOutboxLimit:", "auditOutboxLimit"},
         {"deployment:", "auditBacklogLimit: 5\ndeployment:", "auditBacklogLimit:", "auditBacklogLimit"},
         {"deployment:", "auditRetention: 1s\ndeployment:", "auditRetention:", "auditRetention"},
         {"  publicUrl:", "  publicUrl: x", "  publicUrl:", "deployment.publicUrl"}});
  }
  return faults;
}

size_t LineThatBegins(const std::vector<std::string>& lines, const std::string& with) {
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].starts_with(with)) return i + 1;
  }
  return 0;
}

class ProgramConfig : public Programs, public ::testing::WithParamInterface<const char*> {};

TEST_P(ProgramConfig, FaultsAreNamedByFileLineAndField) {
  const std::string program = GetParam();
  const std::string good = directory_.Write("good.yaml", Config(program));
  const Outcome accepted = Run(program, {"--config", good, "--check-config"});
  ASSERT_EQ(accepted.code, 0) << accepted.output;

  for (const Fault& fault : FaultsOf(program)) {
    std::vector<std::string> lines = absl::StrSplit(Config(program), '\n');
    const size_t line = LineThatBegins(lines, fault.line);
    ASSERT_GT(line, 0U) << fault.line;
    lines[line - 1] = fault.replacement;
    const std::string text = absl::StrJoin(lines, "\n");
    const std::string file = directory_.Write("bad.yaml", text);
    const size_t at = LineThatBegins(absl::StrSplit(text, '\n'), fault.at);
    const std::string expected = absl::StrCat(file, ":", at, ": field ", fault.field, ": ");
    const Outcome checked = Run(program, {"--config", file, "--check-config"});
    EXPECT_EQ(checked.code, 2) << text;
    EXPECT_THAT(checked.output, HasSubstr(expected)) << text;
    const Outcome started = Run(program, {"--config", file});
    EXPECT_EQ(started.code, 2) << text;
    EXPECT_THAT(started.output, HasSubstr(expected)) << text;
  }
}

TEST_P(ProgramConfig, HelpAndVersionSayTheProgramsName) {
  const std::string program = GetParam();
  EXPECT_THAT(Run(program, {"--version"}).output, ::testing::StartsWith(absl::StrCat("sallyport-", program, " ")));
  EXPECT_THAT(Run(program, {"--help"}).output, ::testing::StartsWith(absl::StrCat("sallyport-", program, ": ")));
}

INSTANTIATE_TEST_SUITE_P(All, ProgramConfig,
                         ::testing::Values("vault", "registry", "authn", "token-broker", "edge", "standalone"),
                         [](const auto& test) {
                           return absl::StrReplaceAll(test.param, {{"-", "_"}});
                         });

class ProgramHealth : public Programs {
 protected:
  ~ProgramHealth() override {
    for (const auto& [program, pid] : running_) testing::Terminate(pid, SIGTERM);
  }
  void Start(const std::string& program) {
    const std::string file = directory_.Write(program + ".yaml", Config(program));
    running_[program] = *testing::Spawn({Binary(program), "--config", file}, Log(program));
  }
  void Stop(const std::string& program) {
    testing::Terminate(running_.at(program), SIGTERM);
    running_.erase(program);
  }
  std::string Log(const std::string& program) const { return directory_.File(program + ".log"); }
  // As the edge, which every service takes calls from.
  TlsFiles Tls() const {
    return {directory_.File("edge.crt"), directory_.File("edge.key"), directory_.File("ca.crt"), "sallyport.test"};
  }
  // Within a minute.
  bool Becomes(const std::string& program, bool expected) {
    const auto channel = *MakeChannel(Target(program), program == "standalone" ? TlsFiles() : Tls(), Service(program));
    for (int i = 0; i < 600; ++i) {
      const absl::StatusOr<bool> serving = IsServing(channel);
      if (serving.ok() && *serving == expected) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    ADD_FAILURE() << program << " is not what it should be: " << Content(Log(program));
    return false;
  }
  // Not only before the first look at readiness.
  bool Stays(const std::string& program, bool expected) {
    if (!Becomes(program, expected)) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    return Becomes(program, expected);
  }

  std::map<std::string, pid_t> running_;
};

TEST_F(ProgramHealth, SplitServicesServeWhenTheyAreReady) {
  for (const char* program : {"authn", "token-broker", "edge"}) Start(program);
  for (const char* program : {"authn", "token-broker", "edge"}) {
    EXPECT_TRUE(Stays(program, false)) << "it waits for " << (std::string(program) == "authn" ? "vault" : "registry");
  }
  for (const char* program : {"vault", "registry"}) Start(program);
  for (const char* program : kSplit) EXPECT_TRUE(Becomes(program, true));

  Stop("vault");
  std::filesystem::rename(directory_.File("vault-kek"), directory_.File("away"));
  Start("vault");
  EXPECT_TRUE(Stays("vault", false)) << "it is sealed";
  std::filesystem::rename(directory_.File("away"), directory_.File("vault-kek"));
  EXPECT_TRUE(Becomes("vault", true)) << "it unseals when its key is back";
}

TEST_F(ProgramHealth, StandaloneServesWhenAllItsServicesAreReady) {
  Start("standalone");
  EXPECT_TRUE(Becomes("standalone", true));
  Stop("standalone");
  std::filesystem::rename(directory_.File("standalone/kek"), directory_.File("away"));
  Start("standalone");
  EXPECT_TRUE(Stays("standalone", false)) << "its vault is sealed";
}

}  // namespace
}  // namespace sallyport

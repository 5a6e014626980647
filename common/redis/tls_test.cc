// SPDX-License-Identifier: Apache-2.0
#include "common/redis/tls.h"

#include <atomic>
#include <csignal>
#include <poll.h>
#include <thread>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/metrics.h"
#include "common/redis/client.h"
#include "common/redis/failures.h"
#include "tests/testing/redis.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::MakeTestCertificate;
using testing::StatusIs;
using testing::TempDirectory;
using testing::TestCertificate;
using testing::TestRedis;

// A free port, below the range that the kernel uses for outgoing connections.
int FreePort() {
  while (true) {
    const int port = 20'000 + static_cast<int>(RandomUnit() * 12'000);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool free = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
    close(fd);
    if (free) return port;
  }
}

double Failures(const char* reason) {
  ShowRedisFailures();
  return MetricCounter("sallyport_redis_failures_total", "", {{"reason", reason}}).Value();
}

double Handshakes(const char* kind) {
  return MetricCounter("sallyport_redis_tls_handshakes_total", "", {{"kind", kind}}).Value();
}

class RedisTlsTest : public ::testing::Test {
 protected:
  RedisTlsTest() {
    directory_.Write("ca.crt", ca_.CertificatePem());
    directory_.Write("other-ca.crt", other_ca_.CertificatePem());
    WritePair("server", ca_);
    WritePair("client", ca_);
    WritePair("stranger", other_ca_);
  }
  void WritePair(const std::string& name, const TestCertificate& issuer) {
    const TestCertificate made = MakeTestCertificate(&issuer, {}, {"localhost"});
    directory_.Write(name + ".crt", made.CertificatePem());
    directory_.Write(name + ".key", made.KeyPem());
  }

  // `clients`: yes (they must show a certificate) or no.
  void StartServer(const std::string& clients, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"--tls-port",         absl::StrCat(port_),
                                          "--tls-cert-file",    directory_.File("server.crt"),
                                          "--tls-key-file",     directory_.File("server.key"),
                                          "--tls-ca-cert-file", directory_.File("ca.crt"),
                                          "--tls-auth-clients", clients};
    arguments.insert(arguments.end(), more.begin(), more.end());
    ASSERT_OK_AND_ASSIGN(server_, TestRedis::Start("", arguments));
  }

  RedisTls::Options Verifying() const {
    RedisTls::Options options;
    options.ca_bundle = directory_.File("ca.crt");
    return options;
  }
  RedisTls::Options Showing(const std::string& pair) const {
    RedisTls::Options options = Verifying();
    options.certificate = directory_.File(pair + ".crt");
    options.private_key = directory_.File(pair + ".key");
    return options;
  }
  // Generous for a busy machine; the tests of silence choose their own.
  RedisOptions Over(const RedisTls::Options& tls, const std::string& host = "localhost") const {
    RedisOptions options;
    options.address = absl::StrCat(host, ":", port_);
    options.timeout = absl::Seconds(30);
    auto made = RedisTls::Create(tls, "redis.tls");
    EXPECT_THAT(made, IsOk());
    if (made.ok()) options.tls = *made;
    return options;
  }
  static absl::Status Ping(RedisOptions options) { return (*RedisClient::Create(std::move(options)))->Ping(); }

  TempDirectory directory_;
  const TestCertificate ca_ = MakeTestCertificate(nullptr, {});
  const TestCertificate other_ca_ = MakeTestCertificate(nullptr, {});
  const int port_ = FreePort();
  std::unique_ptr<TestRedis> server_;
};

TEST_F(RedisTlsTest, KeepsEveryByteOnEveryThread) {
  StartServer("no");
  ASSERT_OK_AND_ASSIGN(auto client, RedisClient::Create(Over(Verifying())));
  const std::string large(1 << 20, 'x');
  ASSERT_THAT(client->Set("large", large, absl::Minutes(1)), IsOk());
  EXPECT_EQ(**client->Get("large"), large);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&client, t] {
      const std::string key = absl::StrCat("key", t);
      for (int i = 0; i < 50; ++i) {
        const std::string value = absl::StrCat(key, ":", i);
        ASSERT_THAT(client->Set(key, value, absl::Minutes(1)), IsOk());
        ASSERT_EQ(**client->Get(key), value);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(RedisTlsTest, ResumesTheSessionOfAFormerConnection) {
  StartServer("no");
  const RedisOptions first = Over(Verifying());
  RedisOptions again;
  again.address = first.address;
  again.timeout = first.timeout;
  again.tls = first.tls;
  const double full = Handshakes("full");
  const double resumed = Handshakes("resumed");

  RedisOptions copy;
  copy.address = first.address;
  copy.timeout = first.timeout;
  copy.tls = first.tls;
  ASSERT_THAT(Ping(std::move(copy)), IsOk());
  ASSERT_THAT(Ping(std::move(again)), IsOk());

  EXPECT_EQ(Handshakes("full"), full + 1);
  EXPECT_EQ(Handshakes("resumed"), resumed + 1);
}

TEST_F(RedisTlsTest, AServerOfAnotherAuthorityIsRefused) {
  StartServer("no");
  const double before = Failures("tls");
  RedisTls::Options options;
  options.ca_bundle = directory_.File("other-ca.crt");
  EXPECT_THAT(Ping(Over(options)), StatusIs(absl::StatusCode::kUnavailable, "set redis.tls.caBundle"));
  options.ca_bundle.clear();
  EXPECT_THAT(Ping(Over(options)), StatusIs(absl::StatusCode::kUnavailable, "set redis.tls.caBundle"));
  EXPECT_EQ(Failures("tls"), before + 2);
}

TEST_F(RedisTlsTest, AServerOfAnotherNameIsRefusedUnlessItIsTheOneExpected) {
  StartServer("no");
  EXPECT_THAT(Ping(Over(Verifying(), "127.0.0.1")),
              StatusIs(absl::StatusCode::kUnavailable, "is not for 127.0.0.1: set redis.tls.serverName"));
  RedisTls::Options options = Verifying();
  options.server_name = "elsewhere.test";
  EXPECT_THAT(Ping(Over(options)), StatusIs(absl::StatusCode::kUnavailable, "is not for elsewhere.test"));
  options.server_name = "localhost";
  EXPECT_THAT(Ping(Over(options, "127.0.0.1")), IsOk());
}

TEST_F(RedisTlsTest, ShowsItsCertificateToAServerThatWantsOne) {
  StartServer("yes");
  EXPECT_THAT(Ping(Over(Showing("client"))), IsOk());
  EXPECT_THAT(Ping(Over(Verifying())), StatusIs(absl::StatusCode::kUnavailable, "set redis.tls.certificate"));
  EXPECT_THAT(Ping(Over(Showing("stranger"))),
              StatusIs(absl::StatusCode::kUnavailable, "refuses the client certificate"));
}

TEST_F(RedisTlsTest, TheSameWithoutTls13) {
  StartServer("yes", {"--tls-protocols", "TLSv1.2"});
  EXPECT_THAT(Ping(Over(Showing("client"))), IsOk());
  EXPECT_THAT(Ping(Over(Verifying())), StatusIs(absl::StatusCode::kUnavailable, "set redis.tls.certificate"));
}

TEST_F(RedisTlsTest, AnOlderTlsIsRefused) {
  StartServer("no", {"--tls-protocols", "TLSv1.1", "--tls-ciphers", "DEFAULT:@SECLEVEL=0"});
  EXPECT_THAT(Ping(Over(Verifying())), StatusIs(absl::StatusCode::kUnavailable, "tls-protocols"));
}

TEST_F(RedisTlsTest, UsersOfAnAclLogIn) {
  StartServer("no", {"--user", "broker", "on", ">p ss", "~sallyport:*", "+ping", "+get"});
  RedisOptions options = Over(Verifying());
  options.username = "broker";
  options.password = Secret(std::string("p ss"));
  ASSERT_OK_AND_ASSIGN(auto client, RedisClient::Create(std::move(options)));
  EXPECT_THAT(client->Ping(), IsOk());
  EXPECT_THAT(client->Get("sallyport:k"), IsOk());
  EXPECT_THAT(client->Get("other"), StatusIs(absl::StatusCode::kFailedPrecondition, "NOPERM"));
  RedisOptions wrong = Over(Verifying());
  wrong.username = "broker";
  wrong.password = Secret(std::string("guess"));
  EXPECT_THAT(Ping(std::move(wrong)), StatusIs(absl::StatusCode::kFailedPrecondition, "redis.passwordFile"));
}

TEST_F(RedisTlsTest, APortWithoutTlsIsSaidToBeOne) {
  ASSERT_OK_AND_ASSIGN(server_, TestRedis::Start("", {"--port", absl::StrCat(port_)}));
  RedisOptions options = Over(Verifying());
  options.timeout = absl::Milliseconds(500);
  EXPECT_THAT(Ping(std::move(options)), StatusIs(absl::StatusCode::kUnavailable, "tls-port"));
}

TEST_F(RedisTlsTest, APortForTlsIsSaidToBeOne) {
  StartServer("no");
  RedisOptions options = Over(Verifying());
  options.tls = nullptr;
  EXPECT_THAT(Ping(std::move(options)), StatusIs(absl::StatusCode::kUnavailable, "set redis.tls"));
}

TEST_F(RedisTlsTest, AServerThatIsSilentInTheHandshakeCostsTheTimeout) {
  StartServer("no");
  server_->Pause();
  RedisOptions options = Over(Verifying());
  options.timeout = absl::Milliseconds(50);
  EXPECT_THAT(Ping(std::move(options)), StatusIs(absl::StatusCode::kUnavailable, "no TLS handshake in time"));
  server_->Resume();
}

TEST_F(RedisTlsTest, FilesAreReadAgainWhenTheyChangeAndKeptWhileTheyAreBroken) {
  StartServer("no");
  const RedisOptions shared = Over(Verifying());
  const auto ping = [&shared] {
    RedisOptions options;
    options.address = shared.address;
    options.timeout = shared.timeout;
    options.tls = shared.tls;
    return Ping(std::move(options));
  };
  EXPECT_THAT(ping(), IsOk());
  directory_.Write("ca.crt", other_ca_.CertificatePem());
  EXPECT_THAT(ping(), StatusIs(absl::StatusCode::kUnavailable, "set redis.tls.caBundle"))
      << "a session of the former authority is not resumed";
  directory_.Write("ca.crt", ca_.CertificatePem());
  EXPECT_THAT(ping(), IsOk());
  directory_.Write("ca.crt", "half a fi");
  EXPECT_THAT(ping(), IsOk());
}

TEST_F(RedisTlsTest, SubscribersHearMessages) {
  StartServer("no");
  std::atomic<bool> subscribed = false;
  std::atomic<int> heard = 0;
  ASSERT_OK_AND_ASSIGN(auto subscriber, RedisSubscriber::Start(
                                            Over(Verifying()), "doorbell",
                                            [&](const std::string& message) { heard += message == "ring" ? 1 : 0; },
                                            [&] { subscribed = true; }));
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (!subscribed && absl::Now() < deadline) std::this_thread::yield();
  ASSERT_OK_AND_ASSIGN(auto client, RedisClient::Create(Over(Verifying())));
  EXPECT_EQ(client->Publish("doorbell", "ring").value_or(-1), 1);
  while (heard == 0 && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(heard, 1);
}

TEST_F(RedisTlsTest, SettingsThatCannotBeUsedAreNamed) {
  const auto refused = [](const RedisTls::Options& options) {
    return DetailOf(RedisTls::Create(options, "redis.tls").status()).violations.at(0).field;
  };
  RedisTls::Options options = Showing("client");
  options.private_key = directory_.File("server.key");
  EXPECT_EQ(refused(options), "redis.tls.privateKey");
  options.private_key.clear();
  EXPECT_EQ(refused(options), "redis.tls.privateKey");
  options.certificate.swap(options.private_key);
  EXPECT_EQ(refused(options), "redis.tls.certificate");
  options = Showing("client");
  options.certificate = directory_.Write("empty.crt", "");
  EXPECT_EQ(refused(options), "redis.tls.certificate");
  options = Verifying();
  options.ca_bundle = directory_.File("none");
  EXPECT_EQ(refused(options), "redis.tls.caBundle");
  options = Verifying();
  options.server_name = "localhost:6379";
  EXPECT_EQ(refused(options), "redis.tls.serverName");
  RedisOptions unix = Over(Verifying());
  unix.address = "unix:/run/redis.sock";
  EXPECT_THAT(RedisClient::Create(std::move(unix)), StatusIs(absl::StatusCode::kInvalidArgument, "unix socket"));
}

// Answers the handshake and then sends session tickets, or bytes of an answer that does not end, for as long as it is
// listened to.
class FloodingServer {
 public:
  FloodingServer(const TestCertificate& pair, bool tickets)
      : tickets_(tickets), context_(SSL_CTX_new(TLS_server_method())) {
    SSL_CTX_use_certificate(context_.get(), pair.certificate.get());
    SSL_CTX_use_PrivateKey(context_.get(), pair.key.get());
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
    EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~FloodingServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  int port() const { return port_; }

 private:
  void Serve() {
    const int fd = accept(listener_, nullptr, nullptr);
    if (fd < 0) return;
    const OpenSslPtr<SSL, SSL_free> ssl(SSL_new(context_.get()));
    SSL_set_fd(ssl.get(), fd);
    bool open = SSL_accept(ssl.get()) == 1;
    if (open && !tickets_) open = SSL_write(ssl.get(), "+", 1) == 1;
    // OpenSSL does not report that a ticket could not be sent.
    const auto client_is_there = [fd] {
      pollfd entry{fd, POLLRDHUP, 0};
      return poll(&entry, 1, 0) == 0;
    };
    while (open && client_is_there()) {
      open = tickets_ ? SSL_new_session_ticket(ssl.get()) == 1 && SSL_do_handshake(ssl.get()) == 1
                      : SSL_write(ssl.get(), "x", 1) == 1;
    }
    close(fd);
  }
  const bool tickets_;
  const OpenSslPtr<SSL_CTX, SSL_CTX_free> context_;
  int listener_ = -1;
  int port_ = 0;
  std::thread thread_;
};

TEST_F(RedisTlsTest, AServerThatSendsWithoutEndCostsNoMoreThanTheTimeout) {
  const auto ignored = signal(SIGPIPE, SIG_IGN);  // Of the server's writes.
  for (const bool tickets : {false, true}) {
    SCOPED_TRACE(tickets);
    FloodingServer server(MakeTestCertificate(&ca_, {}, {"localhost"}), tickets);
    RedisOptions options = Over(Verifying());
    options.address = absl::StrCat("localhost:", server.port());
    options.timeout = absl::Seconds(1);
    EXPECT_THAT(Ping(std::move(options)), StatusIs(absl::StatusCode::kUnavailable));
  }
  signal(SIGPIPE, ignored);
}

// A node whose slots another one has.
TEST(RedisClusterTest, ANodeOfAClusterIsSaidToBeUnsupported) {
  const TempDirectory directory;
  const int bus = FreePort();
  const std::string nodes = directory.Write(
      "nodes.conf", absl::StrCat(std::string(40, 'a'), " 127.0.0.1:0@", bus, " myself,master - 0 0 1 connected\n",
                                 std::string(40, 'b'), " 127.0.0.1:1@2 master - 0 0 2 connected 0-16383\n",
                                 "vars currentEpoch 2 lastVoteEpoch 0\n"));
  const std::vector<std::string> cluster = {"--cluster-enabled",
                                            "yes",
                                            "--cluster-port",
                                            absl::StrCat(bus),
                                            "--cluster-config-file",
                                            nodes,
                                            "--cluster-allow-reads-when-down",
                                            "yes"};
  ASSERT_OK_AND_ASSIGN(auto server, TestRedis::Start("", cluster));
  const double before = Failures("cluster");
  RedisOptions options;
  options.address = server->address();
  options.timeout = absl::Seconds(30);
  ASSERT_OK_AND_ASSIGN(auto client, RedisClient::Create(std::move(options)));

  EXPECT_THAT(client->Get("k"), StatusIs(absl::StatusCode::kFailedPrecondition, "Redis Cluster (MOVED)"));
  EXPECT_THAT(client->Set("k", "v", absl::Minutes(1)), StatusIs(absl::StatusCode::kFailedPrecondition, "Cluster"));

  EXPECT_EQ(Failures("cluster"), before + 2);
}

}  // namespace
}  // namespace sallyport

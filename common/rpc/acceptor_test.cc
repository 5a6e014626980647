// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/acceptor.h"

#include <poll.h>
#include <thread>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/listen.h"
#include "common/metrics.h"
#include "common/mutex.h"
#include "common/rpc/server.h"
#include "tests/testing/health_check.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsServing;
using ::sallyport::testing::MakeTestCertificate;
using ::sallyport::testing::StatusIs;
using ::sallyport::testing::TempDirectory;
using Code = absl::StatusCode;

constexpr rlim_t kFiles = 400;
constexpr int kWaitMs = 30'000;

// This process may have `kFiles` files open while it lives. Standing open already are some dozens.
class LowFileLimit {
 public:
  LowFileLimit() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit low = {kFiles, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
  }
  ~LowFileLimit() { setrlimit(RLIMIT_NOFILE, &before_); }
  LowFileLimit(const LowFileLimit&) = delete;
  LowFileLimit& operator=(const LowFileLimit&) = delete;

 private:
  rlimit before_ = {};
};

// Opens files until the next one would be number `next`.
std::vector<Fd> OpenFilesUpTo(int next) {
  std::vector<Fd> files;
  for (;;) {
    Fd file(eventfd(0, EFD_CLOEXEC));
    if (file.get() < 0 || file.get() >= next) return files;
    files.push_back(std::move(file));
  }
}

Fd NewSocket() { return Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

bool Connect(const Fd& fd, int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
}

// The first bytes from the server, "" when it closed the connection.
std::string FirstBytes(const Fd& fd) {
  pollfd readable = {fd.get(), POLLIN, 0};
  if (poll(&readable, 1, kWaitMs) != 1) return "nothing came";
  char buffer[64];
  const ssize_t n = recv(fd.get(), buffer, sizeof(buffer), 0);
  return n <= 0 ? "" : std::string(buffer, static_cast<size_t>(n));
}

double Refused(const char* reason) {
  return MetricCounter("sallyport_rpc_connections_refused_total", "", {{"reason", reason}}).Value();
}

// Says "hello" to every connection, and keeps it.
class AcceptorTest : public ::testing::Test {
 protected:
  void Start(int percent) {
    acceptor_ = *Acceptor::Listen("127.0.0.1:0", "listen", percent);
    acceptor_->Start([this](int /*listener*/, int connection) {
      MutexLock lock(mu_);
      taken_.emplace_back(connection);
      (void)!send(connection, "hello", 5, MSG_NOSIGNAL);
    });
  }
  std::string Call() {
    const Fd fd = NewSocket();
    return Connect(fd, acceptor_->port()) ? FirstBytes(fd) : "refused";
  }

  const LowFileLimit low_;
  Mutex mu_;
  std::vector<Fd> taken_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Acceptor> acceptor_;
};

TEST_F(AcceptorTest, ConnectionsBeyondTheShareAreClosedAtOnce) {
  Start(50);
  const double before = Refused("file_limit");
  EXPECT_EQ(Call(), "hello");
  std::vector<Fd> files = OpenFilesUpTo(kFiles / 2);
  EXPECT_EQ(Call(), "");
  EXPECT_EQ(Call(), "");
  EXPECT_EQ(Refused("file_limit"), before + 2);
  files.clear();
  EXPECT_EQ(Call(), "hello");
}

TEST_F(AcceptorTest, GoesOnAfterTheLastDescriptorWasTaken) {
  Start(100);
  const double before = Refused("exhausted");
  std::vector<Fd> callers;
  for (int i = 0; i < 5; ++i) callers.push_back(NewSocket());
  std::vector<Fd> files = OpenFilesUpTo(kFiles);
  for (const Fd& caller : callers) {
    ASSERT_TRUE(Connect(caller, acceptor_->port()));
    EXPECT_EQ(FirstBytes(caller), "");
  }
  EXPECT_EQ(Refused("exhausted"), before + 5);
  files.clear();
  EXPECT_EQ(Call(), "hello");
}

TEST_F(AcceptorTest, StopClosesThePort) {
  Start(75);
  EXPECT_EQ(Call(), "hello");
  acceptor_->Stop();
  EXPECT_EQ(Call(), "refused");
}

TEST_F(AcceptorTest, APortInUseIsUnavailable) {
  Start(75);
  EXPECT_THAT(Acceptor::Listen("127.0.0.1:" + std::to_string(acceptor_->port()), "listen", 75),
              StatusIs(Code::kUnavailable));
}

// gRPC's own listener fails this test: it accepts nothing more once accept(2) has failed (CVE-2023-4785).
TEST(ConnectionFloodTest, ACallAfterItIsAnswered) {
  const LowFileLimit low;
  RpcServer::Options options;
  options.listen = "127.0.0.1:0";
  options.insecure_peer = "probe";
  ASSERT_OK_AND_ASSIGN(const auto server, RpcServer::Start(options, NoServices));
  server->SetServing(true);
  const auto call = [&] {
    const auto channel = MakeChannel("127.0.0.1:" + std::to_string(server->port()), {}, "probe");
    return IsServing(*channel).value_or(false);
  };
  ASSERT_TRUE(call());

  const double before = Refused("exhausted") + Refused("file_limit");
  std::vector<Fd> flood;
  // Until neither side has a descriptor left, and then as many again whose connections wait in the queue.
  std::vector<Fd> late;
  for (int i = 0; i < 20; ++i) late.push_back(NewSocket());
  for (Fd fd = NewSocket(); fd.get() >= 0; fd = NewSocket()) {
    Connect(fd, server->port());
    flood.push_back(std::move(fd));
  }
  const std::vector<Fd> rest = OpenFilesUpTo(kFiles);
  for (const Fd& fd : late) Connect(fd, server->port());
  for (int i = 0; i < 300 && Refused("exhausted") + Refused("file_limit") == before; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_GT(Refused("exhausted") + Refused("file_limit"), before);

  flood.clear();
  late.clear();
  bool answered = false;
  for (int i = 0; i < 300 && !answered; ++i) {
    answered = call();
    std::this_thread::sleep_for(std::chrono::milliseconds(answered ? 0 : 100));
  }
  EXPECT_TRUE(answered);
}

TEST(HandshakeTest, AConnectionThatSaysNothingIsClosed) {
  const TempDirectory directory;
  const auto certificate = MakeTestCertificate(nullptr, {}, {"server.test"});
  RpcServer::Options options;
  options.listen = "127.0.0.1:0";
  options.tls.certificate = directory.Write("server.crt", certificate.CertificatePem());
  options.tls.private_key = directory.Write("server.key", certificate.KeyPem());
  options.outside_peer = "guest";
  options.handshake_timeout = absl::Seconds(1);
  ASSERT_OK_AND_ASSIGN(const auto server, RpcServer::Start(options, NoServices));
  const Fd silent = NewSocket();
  ASSERT_TRUE(Connect(silent, server->port()));
  EXPECT_EQ(FirstBytes(silent), "");
}

}  // namespace
}  // namespace sallyport

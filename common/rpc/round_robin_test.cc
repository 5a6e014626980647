// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "absl/strings/str_cat.h"
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "common/error.h"
#include "common/rpc/handler.h"
#include "common/rpc/server.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::MakeTestCertificate;
using ::sallyport::testing::TempDirectory;
using ::sallyport::testing::TestCertificate;

// A name server on loopback that answers every question for addresses (A) with the same ones, and every other with none
// (RFC 1035 section 4.1).
class TestNameServer {
 public:
  explicit TestNameServer(const std::vector<std::string>& addresses) : socket_(socket(AF_INET, SOCK_DGRAM, 0)) {
    for (const std::string& address : addresses) {
      in_addr bytes{};
      EXPECT_EQ(inet_pton(AF_INET, address.c_str(), &bytes), 1);
      addresses_.emplace_back(reinterpret_cast<const char*>(&bytes), 4);
    }
    sockaddr_in here{};
    here.sin_family = AF_INET;
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(here);
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&here), size), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&here), &size), 0);
    port_ = ntohs(here.sin_port);
    const timeval wait{0, 100'000};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    thread_ = std::thread([this] { Serve(); });
  }
  ~TestNameServer() {
    stop_ = true;
    thread_.join();
    close(socket_);
  }
  TestNameServer(const TestNameServer&) = delete;
  TestNameServer& operator=(const TestNameServer&) = delete;
  int port() const { return port_; }

 private:
  void Serve() {
    while (!stop_) {
      char buffer[512];
      sockaddr_in from{};
      socklen_t size = sizeof(from);
      const ssize_t got = recvfrom(socket_, buffer, sizeof(buffer), 0, reinterpret_cast<sockaddr*>(&from), &size);
      if (got > 16) {
        const std::string answer = AnswerTo(std::string(buffer, static_cast<size_t>(got)));
        sendto(socket_, answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
      }
    }
  }
  std::string AnswerTo(const std::string& query) const {
    const size_t name_end = query.find('\0', 12);
    if (name_end == std::string::npos || name_end + 5 > query.size()) return "";
    const std::string question = query.substr(12, name_end + 5 - 12);
    const bool wants_addresses = question.substr(question.size() - 4) == std::string("\0\1\0\1", 4);
    const char count = wants_addresses ? static_cast<char>(addresses_.size()) : '\0';
    // The id of the query; response, authoritative; one question, so many answers.
    std::string answer =
        query.substr(0, 2) + std::string("\x85\x00\0\1\0", 5) + std::string(1, count) + std::string(4, '\0') + question;
    for (const std::string& address : addresses_) {
      if (!wants_addresses) break;
      // The name of the question, type A, class IN, 60 s, four bytes.
      answer += std::string("\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4", 12) + address;
    }
    return answer;
  }

  const int socket_;
  std::vector<std::string> addresses_;
  int port_ = 0;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Answers GetKeys with its own name.
class Named final : public authn::v1::Authn::Service {
 public:
  explicit Named(std::string name) : name_(std::move(name)) {}
  grpc::Status GetKeys(grpc::ServerContext* /*context*/, const authn::v1::GetKeysRequest* /*request*/,
                       authn::v1::GetKeysResponse* response) override {
    response->set_jwks_json(name_);
    return grpc::Status::OK;
  }

 private:
  const std::string name_;
};

class RoundRobinTest : public ::testing::Test {
 protected:
  TlsFiles Files(const std::string& name) {
    const TestCertificate made = MakeTestCertificate(&ca_, {absl::StrCat("spiffe://sallyport.test/", name)});
    return {directory_.Write(name + ".crt", made.CertificatePem()), directory_.Write(name + ".key", made.KeyPem()),
            directory_.Write(name + "-ca.crt", ca_.CertificatePem()), "sallyport.test"};
  }
  absl::StatusOr<std::unique_ptr<RpcServer>> Start(const std::string& address, int port) {
    RpcServer::Options options;
    options.listen = absl::StrCat(address, ":", port);
    options.tls = Files("authn");
    return RpcServer::Start(options, [address](const std::shared_ptr<const PeerIdentity>& /*peer*/) {
      std::vector<std::unique_ptr<grpc::Service>> services;
      services.push_back(std::make_unique<Named>(address));
      return services;
    });
  }
  std::shared_ptr<grpc::Channel> ChannelTo(const TestNameServer& names, int port) {
    return *MakeChannel(absl::StrCat("dns://127.0.0.1:", names.port(), "/authn.test:", port), Files("edge"), "authn");
  }
  static absl::StatusOr<std::string> Ask(const std::shared_ptr<grpc::Channel>& channel) {
    authn::v1::GetKeysResponse response;
    const auto context = MakeClientContext(absl::Seconds(30));
    context->set_wait_for_ready(true);
    const grpc::Status status = authn::v1::Authn::NewStub(channel)->GetKeys(context.get(), {}, &response);
    return status.ok() ? absl::StatusOr<std::string>(response.jwks_json()) : FromGrpcStatus(status);
  }
  // Asks until each of these has answered, 10,000 times at most.
  static bool AllAnswer(const std::shared_ptr<grpc::Channel>& channel, const std::set<std::string>& wanted) {
    std::set<std::string> seen;
    for (int i = 0; i < 10'000 && seen != wanted; ++i) {
      const absl::StatusOr<std::string> answer = Ask(channel);
      EXPECT_THAT(answer, IsOk());
      if (answer.ok()) seen.insert(*answer);
    }
    return seen == wanted;
  }

  TempDirectory directory_;
  const TestCertificate ca_ = MakeTestCertificate(nullptr, {});
};

TEST_F(RoundRobinTest, ReplicasOfOneNameShareTheCalls) {
  ASSERT_OK_AND_ASSIGN(const auto first, Start("127.0.0.1", 0));
  ASSERT_OK_AND_ASSIGN(const auto second, Start("127.0.0.2", first->port()));
  const TestNameServer names({"127.0.0.1", "127.0.0.2"});
  const auto channel = ChannelTo(names, first->port());

  EXPECT_TRUE(AllAnswer(channel, {"127.0.0.1", "127.0.0.2"}));
}

TEST_F(RoundRobinTest, AReplicaThatIsGoneIsLeftOut) {
  ASSERT_OK_AND_ASSIGN(auto first, Start("127.0.0.1", 0));
  ASSERT_OK_AND_ASSIGN(const auto second, Start("127.0.0.2", first->port()));
  const TestNameServer names({"127.0.0.1", "127.0.0.2"});
  const auto channel = ChannelTo(names, first->port());
  ASSERT_TRUE(AllAnswer(channel, {"127.0.0.1", "127.0.0.2"}));

  first.reset();

  // A call that was on its way to it may fail.
  int in_a_row = 0;
  for (int i = 0; i < 10'000 && in_a_row < 20; ++i) {
    in_a_row = Ask(channel).value_or("nobody") == "127.0.0.2" ? in_a_row + 1 : 0;
  }
  EXPECT_EQ(in_a_row, 20);
}

}  // namespace
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/http/admin.h"

#include <string>
#include <unistd.h>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/metrics.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using ::sallyport::testing::StatusIs;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Code = absl::StatusCode;

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

std::string Exchange(int port, const std::string& request) {
  const int fd = Connect(port);
  EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t n = 0; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
    answer.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return answer;
}

class AdminHttpTest : public ::testing::Test {
 protected:
  std::string Get(const std::string& path) {
    return Exchange(server_->port(), "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  absl::Status ready_ = absl::UnavailableError("waiting for the registry");
  std::unique_ptr<AdminHttp> server_ = *AdminHttp::Start("127.0.0.1:0", [this] { return ready_; });
};

TEST_F(AdminHttpTest, ReadinessSaysWhatIsMissing) {
  EXPECT_THAT(Get("/readyz"), AllOf(StartsWith("HTTP/1.1 503 "), EndsWith("\r\n\r\nwaiting for the registry\n")));
  ready_ = absl::OkStatus();
  EXPECT_THAT(Get("/readyz?verbose"), AllOf(StartsWith("HTTP/1.1 200 OK"), EndsWith("\r\n\r\nok\n")));
}

TEST_F(AdminHttpTest, LivenessDoesNotAskForReadiness) { EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200 ")); }

TEST_F(AdminHttpTest, MetricsAreServed) {
  MetricCounter("test_admin_total", "help").Increment();
  EXPECT_THAT(Get("/metrics"), AllOf(HasSubstr("version=0.0.4"), HasSubstr("\ntest_admin_total 1\n")));
}

TEST_F(AdminHttpTest, HeadHasNoBody) {
  EXPECT_THAT(Exchange(server_->port(), "HEAD /livez HTTP/1.1\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("Content-Length: 3"), EndsWith("\r\n\r\n")));
}

TEST_F(AdminHttpTest, OtherPathsAndMethodsAreRefused) {
  EXPECT_THAT(Get("/"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Get("/metrics/x"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Exchange(server_->port(), "POST /livez HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 405 "));
}

TEST_F(AdminHttpTest, WhatIsNoHttpIsRefused) {
  EXPECT_THAT(Exchange(server_->port(), "hello\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Exchange(server_->port(), "GET /livez HTTP/1.1\r\nX: " + std::string(9 << 10, 'a')),
              Not(HasSubstr("200")));
}

TEST_F(AdminHttpTest, ASilentClientDoesNotStopTheOthers) {
  const int first = Connect(server_->port());
  const int second = Connect(server_->port());
  EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200 "));
  close(first);
  close(second);
}

TEST_F(AdminHttpTest, BadAndTakenAddressesAreErrors) {
  EXPECT_THAT(AdminHttp::Start("nowhere", nullptr), StatusIs(Code::kInvalidArgument, "adminListen"));
  EXPECT_THAT(AdminHttp::Start("127.0.0.1:99999", nullptr), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(AdminHttp::Start("127.0.0.1:" + std::to_string(server_->port()), nullptr), StatusIs(Code::kUnavailable));
}

}  // namespace
}  // namespace sallyport

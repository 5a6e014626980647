// SPDX-License-Identifier: Apache-2.0
#include "common/listen.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

bool Connects(const char* ip, int port) {
  const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, ip, &address.sin_addr);
  return connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
}

TEST(ListenOnTest, PicksAPort) {
  ASSERT_OK_AND_ASSIGN(const auto sockets, ListenOn("127.0.0.1:0", "listen", ListenMode::kAll, 1));
  ASSERT_EQ(sockets.size(), 1u);
  EXPECT_TRUE(Connects("127.0.0.1", PortOf(sockets[0])));
}

TEST(ListenOnTest, EveryAddressOfANameHasTheSamePort) {
  ASSERT_OK_AND_ASSIGN(const auto sockets, ListenOn("localhost:0", "listen", ListenMode::kAll, 1));
  for (const Fd& socket : sockets) {
    EXPECT_EQ(PortOf(socket), PortOf(sockets[0]));
  }
  ASSERT_OK_AND_ASSIGN(const auto one, ListenOn("localhost:0", "listen", ListenMode::kFirst, 1));
  EXPECT_EQ(one.size(), 1u);
}

TEST(ListenOnTest, AWildcardIsForIpv4Whichever) {
  for (const char* address : {"0.0.0.0:0", "[::]:0"}) {
    ASSERT_OK_AND_ASSIGN(const auto sockets, ListenOn(address, "listen", ListenMode::kAll, 1));
    EXPECT_TRUE(Connects("127.0.0.1", PortOf(sockets[0]))) << address;
  }
}

TEST(ListenOnTest, ATakenPortIsUnavailable) {
  ASSERT_OK_AND_ASSIGN(const auto sockets, ListenOn("127.0.0.1:0", "listen", ListenMode::kAll, 1));
  const std::string port = std::to_string(PortOf(sockets[0]));
  for (const char* host : {"127.0.0.1:", "0.0.0.0:", "[::]:"}) {
    EXPECT_THAT(ListenOn(host + port, "listen", ListenMode::kAll, 1), StatusIs(Code::kUnavailable, host + port));
  }
}

TEST(ListenOnTest, ABadAddressNamesTheField) {
  for (const char* address : {"", "7001", "127.0.0.1", "::1:7001", "no.such.host.invalid:7001"}) {
    EXPECT_THAT(ListenOn(address, "server.listen", ListenMode::kAll, 1),
                StatusIs(Code::kInvalidArgument, "server.listen"))
        << address;
  }
}

}  // namespace
}  // namespace sallyport

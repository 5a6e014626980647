// SPDX-License-Identifier: Apache-2.0
#include "common/redis/resolver.h"

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>
#include <netinet/in.h>

#include "common/redis/client.h"
#include "common/redis/connection.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::StatusIs;

absl::Duration Now() { return RedisConnection::NowSteady(); }
absl::Duration Soon() { return Now() + absl::Milliseconds(200); }

SocketAddress Loopback(uint16_t port) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  SocketAddress address;
  std::memcpy(&address.storage, &v4, sizeof(v4));
  address.size = sizeof(v4);
  return address;
}

int PortOf(const SocketAddress& address) {
  sockaddr_in v4{};
  std::memcpy(&v4, &address.storage, sizeof(v4));
  return ntohs(v4.sin_port);
}

// A name server that answers at once, or not until it is told. Outlives the lookups that are under way.
struct FakeNames {
  std::mutex mu;
  std::condition_variable changed;
  bool silent = false;
  absl::StatusOr<std::vector<SocketAddress>> answer = std::vector<SocketAddress>{Loopback(1)};
  int asked = 0;
  int answered = 0;

  void Set(bool now_silent, absl::StatusOr<std::vector<SocketAddress>> now_answer) {
    const std::lock_guard<std::mutex> lock(mu);
    silent = now_silent;
    answer = std::move(now_answer);
    changed.notify_all();
  }
  absl::StatusOr<std::vector<SocketAddress>> Answer() {
    std::unique_lock<std::mutex> lock(mu);
    ++asked;
    changed.wait(lock, [this] { return !silent; });
    ++answered;
    changed.notify_all();
    return answer;
  }
  int Asked() {
    const std::lock_guard<std::mutex> lock(mu);
    return asked;
  }
};

class RedisResolverTest : public ::testing::Test {
 protected:
  ~RedisResolverTest() override { names_->Set(false, absl::NotFoundError("over")); }
  absl::StatusOr<std::vector<SocketAddress>> Resolve(absl::Duration deadline) {
    return resolver_.Resolve("redis.test", "6379", Now(), deadline);
  }
  std::shared_ptr<FakeNames> names_ = std::make_shared<FakeNames>();
  RedisResolver resolver_{
      [names = names_](const std::string& /*host*/, const std::string& /*port*/) { return names->Answer(); }};
};

TEST_F(RedisResolverTest, AChangedAddressIsFollowed) {
  ASSERT_OK_AND_ASSIGN(auto first, Resolve(Now() + absl::Seconds(60)));
  EXPECT_EQ(PortOf(first[0]), 1);
  names_->Set(false, std::vector<SocketAddress>{Loopback(2)});
  ASSERT_OK_AND_ASSIGN(auto second, Resolve(Now() + absl::Seconds(60)));
  EXPECT_EQ(PortOf(second[0]), 2);
}

TEST_F(RedisResolverTest, ASilentNameServerCostsNoMoreThanTheDeadlineAndOneThread) {
  names_->Set(true, absl::NotFoundError(""));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Resolve(Soon()), StatusIs(absl::StatusCode::kUnavailable, "was not resolved in time"));
  }
  EXPECT_LE(names_->Asked(), 1);
}

TEST_F(RedisResolverTest, FormerAddressesAreUsedWhileTheNameServerIsSilentAndNewOnesOnceTheyAreThere) {
  ASSERT_TRUE(Resolve(Now() + absl::Seconds(60)).ok());
  names_->Set(true, absl::NotFoundError(""));
  ASSERT_OK_AND_ASSIGN(auto former, Resolve(Soon()));
  EXPECT_EQ(PortOf(former[0]), 1);
  names_->Set(false, std::vector<SocketAddress>{Loopback(3)});
  ASSERT_OK_AND_ASSIGN(auto later, Resolve(Now() + absl::Seconds(60)));
  EXPECT_EQ(PortOf(later[0]), 3);
}

TEST_F(RedisResolverTest, FormerAddressesOutliveAFailureByFiveMinutes) {
  ASSERT_TRUE(Resolve(Now() + absl::Seconds(60)).ok());
  names_->Set(false, absl::NotFoundError("no such name"));
  EXPECT_TRUE(Resolve(Now() + absl::Seconds(60)).ok());
  const absl::Duration later = Now() + absl::Minutes(6);
  EXPECT_THAT(resolver_.Resolve("redis.test", "6379", later, later + absl::Seconds(60)),
              StatusIs(absl::StatusCode::kUnavailable, "was not resolved: check redis.address"));
}

TEST_F(RedisResolverTest, AnAddressNeedsNoLookup) {
  for (const char* address : {"127.0.0.1", "::1"}) {
    EXPECT_TRUE(resolver_.Resolve(address, "6379", Now(), Now()).ok());
  }
  EXPECT_EQ(names_->Asked(), 0);
}

TEST_F(RedisResolverTest, ACommandIsNotHeldUpByASilentNameServer) {
  names_->Set(true, absl::NotFoundError(""));
  RedisOptions options;
  options.address = "redis.test:6379";
  options.resolver = &resolver_;
  ASSERT_OK_AND_ASSIGN(auto client, RedisClient::Create(std::move(options)));
  EXPECT_THAT(client->Get("k"), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_LE(names_->Asked(), 1) << "it came back while the lookup was still under way";
  const std::lock_guard<std::mutex> lock(names_->mu);
  EXPECT_EQ(names_->answered, 0);
}

}  // namespace
}  // namespace sallyport

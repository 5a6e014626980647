// SPDX-License-Identifier: Apache-2.0
#include "common/redis/client.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "absl/time/clock.h"
#include <gtest/gtest.h>

#include "common/error.h"
#include "tests/testing/lying_server.h"
#include "tests/testing/redis.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::LyingServer;
using testing::StatusIs;
using testing::TestRedis;

// Generous for a busy machine; the tests of timeouts choose their own.
RedisOptions OptionsFor(const std::string& address, absl::Duration timeout = absl::Seconds(30)) {
  RedisOptions options;
  options.address = address;
  options.timeout = timeout;
  return options;
}

class RedisClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(redis_, TestRedis::Start());
    ASSERT_OK_AND_ASSIGN(client_, RedisClient::Create(OptionsFor(redis_->address())));
  }
  std::unique_ptr<TestRedis> redis_;
  std::unique_ptr<RedisClient> client_;
};

TEST_F(RedisClientTest, KeepsEveryByte) {
  std::string all;
  for (int i = 0; i < 256; ++i) all.push_back(static_cast<char>(i));
  ASSERT_THAT(client_->Set(all, all + all, absl::Minutes(1)), IsOk());
  EXPECT_EQ(**client_->Get(all), all + all);
  EXPECT_EQ(*client_->Get("other"), std::nullopt);
  EXPECT_THAT(client_->Delete(all), IsOk());
  EXPECT_THAT(client_->Delete(all), IsOk());
  EXPECT_EQ(*client_->Get(all), std::nullopt);
  EXPECT_THAT(client_->Ping(), IsOk());
}

TEST_F(RedisClientTest, LargeValuesSurvive) {
  const std::string large(1 << 20, 'x');
  ASSERT_THAT(client_->Set("k", large, absl::Minutes(1)), IsOk());
  EXPECT_EQ(**client_->Get("k"), large);
}

TEST_F(RedisClientTest, ValuesExpire) {
  ASSERT_THAT(client_->Set("k", "v", absl::Milliseconds(1)), IsOk());
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (client_->Get("k")->has_value() && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(*client_->Get("k"), std::nullopt);
  EXPECT_THAT(client_->Set("k", "v", absl::ZeroDuration()), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(RedisClientTest, AnErrorAnswerIsNotAnOutage) {
  auto reader = RedisClient::Create(OptionsFor(redis_->address()));
  ASSERT_THAT((*reader)->Set("k", "v", absl::Minutes(1)), IsOk());
  RedisOptions options = OptionsFor(redis_->address());
  options.password = Secret(std::string("wrong"));
  options.username = "nobody";
  ASSERT_OK_AND_ASSIGN(auto stranger, RedisClient::Create(std::move(options)));
  EXPECT_THAT(stranger->Get("k"), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(RedisClientTest, AStalledServerCostsOneTimeoutEachAndThenNothing) {
  RedisOptions options = OptionsFor(redis_->address(), absl::Milliseconds(50));
  options.bypass_for = absl::Minutes(1);
  ASSERT_OK_AND_ASSIGN(auto client, RedisClient::Create(std::move(options)));
  redis_->Pause();
  for (int i = 0; i < 3; ++i) {
    auto value = client->Get("k");
    EXPECT_THAT(value, StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_EQ(ReasonOf(value.status()), "");
  }
  EXPECT_EQ(ReasonOf(client->Get("k").status()), "redis_bypassed");
  redis_->Resume();
}

TEST_F(RedisClientTest, AnswersThatCameTooLateAreNeverGivenToAnotherCommand) {
  // Short enough to wait for, long enough for an answer on a busy machine.
  RedisOptions options = OptionsFor(redis_->address(), absl::Milliseconds(500));
  options.failures_to_bypass = 1000;
  ASSERT_OK_AND_ASSIGN(auto client, RedisClient::Create(std::move(options)));
  ASSERT_THAT(client_->Set("a", "for a", absl::Minutes(1)), IsOk());
  ASSERT_THAT(client_->Set("b", "for b", absl::Minutes(1)), IsOk());
  redis_->Pause();
  EXPECT_FALSE(client->Get("a").ok());
  redis_->Resume();
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  auto value = client->Get("b");
  while (!value.ok() && absl::Now() < deadline) value = client->Get("b");
  EXPECT_EQ(**value, "for b");
}

TEST_F(RedisClientTest, ARestartedServerIsFoundAgain) {
  ASSERT_THAT(client_->Set("k", "v", absl::Minutes(1)), IsOk());
  redis_->Stop();
  EXPECT_THAT(client_->Get("k"), StatusIs(absl::StatusCode::kUnavailable));
  ASSERT_THAT(redis_->Restart(), IsOk());
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (!client_->Ping().ok() && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(*client_->Get("k"), std::nullopt);
}

TEST_F(RedisClientTest, ThreadsGetTheirOwnAnswers) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      const std::string key = "key" + std::to_string(t);
      for (int i = 0; i < 200; ++i) {
        const std::string value = key + ":" + std::to_string(i);
        ASSERT_THAT(client_->Set(key, value, absl::Minutes(1)), IsOk());
        ASSERT_EQ(**client_->Get(key), value);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(RedisAuthTest, LogsInWithThePassword) {
  ASSERT_OK_AND_ASSIGN(auto redis, TestRedis::Start("p ss"));
  RedisOptions right = OptionsFor(redis->address());
  right.password = Secret(std::string("p ss"));
  EXPECT_THAT((*RedisClient::Create(std::move(right)))->Ping(), IsOk());
  RedisOptions named = OptionsFor(redis->address());
  named.username = "default";
  named.password = Secret(std::string("p ss"));
  EXPECT_THAT((*RedisClient::Create(std::move(named)))->Ping(), IsOk());
  EXPECT_FALSE((*RedisClient::Create(OptionsFor(redis->address())))->Ping().ok());
}

TEST(RedisOptionsTest, RefusesMalformedAddresses) {
  for (const char* address : {"", "localhost", ":6379", "host:", "host:0", "host:70000", "unix:relative"}) {
    SCOPED_TRACE(address);
    EXPECT_THAT(RedisClient::Create(OptionsFor(address)), StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(RedisProtocolTest, UnexpectedAnswersAreErrors) {
  for (const char* answer :
       {"+OK\r\n+OK\r\n", "garbage\r\n", ":1\r\n", "*1\r\n$1\r\na\r\n", "$-2\r\n", "HTTP/1.1 200 OK\r\n\r\n"}) {
    SCOPED_TRACE(answer);
    LyingServer server(answer);
    auto client = RedisClient::Create(OptionsFor(server.address(), absl::Milliseconds(500)));
    EXPECT_THAT((*client)->Get("k"), StatusIs(absl::StatusCode::kUnavailable));
  }
}

// Messages as they come, to wait for.
class Inbox {
 public:
  void Put(const std::string& message) {
    const std::lock_guard<std::mutex> lock(mu_);
    messages_.push_back(message);
    changed_.notify_all();
  }
  std::string Take() {
    std::unique_lock<std::mutex> lock(mu_);
    if (!changed_.wait_for(lock, std::chrono::seconds(60), [this] { return !messages_.empty(); })) return "(nothing)";
    std::string message = messages_.front();
    messages_.pop_front();
    return message;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<std::string> messages_;
};

TEST_F(RedisClientTest, SubscribersHearMessagesAndTellWhenTheyMayHaveMissedSome) {
  Inbox messages;
  Inbox subscriptions;
  ASSERT_OK_AND_ASSIGN(auto subscriber, RedisSubscriber::Start(
                                            OptionsFor(redis_->address()), "doorbell",
                                            [&](const std::string& message) { messages.Put(message); },
                                            [&] { subscriptions.Put("subscribed"); }));
  ASSERT_EQ(subscriptions.Take(), "subscribed");
  EXPECT_EQ(client_->Publish("doorbell", "one").value_or(-1), 1);
  EXPECT_EQ(client_->Publish("elsewhere", "x").value_or(-1), 0);
  EXPECT_EQ(client_->Publish("doorbell", std::string("t\0o", 3)).value_or(-1), 1);
  EXPECT_EQ(messages.Take(), "one");
  EXPECT_EQ(messages.Take(), std::string("t\0o", 3));

  ASSERT_THAT(redis_->Restart(), IsOk());
  ASSERT_EQ(subscriptions.Take(), "subscribed");
  EXPECT_EQ((*RedisClient::Create(OptionsFor(redis_->address())))->Publish("doorbell", "three").value_or(-1), 1);
  EXPECT_EQ(messages.Take(), "three");
}

}  // namespace
}  // namespace sallyport

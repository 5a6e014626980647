// SPDX-License-Identifier: Apache-2.0
#include "common/redis/pipeline.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
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
using Value = absl::StatusOr<std::optional<std::string>>;

RedisOptions OptionsFor(const std::string& address, absl::Duration timeout = absl::Seconds(30)) {
  RedisOptions options;
  options.address = address;
  options.timeout = timeout;
  return options;
}

// Answers to a number of questions, in the order of the questions.
class Answers {
 public:
  void Ask(RedisClient& client, const std::string& key) {
    size_t place = 0;
    {
      const std::lock_guard<std::mutex> lock(mu_);
      place = values_.size();
      values_.emplace_back();
    }
    client.GetAsync(key, [this, place](Value value) {
      const std::lock_guard<std::mutex> lock(mu_);
      EXPECT_FALSE(values_[place].has_value()) << "answered twice";
      values_[place] = std::move(value);
      ++given_;
      changed_.notify_all();
    });
  }
  std::vector<Value> All() {
    std::unique_lock<std::mutex> lock(mu_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [this] { return given_ == values_.size(); }));
    std::vector<Value> all;
    for (const auto& value : values_) all.push_back(value.value_or(absl::UnknownError("no answer")));
    return all;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::vector<std::optional<Value>> values_;
  size_t given_ = 0;
};

Value GetBy(RedisClient& client, const std::string& key) {
  Answers answers;
  answers.Ask(client, key);
  return answers.All()[0];
}

class RedisPipelineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(redis_, TestRedis::Start());
    ASSERT_OK_AND_ASSIGN(client_, RedisClient::Create(OptionsFor(redis_->address())));
  }
  std::unique_ptr<RedisClient> Impatient(absl::Duration timeout) {
    RedisOptions options = OptionsFor(redis_->address(), timeout);
    options.failures_to_bypass = 1000;
    return *RedisClient::Create(std::move(options));
  }
  std::unique_ptr<TestRedis> redis_;
  std::unique_ptr<RedisClient> client_;
};

TEST_F(RedisPipelineTest, KeepsEveryByteAndTellsWhatIsNotThere) {
  std::string all;
  for (int i = 0; i < 256; ++i) all.push_back(static_cast<char>(i));
  const std::string large(1 << 20, 'x');
  ASSERT_THAT(client_->Set(all, all + all, absl::Minutes(1)), IsOk());
  ASSERT_THAT(client_->Set("large", large, absl::Minutes(1)), IsOk());
  EXPECT_EQ(**GetBy(*client_, all), all + all);
  EXPECT_EQ(**GetBy(*client_, "large"), large);
  EXPECT_EQ(*GetBy(*client_, "other"), std::nullopt);
  client_->DeleteAsync(all);
  EXPECT_EQ(*GetBy(*client_, all), std::nullopt);
}

TEST_F(RedisPipelineTest, EachOfManyGetsTheirOwnAnswer) {
  constexpr int kKeys = 500;
  for (int i = 0; i < kKeys; ++i) {
    ASSERT_THAT(client_->Set(absl::StrCat("k", i), absl::StrCat("v", i), absl::Minutes(1)), IsOk());
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int round = 0; round < 5; ++round) {
        Answers answers;
        for (int i = t; i < kKeys; i += 2) answers.Ask(*client_, absl::StrCat("k", i));
        const std::vector<Value> all = answers.All();
        for (size_t i = 0; i < all.size(); ++i) {
          ASSERT_THAT(all[i], IsOk());
          ASSERT_EQ(**all[i], absl::StrCat("v", t + 2 * static_cast<int>(i)));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(RedisPipelineTest, AStalledServerCostsAllTheirTimeoutAndThenNothing) {
  RedisOptions options = OptionsFor(redis_->address(), absl::Milliseconds(50));
  options.bypass_for = absl::Minutes(1);
  options.failures_to_bypass = 2;
  ASSERT_OK_AND_ASSIGN(auto client, RedisClient::Create(std::move(options)));
  redis_->Pause();
  for (int round = 0; round < 2; ++round) {
    Answers answers;
    for (int i = 0; i < 20; ++i) answers.Ask(*client, "k");
    for (const Value& value : answers.All()) EXPECT_THAT(value, StatusIs(absl::StatusCode::kUnavailable));
  }
  EXPECT_EQ(ReasonOf(GetBy(*client, "k").status()), "redis_bypassed");
  redis_->Resume();
}

TEST_F(RedisPipelineTest, AnswersThatCameTooLateAreNeverGivenToAnother) {
  const auto client = Impatient(absl::Milliseconds(500));
  ASSERT_THAT(client_->Set("a", "for a", absl::Minutes(1)), IsOk());
  ASSERT_THAT(client_->Set("b", "for b", absl::Minutes(1)), IsOk());
  redis_->Pause();
  EXPECT_FALSE(GetBy(*client, "a").ok());
  redis_->Resume();
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  Value value = GetBy(*client, "b");
  while (!value.ok() && absl::Now() < deadline) value = GetBy(*client, "b");
  EXPECT_EQ(**value, "for b");
}

TEST_F(RedisPipelineTest, ARestartedServerIsFoundAgain) {
  const auto client = Impatient(absl::Seconds(5));
  ASSERT_THAT(GetBy(*client, "k"), IsOk());
  redis_->Stop();
  EXPECT_THAT(GetBy(*client, "k"), StatusIs(absl::StatusCode::kUnavailable));
  ASSERT_THAT(redis_->Restart(), IsOk());
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (!GetBy(*client, "k").ok() && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_THAT(GetBy(*client, "k"), IsOk());
}

// After a silence its thread waits without a limit: a question must wake it, and be late in time.
TEST_F(RedisPipelineTest, AnswersAfterASilence) {
  const auto client = Impatient(absl::Milliseconds(100));
  for (int i = 0; i < 3; ++i) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (!GetBy(*client, "k").ok() && absl::Now() < deadline) std::this_thread::yield();
    EXPECT_THAT(GetBy(*client_, "k"), IsOk());
    absl::SleepFor(absl::Milliseconds(250));
  }
  redis_->Pause();
  EXPECT_THAT(GetBy(*client, "k"), StatusIs(absl::StatusCode::kUnavailable));
  redis_->Resume();
}

TEST_F(RedisPipelineTest, WhoeverWaitsAtTheEndIsTold) {
  ASSERT_THAT(GetBy(*client_, "k"), IsOk());
  redis_->Pause();
  Answers answers;
  for (int i = 0; i < 10; ++i) answers.Ask(*client_, "k");
  client_.reset();
  for (const Value& value : answers.All()) EXPECT_THAT(value, StatusIs(absl::StatusCode::kUnavailable));
  redis_->Resume();
}

TEST_F(RedisPipelineTest, AWrongPasswordIsNotAnOutage) {
  RedisOptions options = OptionsFor(redis_->address());
  options.username = "nobody";
  options.password = Secret(std::string("wrong"));
  ASSERT_OK_AND_ASSIGN(auto stranger, RedisClient::Create(std::move(options)));
  EXPECT_THAT(GetBy(*stranger, "k"), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST(RedisPipelineProtocolTest, UnexpectedAnswersAreErrors) {
  for (const char* answer : {"garbage\r\n", ":1\r\n", "*1\r\n$1\r\na\r\n", "$-2\r\n", "HTTP/1.1 200 OK\r\n\r\n"}) {
    SCOPED_TRACE(answer);
    LyingServer server(answer);
    ASSERT_OK_AND_ASSIGN(auto client, RedisClient::Create(OptionsFor(server.address(), absl::Milliseconds(500))));
    EXPECT_THAT(GetBy(*client, "k"), StatusIs(absl::StatusCode::kUnavailable));
  }
}

TEST(RedisPipelineProtocolTest, BesideAnAnswerNobodyAskedForNoneIsBelieved) {
  LyingServer server("$1\r\na\r\n$1\r\nb\r\n");
  RedisOptions options = OptionsFor(server.address());
  options.failures_to_bypass = 1000;
  ASSERT_OK_AND_ASSIGN(auto client, RedisClient::Create(std::move(options)));
  for (int i = 0; i < 10; ++i) EXPECT_THAT(GetBy(*client, "k"), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/json_log.h"

#include <limits>
#include <thread>
#include <unistd.h>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include <gmock/gmock.h>

namespace sallyport {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class JsonLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(pipe(pipe_), 0);
    SetLogDescriptor(pipe_[1]);
  }
  void TearDown() override {
    SetLogDescriptor(STDOUT_FILENO);
    SetLogLevel(LogLevel::kInfo);
    close(pipe_[0]);
  }
  // Ends the log.
  std::string Written() {
    close(pipe_[1]);
    std::string all;
    char buffer[4096];
    for (ssize_t n = 0; (n = read(pipe_[0], buffer, sizeof(buffer))) > 0;) {
      all.append(buffer, static_cast<size_t>(n));
    }
    return all;
  }
  int pipe_[2] = {-1, -1};
};

TEST_F(JsonLogTest, WritesOneLineWithTypedFields) {
  SetLogService("vault");
  Log(LogLevel::kWarning, "slow",
      {{"text", "a"}, {"count", -3}, {"big", std::numeric_limits<uint64_t>::max()}, {"ratio", 0.5}, {"yes", true}});

  const std::string line = Written();

  EXPECT_THAT(line, StartsWith("{\"ts\":\"20"));
  EXPECT_THAT(
      line, HasSubstr("Z\",\"level\":\"warning\",\"service\":\"vault\",\"event\":\"slow\",\"text\":\"a\",\"count\":-3,"
                      "\"big\":18446744073709551615,\"ratio\":0.5,\"yes\":true}\n"));
}

TEST_F(JsonLogTest, ControlCharactersCannotEndTheLine) {
  Log(LogLevel::kInfo, "x", {{"v", absl::string_view("a\nb\r\"\\\x01\x7f\0c", 10)}});
  const std::string line = Written();
  EXPECT_THAT(line, HasSubstr("a\\nb\\r\\\"\\\\\\u0001\\u007f\\u0000c"));
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
}

TEST_F(JsonLogTest, BytesThatAreNoUtf8AreReplaced) {
  Log(LogLevel::kInfo, "x", {{"v", "\xC3\xA9|\xFF|\xC0\x80|\xED\xA0\x80"}});
  EXPECT_THAT(Written(), HasSubstr("\xC3\xA9|\\ufffd|\\ufffd\\ufffd|\\ufffd\\ufffd\\ufffd"));
}

TEST_F(JsonLogTest, StatusLosesItsPayload) {
  absl::Status status = absl::NotFoundError("gone");
  status.SetPayload("type", absl::Cord("payload"));
  Log(LogLevel::kInfo, "x", {{"error", status}});
  EXPECT_THAT(Written(), HasSubstr("\"error\":\"NOT_FOUND: gone\"}"));
}

TEST_F(JsonLogTest, NotANumberIsNull) {
  Log(LogLevel::kInfo, "x", {{"v", std::numeric_limits<double>::quiet_NaN()}});
  EXPECT_THAT(Written(), HasSubstr("\"v\":null"));
}

TEST_F(JsonLogTest, LinesBelowTheLevelAreNotWritten) {
  SetLogLevel(LogLevel::kError);
  Log(LogLevel::kWarning, "x");
  EXPECT_EQ(Written(), "");
}

TEST_F(JsonLogTest, LinesOfManyThreadsDoNotMix) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 50; ++i) {
        Log(LogLevel::kInfo, "x", {{"v", "0123456789"}});
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  int lines = 0;
  for (absl::string_view line : absl::StrSplit(Written(), '\n', absl::SkipEmpty())) {
    EXPECT_TRUE(absl::EndsWith(line, "\"v\":\"0123456789\"}")) << std::string(line);
    ++lines;
  }
  EXPECT_EQ(lines, 200);
}

TEST(ParseLogLevelTest, KnowsFourNamesAndEmptyIsInfo) {
  EXPECT_EQ(ParseLogLevel("debug"), LogLevel::kDebug);
  EXPECT_EQ(ParseLogLevel(""), LogLevel::kInfo);
  EXPECT_EQ(ParseLogLevel("INFO"), std::nullopt);
  EXPECT_EQ(ParseLogLevel("trace"), std::nullopt);
}

static_assert(!std::is_constructible_v<LogValue, const Secret&>, "secrets are not logged");

}  // namespace
}  // namespace sallyport

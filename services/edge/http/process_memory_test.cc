// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/process_memory.h"

#include <filesystem>
#include <fstream>
#include <unistd.h>

#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

class ProcessMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::temp_directory_path() / ("process_memory_" + std::to_string(::getpid()));
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void Write(const std::string& name, const std::string& text) {
    const std::filesystem::path path = directory_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  MemoryReading Read() const { return ProcessMemory(directory_ / "proc", directory_ / "cgroup").Read(); }

 private:
  std::filesystem::path directory_;
};

TEST_F(ProcessMemoryTest, TheTightestLimitOfAnyGroupAboveCounts) {
  Write("proc/cgroup", "0::/system.slice/sallyport.service\n");
  Write("cgroup/system.slice/sallyport.service/memory.max", "max\n");
  EXPECT_EQ(Read().limit, 0u);
  Write("cgroup/system.slice/memory.max", "1000000\n");
  EXPECT_EQ(Read().limit, 1'000'000u);
  Write("cgroup/system.slice/sallyport.service/memory.max", "2000000\n");
  EXPECT_EQ(Read().limit, 1'000'000u);
  Write("cgroup/system.slice/sallyport.service/memory.max", "500000\n");
  EXPECT_EQ(Read().limit, 500'000u);
}

TEST_F(ProcessMemoryTest, InAContainerTheRootIsItsOwn) {
  Write("proc/cgroup", "0::/\n");
  Write("cgroup/memory.max", "1000000\n");
  EXPECT_EQ(Read().limit, 1'000'000u);
}

TEST_F(ProcessMemoryTest, VersionOneCountsWhereItHasTheMemoryController) {
  Write("proc/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/docker/abc\n");
  Write("cgroup/memory.max", "1\n");
  Write("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(Read().limit, 0u);
  Write("cgroup/memory/docker/abc/memory.limit_in_bytes", "1000000\n");
  EXPECT_EQ(Read().limit, 1'000'000u);
  Write("proc/cgroup", "4:memory:/docker/of-the-host\n");
  Write("cgroup/memory/memory.limit_in_bytes", "2000000\n");
  EXPECT_EQ(Read().limit, 2'000'000u);
}

TEST_F(ProcessMemoryTest, WithoutCgroupsThereIsNoLimit) {
  EXPECT_EQ(Read().limit, 0u);
  Write("proc/cgroup", "garbage\n1:memory\n");
  EXPECT_EQ(Read().limit, 0u);
}

TEST_F(ProcessMemoryTest, TheResidentSetIsWhatIsUsed) {
  Write("proc/statm", "5000 300 20 10 0 900 0\n");
  EXPECT_EQ(Read().used, 300u * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)));
  EXPECT_GT(ProcessMemory().Read().used, 0u);
}

TEST(MemoryLevel, EachBeginsAtItsMarkAndEndsALittleBelow) {
  MemoryLevel level = MemoryLevel::kNormal;
  const auto at = [&](uint64_t percent) {
    return level = NextMemoryLevel(level, {.limit = 1000, .used = percent * 10});
  };
  EXPECT_EQ(at(79), MemoryLevel::kNormal);
  EXPECT_EQ(at(80), MemoryLevel::kNoStreams);
  EXPECT_EQ(at(89), MemoryLevel::kNoStreams);
  EXPECT_EQ(at(90), MemoryLevel::kNoRequests);
  EXPECT_EQ(at(95), MemoryLevel::kNoConnections);
  EXPECT_EQ(at(92), MemoryLevel::kNoConnections);
  EXPECT_EQ(at(91), MemoryLevel::kNoRequests);
  EXPECT_EQ(at(94), MemoryLevel::kNoRequests);
  EXPECT_EQ(at(87), MemoryLevel::kNoRequests);
  EXPECT_EQ(at(86), MemoryLevel::kNoStreams);
  EXPECT_EQ(at(77), MemoryLevel::kNoStreams);
  EXPECT_EQ(at(76), MemoryLevel::kNormal);
  EXPECT_EQ(at(120), MemoryLevel::kNoConnections);
  EXPECT_EQ(at(0), MemoryLevel::kNormal);
}

TEST(MemoryLevel, WithoutALimitAllIsNormal) {
  EXPECT_EQ(NextMemoryLevel(MemoryLevel::kNoConnections, {.limit = 0, .used = 1ull << 40}), MemoryLevel::kNormal);
}

}  // namespace
}  // namespace sallyport::edge

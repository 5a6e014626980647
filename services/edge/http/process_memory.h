// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sallyport::edge {

struct MemoryReading {
  uint64_t limit = 0;  // Bytes; 0: there is none.
  uint64_t used = 0;
};

// What the engine gives up to stay below its memory limit; each level includes those before.
enum class MemoryLevel : uint8_t {
  kNormal,
  kNoStreams,      // From 80 %: no event stream opens (503).
  kNoRequests,     // From 90 %: new requests get 503, connections close with their answer.
  kNoConnections,  // From 95 %: nothing is accepted, the newest idle connections close.
};

// The level after `now`. A level is left 3 % below where it began, so that it does not come and go with every request.
MemoryLevel NextMemoryLevel(MemoryLevel now, const MemoryReading& reading);

// Gives the kernel back what the allocator keeps of freed memory: it counts as ours.
void ReturnFreeMemory();

// The tightest limit of the cgroups (v2 memory.max, v1 memory.limit_in_bytes) this process is in, and how much of it
// the process holds: its resident set. Not the cgroup's usage: that counts neighbours and the page cache too, and
// refusing clients frees only what they cost this process.
class ProcessMemory {
 public:
  explicit ProcessMemory(std::string proc = "/proc/self", std::string cgroups = "/sys/fs/cgroup")
      : proc_(std::move(proc)), cgroups_(std::move(cgroups)) {}
  MemoryReading Read() const;

 private:
  uint64_t Limit() const;
  uint64_t TightestOf(const std::string& mount, std::string_view path, const char* file) const;
  uint64_t Resident() const;

  std::string proc_;
  std::string cgroups_;
};

}  // namespace sallyport::edge

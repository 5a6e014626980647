// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/process_memory.h"

#include <array>
#include <fstream>
#include <limits>
#include <malloc.h>
#include <unistd.h>

namespace sallyport::edge {
namespace {

constexpr std::array<uint64_t, 4> kBegins = {0, 80, 90, 95};  // Percent, of each level.
constexpr uint64_t kHysteresis = 3;
constexpr uint64_t kUnlimited = 1ull << 60;  // v1 says "none" with a number near 2^63.

// 0 for "max", and for what is not there.
uint64_t ReadLimit(const std::string& path) {
  std::ifstream file(path);
  uint64_t limit = 0;
  return file >> limit && limit < kUnlimited ? limit : 0;
}

// Does the comma-separated list of a line of /proc/self/cgroup name the memory controller?
bool HasMemory(std::string_view controllers) {
  while (!controllers.empty()) {
    const size_t comma = controllers.find(',');
    if (controllers.substr(0, comma) == "memory") {
      return true;
    }
    controllers.remove_prefix(comma == std::string_view::npos ? controllers.size() : comma + 1);
  }
  return false;
}

}  // namespace

MemoryLevel NextMemoryLevel(MemoryLevel now, const MemoryReading& reading) {
  size_t level = 0;
  for (size_t i = 1; reading.limit > 0 && i < kBegins.size(); ++i) {
    const uint64_t percent = i <= static_cast<size_t>(now) ? kBegins[i] - kHysteresis : kBegins[i];
    if (reading.used >= reading.limit / 100 * percent) {
      level = i;
    }
  }
  return static_cast<MemoryLevel>(level);
}

void ReturnFreeMemory() { ::malloc_trim(0); }

MemoryReading ProcessMemory::Read() const { return {Limit(), Resident()}; }

// "<id>:<controllers>:<path>", one line a hierarchy; v2's has id 0 and no controllers. A hierarchy that has the memory
// controller as v1 is the one that counts.
uint64_t ProcessMemory::Limit() const {
  std::ifstream file(proc_ + "/cgroup");
  std::string line;
  uint64_t v2 = 0;
  while (std::getline(file, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) {
      continue;
    }
    const std::string_view text = line;
    const std::string_view controllers = text.substr(first + 1, second - first - 1);
    const std::string_view path = text.substr(second + 1);
    if (HasMemory(controllers)) {
      return TightestOf(cgroups_ + "/memory", path, "memory.limit_in_bytes");
    }
    if (text.substr(0, first) == "0" && controllers.empty()) {
      v2 = TightestOf(cgroups_, path, "memory.max");
    }
  }
  return v2;
}

// From the process's own group up to the root: a parent's limit holds for it too. In a container the path may be the
// host's; then only the root, which is the container's own, is there.
uint64_t ProcessMemory::TightestOf(const std::string& mount, std::string_view path, const char* file) const {
  uint64_t tightest = std::numeric_limits<uint64_t>::max();
  while (true) {
    while (path.ends_with('/')) {
      path.remove_suffix(1);
    }
    const uint64_t limit = ReadLimit(mount + std::string(path) + "/" + file);
    tightest = limit > 0 && limit < tightest ? limit : tightest;
    if (path.empty()) {
      break;
    }
    path = path.substr(0, path.find_last_of('/') == std::string_view::npos ? 0 : path.find_last_of('/'));
  }
  return tightest == std::numeric_limits<uint64_t>::max() ? 0 : tightest;
}

uint64_t ProcessMemory::Resident() const {
  std::ifstream file(proc_ + "/statm");
  uint64_t total = 0;
  uint64_t resident = 0;
  file >> total >> resident;
  static const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return resident * page;
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/measure.h"

#include <algorithm>
#include <ctime>
#include <sched.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/status_macros.h"

namespace sallyport::bench {

void PinThread(Side side) {
  static const std::vector<size_t> processors = [] {
    std::vector<size_t> found;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return found;
    for (size_t i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &allowed)) found.push_back(i);
    }
    return found;
  }();
  if (processors.size() < 2) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(side == Side::kMeasured ? processors[0] : processors[1], &one);
  sched_setaffinity(0, sizeof(one), &one);
}

absl::StatusOr<int> FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* any = reinterpret_cast<sockaddr*>(&address);
  const bool bound = fd >= 0 && bind(fd, any, size) == 0 && getsockname(fd, any, &size) == 0;
  if (fd >= 0) close(fd);
  if (!bound) return absl::InternalError("no free port on loopback");
  return ntohs(address.sin_port);
}

double Read(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

double CpuOf(pid_t pid) {
  clockid_t clock{};
  return clock_getcpuclockid(pid, &clock) == 0 ? Read(clock) : 0;
}

absl::StatusOr<double> Measure(int seconds, const std::function<absl::Status(Cost&)>& pass) {
  Cost cost;
  const absl::Time until = absl::Now() + absl::Seconds(seconds);
  do {
    RETURN_IF_ERROR(pass(cost));
  } while (absl::Now() < until);
  return cost.per_call();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

}  // namespace sallyport::bench

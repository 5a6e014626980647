// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace sallyport {

// Owns a descriptor; -1 is none.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// kFirst: one socket, on the first address of the host.
// kAll: one for each address of the host. 0.0.0.0 and [::] mean every IPv4 and IPv6 address, as with gRPC's own
// listener.
enum class ListenMode { kFirst, kAll };

// Non-blocking TCP sockets that listen on "127.0.0.1:7001", "[::1]:0" or "localhost:7001"; port 0 picks one port for
// all. INVALID_ARGUMENT naming `field` for a bad address, UNAVAILABLE if it is taken or may not be used.
absl::StatusOr<std::vector<Fd>> ListenOn(const std::string& address, const std::string& field, ListenMode mode,
                                         int backlog);

// 0 if `socket` has none.
int PortOf(const Fd& socket);

}  // namespace sallyport

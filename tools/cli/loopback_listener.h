// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sallyport::cli {

// The redirect address of the browser login: an HTTP server for a single answer on a free port of 127.0.0.1.
class LoopbackListener {
 public:
  // UNAVAILABLE if there is no port.
  static absl::StatusOr<LoopbackListener> Open();
  ~LoopbackListener();
  LoopbackListener(LoopbackListener&& other) noexcept;
  LoopbackListener& operator=(LoopbackListener&&) = delete;
  LoopbackListener(const LoopbackListener&) = delete;

  uint16_t port() const { return port_; }
  // Query of the first GET /callback?…; other requests (a favicon) get 404. Tells the person to return to the terminal.
  // DEADLINE_EXCEEDED after `patience`.
  absl::StatusOr<std::string> Await(absl::Duration patience);

 private:
  LoopbackListener(int fd, uint16_t port) : fd_(fd), port_(port) {}
  int fd_;
  uint16_t port_;
};

}  // namespace sallyport::cli

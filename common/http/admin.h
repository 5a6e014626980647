// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sallyport {

// Plain HTTP/1.1 for the operator: GET /metrics (Prometheus text), /livez (200 while the process runs), /readyz (200,
// or 503 with the reason as text). Never public. A few threads, one request a connection, 5 s a connection.
class AdminHttp {
 public:
  // OK when ready; the message of another status is shown.
  using Ready = std::function<absl::Status()>;

  // `listen`: "127.0.0.1:9001", "[::1]:9001", port 0 for any. INVALID_ARGUMENT naming `field` for a bad address,
  // UNAVAILABLE if taken.
  static absl::StatusOr<std::unique_ptr<AdminHttp>> Start(const std::string& listen, Ready ready,
                                                          const std::string& field = "adminListen");
  ~AdminHttp();
  int port() const;

 private:
  AdminHttp() = default;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace sallyport {

// Accepts the connections of a gRPC server. gRPC 1.51's own listener stops for good at the first accept(2) that fails
// for want of a descriptor (CVE-2023-4785), so that whoever reaches the port could end a service by opening
// connections. This one goes on: it closes what comes while the process is short of descriptors.
//   sallyport_rpc_connections_refused_total{reason}: file_limit (beyond the share), exhausted (accept itself failed)
class Acceptor {
 public:
  // Owns `connection` from then on: connected, non-blocking, close-on-exec, TCP_NODELAY. Called on one thread.
  using Take = std::function<void(int listener, int connection)>;

  // What comes while the process has `percent` of RLIMIT_NOFILE open is closed at once; the rest is for files,
  // databases and connections to others. Fails as ListenOn does.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(const std::string& address, const std::string& field,
                                                          int percent);
  ~Acceptor();
  int port() const;
  // Until then connections wait in the kernel's queue. Once.
  void Start(Take take);
  // The port is closed, and `take` is called no more, when it returns.
  void Stop();

 private:
  Acceptor() = default;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sallyport

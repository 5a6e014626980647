// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "services/edge/http/network_address.h"
#include "services/edge/http/stream.h"
#include "services/edge/http/timer_wheel.h"

namespace sallyport::edge {

// Names to addresses, per worker; asked for each new connection. When resolution fails, what it gave less than 60 s ago
// is used.
class Resolver {
 public:
  explicit Resolver(IoContext& io) : resolver_(io.get_executor()) {}

  // `done` gets no addresses on failure; never called from within Resolve. `now` is the time of the call.
  void Resolve(const std::string& host, uint16_t port, Millis now,
               std::function<void(std::vector<NetworkAddress>)> done);
  void Cancel() { resolver_.cancel(); }

 private:
  struct Known {
    std::vector<NetworkAddress> addresses;
    Millis at = 0;
  };

  boost::asio::ip::basic_resolver<Tcp, IoContext::executor_type> resolver_;
  absl::flat_hash_map<std::string, Known> last_good_;
};

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <sys/socket.h>

#include "common/mutex.h"

namespace sallyport {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

// Names to addresses without making a caller wait longer than it can: getaddrinfo has no deadline and runs on a thread
// of its own, one at most for each name. What it gave less than five minutes ago is used while it is slow or fails.
// Thread-safe.
class RedisResolver {
 public:
  // May block for as long as it likes, and may be called after the resolver is gone.
  using Lookup =
      std::function<absl::StatusOr<std::vector<SocketAddress>>(const std::string& host, const std::string& port)>;

  explicit RedisResolver(Lookup lookup);
  // The process's own, which asks the system.
  static RedisResolver& Process();

  // At least one address, in the order of preference. Times are of the steady clock (RedisConnection::NowSteady). Waits
  // until `deadline`, or for a quarter of the time until then if earlier addresses are known. An address in place of a
  // name needs no lookup. UNAVAILABLE if there is none.
  absl::StatusOr<std::vector<SocketAddress>> Resolve(const std::string& host, const std::string& port,
                                                     absl::Duration now, absl::Duration deadline);

 private:
  struct Name;
  std::shared_ptr<Name> NameOf(const std::string& host, const std::string& port);

  const Lookup lookup_;
  Mutex mu_;
  std::map<std::pair<std::string, std::string>, std::shared_ptr<Name>> names_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport

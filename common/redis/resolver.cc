// SPDX-License-Identifier: Apache-2.0
#include "common/redis/resolver.h"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <netdb.h>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"

#include "common/redis/connection.h"
#include "common/redis/failures.h"

namespace sallyport {
namespace {

constexpr absl::Duration kLastGood = absl::Minutes(5);
constexpr int kKnownShare = 4;
constexpr size_t kMostAddresses = 8;

struct AddressDeleter {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

absl::StatusOr<std::vector<SocketAddress>> AskSystem(const std::string& host, const std::string& port, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return absl::NotFoundError("no address");
  const std::unique_ptr<addrinfo, AddressDeleter> owner(found);
  std::vector<SocketAddress> addresses;
  for (const addrinfo* one = found; one != nullptr && addresses.size() < kMostAddresses; one = one->ai_next) {
    SocketAddress address;
    std::memcpy(&address.storage, one->ai_addr, one->ai_addrlen);
    address.size = one->ai_addrlen;
    addresses.push_back(address);
  }
  return addresses;
}

}  // namespace

// Shared with the thread that looks it up, which may outlive everybody else.
struct RedisResolver::Name {
  Mutex mu;
  std::condition_variable_any changed;
  bool running ABSL_GUARDED_BY(mu) = false;
  uint64_t finished ABSL_GUARDED_BY(mu) = 0;  // Lookups that have ended.
  bool last_ok ABSL_GUARDED_BY(mu) = false;
  absl::Duration good_at ABSL_GUARDED_BY(mu) = -absl::InfiniteDuration();
  std::vector<SocketAddress> addresses ABSL_GUARDED_BY(mu);  // Of the last lookup that gave any.

  void Finish(absl::StatusOr<std::vector<SocketAddress>> found) {
    MutexLock lock(mu);
    running = false;
    ++finished;
    last_ok = found.ok() && !found->empty();
    if (last_ok) {
      addresses = *std::move(found);
      good_at = RedisConnection::NowSteady();
    }
    changed.notify_all();
  }
};

RedisResolver::RedisResolver(Lookup lookup) : lookup_(std::move(lookup)) {}

RedisResolver& RedisResolver::Process() {
  // Never destroyed: a lookup may be under way when the process ends.
  static RedisResolver& process = *new RedisResolver(
      [](const std::string& host, const std::string& port) { return AskSystem(host, port, AI_NUMERICSERV); });
  return process;
}

std::shared_ptr<RedisResolver::Name> RedisResolver::NameOf(const std::string& host, const std::string& port) {
  MutexLock lock(mu_);
  std::shared_ptr<Name>& name = names_[{host, port}];
  if (name == nullptr) name = std::make_shared<Name>();
  return name;
}

absl::StatusOr<std::vector<SocketAddress>> RedisResolver::Resolve(const std::string& host, const std::string& port,
                                                                  absl::Duration now, absl::Duration deadline) {
  if (auto literal = AskSystem(host, port, AI_NUMERICHOST | AI_NUMERICSERV); literal.ok()) return literal;
  const std::shared_ptr<Name> name = NameOf(host, port);
  MutexLock lock(name->mu);
  const uint64_t seen = name->finished;
  if (!name->running) {
    try {
      std::thread([name, lookup = lookup_, host, port] { name->Finish(lookup(host, port)); }).detach();
      name->running = true;
    } catch (const std::system_error&) {
      deadline = now;  // No thread to be had: what is known has to do.
    }
  }
  const bool known = !name->addresses.empty() && now - name->good_at < kLastGood;
  const absl::Duration budget = known ? (deadline - now) / kKnownShare : deadline - now;
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(budget);
  while (name->finished == seen && name->changed.wait_until(name->mu, until) != std::cv_status::timeout) {
  }
  if (known || (name->finished != seen && name->last_ok)) return name->addresses;
  return RedisFailed(
      RedisFailure::kName,
      absl::StrCat("the name ", host.substr(0, 64),
                   name->finished == seen ? " was not resolved in time: look at the resolver's DNS servers"
                                          : " was not resolved: check redis.address"));
}

}  // namespace sallyport

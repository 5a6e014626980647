// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/engine.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/text/string_view.h"
#include "services/edge/http/connection.h"
#include "services/edge/http/worker.h"

namespace sallyport::edge {
namespace {

constexpr int kBacklog = 1'024;
constexpr std::chrono::milliseconds kShutdownPoll{5};

// "127.0.0.1:80", "[::]:80"
absl::StatusOr<NetworkAddress> ParseListen(std::string_view text) {
  const size_t colon = text.rfind(':');
  uint32_t port = 0;
  const std::string_view digits = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  if (digits.empty() || digits.size() > 5 ||
      !std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return absl::InvalidArgumentError("listen: must be <address>:<port>");
  }
  for (char c : digits) {
    port = port * 10 + static_cast<uint32_t>(c - '0');
  }
  std::string_view host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  const auto address = NetworkAddress::Parse(host, static_cast<uint16_t>(port));
  if (!address.has_value() || port > 65535) {
    return absl::InvalidArgumentError("listen: must be a literal address and a port up to 65535");
  }
  return *address;
}

// Binds with SO_REUSEPORT; `address.port` becomes the real one.
absl::StatusOr<int> Bind(NetworkAddress& address) {
  const bool v6 = !address.is_v4();
  const int fd = ::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return absl::UnavailableError("listen: no socket");
  }
  const int on = 1;
  const int off = 0;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (v6) {
    ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    auto& sockaddr = reinterpret_cast<sockaddr_in6&>(storage);
    sockaddr.sin6_family = AF_INET6;
    sockaddr.sin6_port = htons(address.port);
    std::memcpy(&sockaddr.sin6_addr, address.bytes.data(), 16);
    size = sizeof(sockaddr);
  } else {
    auto& sockaddr = reinterpret_cast<sockaddr_in&>(storage);
    sockaddr.sin_family = AF_INET;
    sockaddr.sin_port = htons(address.port);
    std::memcpy(&sockaddr.sin_addr, address.bytes.data() + 12, 4);
    size = sizeof(sockaddr);
  }
  if (::bind(fd, reinterpret_cast<sockaddr*>(&storage), size) != 0 || ::listen(fd, kBacklog) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) {
    const int error = errno;
    ::close(fd);
    return absl::UnavailableError(absl::StrCat("listen: cannot bind: ", std::strerror(error)));
  }
  address.port =
      ntohs(v6 ? reinterpret_cast<sockaddr_in6&>(storage).sin6_port : reinterpret_cast<sockaddr_in&>(storage).sin_port);
  return fd;
}

}  // namespace

class Engine::Impl {
 public:
  explicit Impl(const EngineOptions& options) : shared(options) {}

  // On the first worker.
  void WatchMemory();

  EngineShared shared;
  NetworkAddress address;
  std::vector<std::unique_ptr<WorkerImpl>> workers;
  std::vector<std::thread> threads;
  bool stopped = false;
};

void Engine::Impl::WatchMemory() {
  shared.CheckMemory();
  if (shared.memory_level.load(std::memory_order_relaxed) >= MemoryLevel::kNoConnections) {
    for (const auto& worker : workers) {
      worker->Post([&worker = *worker] { worker.CloseNewestIdle(); });
    }
  }
  workers.front()->After(shared.options.memory_check, [this] { WatchMemory(); });
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Engine::~Engine() { Shutdown(std::chrono::milliseconds(0)); }

absl::StatusOr<std::unique_ptr<Engine>> Engine::Start(const EngineOptions& options, Gateway& gateway) {
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes with write().
  auto address = ParseListen(options.listen);
  if (!address.ok()) {
    return address.status();
  }
  auto impl = std::make_unique<Impl>(options);
  if (!options.certificate.empty()) {
    if (absl::Status status = impl->shared.LoadCertificate(); !status.ok()) {
      return status;
    }
  }
  impl->address = *address;
  for (size_t i = 0; i < std::max<size_t>(options.threads, 1); ++i) {
    auto fd = Bind(impl->address);
    if (!fd.ok()) {
      return fd.status();
    }
    impl->workers.push_back(std::make_unique<WorkerImpl>(impl->shared, gateway, i));
    if (absl::Status status = impl->workers.back()->Listen(*fd, !impl->address.is_v4()); !status.ok()) {
      return status;
    }
  }
  if (options.memory) {
    impl->WatchMemory();
  }
  for (const auto& worker : impl->workers) {
    impl->threads.emplace_back([&worker = *worker] { worker.Run(); });
  }
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

uint16_t Engine::port() const { return impl_->address.port; }
size_t Engine::workers() const { return impl_->workers.size(); }
Worker& Engine::worker(size_t index) { return *impl_->workers.at(index); }

EngineCounters Engine::counters() const {
  EngineCounters sum;
  for (const auto& worker : impl_->workers) {
    const WorkerCounters& counters = worker->counters;
    sum.connections_accepted += counters.accepted.value();
    sum.connections_open += counters.open.value();
    sum.requests += counters.requests.value();
    sum.rejected += counters.rejected.value();
    sum.upstream_connects += counters.upstream_connects.value();
    sum.upstream_reuses += counters.upstream_reuses.value();
    sum.upstream_stale += counters.upstream_stale.value();
    sum.upstream_idle += counters.upstream_idle.value();
    for (size_t i = 0; i < sum.proxy_failures.size(); ++i) {
      sum.proxy_failures[i] += counters.proxy_failures[i].value();
    }
    sum.heartbeats += counters.heartbeats.value();
    sum.memory_streams += counters.memory_streams.value();
    sum.memory_requests += counters.memory_requests.value();
    sum.memory_connections += counters.memory_connections.value();
  }
  const EngineShared& shared = impl_->shared;
  sum.body_memory = shared.body_memory.load(std::memory_order_relaxed);
  sum.memory = {shared.memory_limit.load(std::memory_order_relaxed),
                shared.memory_used.load(std::memory_order_relaxed)};
  sum.memory_level = shared.memory_level.load(std::memory_order_relaxed);
  return sum;
}

void Engine::Shutdown(std::chrono::milliseconds grace) {
  if (impl_->stopped) {
    return;
  }
  impl_->stopped = true;
  for (const auto& worker : impl_->workers) {
    worker->Post([&worker = *worker] { worker.Drain(); });
  }
  const auto deadline = std::chrono::steady_clock::now() + grace;
  while (counters().connections_open > 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kShutdownPoll);
  }
  for (const auto& worker : impl_->workers) {
    worker->Post([&worker = *worker] { worker.Cut(); });
  }
  for (std::thread& thread : impl_->threads) {
    thread.join();
  }
}

}  // namespace sallyport::edge

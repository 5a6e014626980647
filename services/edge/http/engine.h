// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "common/secret.h"
#include "services/edge/http/gateway.h"
#include "services/edge/http/process_memory.h"

namespace sallyport::edge {

struct EngineLimits {
  uint32_t connections = 10'000;  // Per process; beyond, nothing is accepted until one closes.
  uint64_t body_memory =
      256ull << 20;  // All bodies of the process that do not fit their connection's buffer; beyond, 503.
  uint64_t stream_backlog = 1ull << 20;  // Bytes of own events a client may leave unread before it is cut.
  std::chrono::milliseconds tls_handshake{5'000};
  std::chrono::milliseconds head{10'000};  // First byte to the whole head; 408.
  std::chrono::milliseconds keep_alive_idle{60'000};
  std::chrono::milliseconds keep_alive_age{3'600'000};  // And up to a tenth more.
  uint32_t keep_alive_requests = 10'000;
  std::chrono::milliseconds body_window{10'000};  // In each window a body must bring body_rate bytes a second; 408.
  uint32_t body_rate = 240;
  std::chrono::milliseconds write_stall{30'000};  // A client that takes nothing for so long is cut.
  std::chrono::milliseconds heartbeat{25'000};    // Silence on an event stream after which a comment goes out.
  std::chrono::milliseconds upstream_idle{4'000};
  std::chrono::milliseconds watch_client_after{5};
  std::chrono::milliseconds linger{
      2'000};  // Reading on after a refusal, so that the client sees it instead of a reset.
  uint32_t upstream_idle_connections = 1'024;  // Per worker.
};

// The HTTP proxy that opens tunnels to upstreams; Gateway::RouteTo says to which.
struct UpstreamProxy {
  std::string host;  // Name or literal address, without brackets.
  uint16_t port = 0;
  Secret authorization;  // Value of Proxy-Authorization; empty: none is sent.
};

struct EngineOptions {
  std::string listen;  // "127.0.0.1:8080", "[::]:8443"; port 0 picks one.
  size_t threads = 1;
  // PEM files; both empty: plain HTTP. Looked at every `certificate_check`; a broken new pair is reported and the old
  // one kept.
  std::string certificate;
  std::string private_key;
  std::chrono::milliseconds certificate_check{5'000};
  // PEM file of authorities for upstreams without a ClientTls of their own, in addition to the system's; may be empty.
  std::string upstream_ca_bundle;
  std::shared_ptr<const UpstreamProxy> proxy;  // Null: every connection is direct.
  EngineLimits limits;
  // How much memory there is and is used, asked every `memory_check` on one worker; near the limit the engine takes on
  // less (MemoryLevel). Empty: it does not look.
  std::function<MemoryReading()> memory;
  std::chrono::milliseconds memory_check{250};
  // Rare operational events (a certificate that does not load). Never a secret. May be empty; any worker thread calls
  // it.
  std::function<void(std::string_view)> log;
};

// Sums over all workers.
struct EngineCounters {
  uint64_t connections_accepted = 0;
  uint64_t connections_open = 0;
  uint64_t requests = 0;
  uint64_t rejected = 0;
  uint64_t upstream_connects = 0;
  uint64_t upstream_reuses = 0;
  uint64_t upstream_stale = 0;  // Pooled connections found closed, or with bytes nobody asked for, at use.
  uint64_t upstream_idle = 0;
  // Tunnels that were not opened: kProxyUnreachable and the errors after it, in their order.
  std::array<uint64_t, 5> proxy_failures{};
  uint64_t body_memory = 0;
  uint64_t heartbeats = 0;
  MemoryReading memory;  // As last sampled.
  MemoryLevel memory_level = MemoryLevel::kNormal;
  // Given up for want of memory.
  uint64_t memory_streams = 0;
  uint64_t memory_requests = 0;
  uint64_t memory_connections = 0;
};

// The HTTP/1.1 listener and client: one thread, io_context, acceptor (SO_REUSEPORT), buffer and connection pool per
// worker.
class Engine {
 public:
  // Binds and starts. `gateway` must outlive the engine. INVALID_ARGUMENT for a bad address or unusable certificate,
  // UNAVAILABLE if the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<Engine>> Start(const EngineOptions& options, Gateway& gateway);
  ~Engine();  // Shutdown(0).

  uint16_t port() const;
  size_t workers() const;
  Worker& worker(size_t index);
  EngineCounters counters() const;

  // Stops accepting, closes idle connections, lets exchanges end (each answers `Connection: close`) for at most
  // `grace`, then cuts the rest. Blocks. OnDone has been called for every exchange when it returns. Idempotent.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "common/mutex.h"
#include "services/edge/http/buffers.h"
#include "services/edge/http/engine.h"
#include "services/edge/http/poller.h"
#include "services/edge/http/process_memory.h"
#include "services/edge/http/resolver.h"
#include "services/edge/http/stream.h"
#include "services/edge/http/timer_wheel.h"
#include "services/edge/http/tls_context.h"
#include "services/edge/http/upstream_pool.h"

namespace sallyport::edge {

class Connection;

// What the workers share; touched at most once a connection.
struct EngineShared {
  explicit EngineShared(EngineOptions engine_options) : options(std::move(engine_options)) {}

  std::shared_ptr<SSL_CTX> ServerContext();
  // The trust for upstreams that bring none of their own; made on first use, since reading the system's authorities
  // takes long.
  std::shared_ptr<const ClientTls> DefaultClientTls();
  absl::Status LoadCertificate();
  // Loads the certificate anew if its files changed.
  void CheckCertificate();
  // Samples the memory and sets the level.
  void CheckMemory();

  const EngineOptions options;
  std::atomic<uint64_t> body_memory{0};
  std::atomic<uint32_t> connections{0};
  std::atomic<MemoryLevel> memory_level{MemoryLevel::kNormal};
  std::atomic<uint64_t> memory_limit{0};
  std::atomic<uint64_t> memory_used{0};

 private:
  Mutex mu_;
  std::shared_ptr<SSL_CTX> server_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const ClientTls> client_ ABSL_GUARDED_BY(mu_);
  std::string loaded_ ABSL_GUARDED_BY(mu_);  // Identity of the files as last tried.
};

// Written by one thread, read by any.
class Counter {
 public:
  void Add(uint64_t more = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }
  void Subtract(uint64_t less) {
    value_.store(value_.load(std::memory_order_relaxed) - less, std::memory_order_relaxed);
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct WorkerCounters {
  Counter accepted, open, requests, rejected, upstream_connects, upstream_reuses, upstream_stale, upstream_idle,
      heartbeats, memory_streams, memory_requests, memory_connections;
  std::array<Counter, 5> proxy_failures;
};

// One thread's world. Everything in it is used on that thread only, but Post.
class WorkerImpl final : public Worker {
 public:
  WorkerImpl(EngineShared& engine_shared, Gateway& the_gateway, size_t worker_index);
  ~WorkerImpl() override;

  // Takes a bound, listening, non-blocking socket.
  absl::Status Listen(int fd, bool v6);
  void Run();  // The thread's body; returns after Cut, when nothing is pending.

  size_t index() const override { return index_; }
  void Post(std::function<void()> task) override;
  void After(std::chrono::milliseconds delay, std::function<void()> task) override;

  // No more connections; idle ones close.
  void Drain();
  // Everything ends now.
  void Cut();
  bool draining() const { return draining_; }
  MemoryLevel memory_level() const { return shared.memory_level.load(std::memory_order_relaxed); }
  // Some of them, so that each look at the memory sees what the last ones brought.
  void CloseNewestIdle();

  // The time as of the current event; Touch reads the clock.
  Millis now() const { return now_; }
  void Touch();
  std::chrono::steady_clock::time_point time() const { return time_; }
  // "Date: …\r\n"
  const std::string& date();

  // Calls connection.StartWatching() after `watch_client_after`, unless unwatched before.
  void Watch(Connection& connection);
  void Unwatch(Connection& connection);
  void SetTimer(Timer& timer, Millis deadline);
  void ClearTimer(Timer& timer) { wheel_.Clear(timer); }

  void CountProxyFailure(UpstreamError error);
  void Recycle(Connection& connection);

  IoContext io;  // First: everything below has pending operations in it.
  EngineShared& shared;
  const EngineLimits& limits;
  const UpstreamProxy* const proxy;  // Null: none.
  Gateway& gateway;
  WorkerCounters counters;
  Pool<RequestBuffer> request_buffers{256};
  Pool<ResponseBuffer> response_buffers{256};
  Poller poller;
  Resolver resolver;
  UpstreamPool upstreams;
  std::string scratch;  // For rendering a head that is sent at once.

 private:
  struct Task;
  using SteadyTimer =
      boost::asio::basic_waitable_timer<std::chrono::steady_clock, boost::asio::wait_traits<std::chrono::steady_clock>,
                                        IoContext::executor_type>;

  void WaitAccept();
  void Accept();
  void PauseAccept();
  void WaitTick();
  void Tick();
  void WaitWatchTick();
  void TickWatched();
  void CheckCertificateLater();
  void RemoveTask(Task& task);

  const size_t index_;
  TimerWheel wheel_;
  SteadyTimer tick_;
  SteadyTimer watch_tick_;
  bool ticking_ = false;
  bool watch_ticking_ = false;
  boost::asio::basic_socket_acceptor<Tcp, IoContext::executor_type> acceptor_;
  boost::asio::executor_work_guard<IoContext::executor_type> work_;
  bool draining_ = false;
  bool cut_ = false;
  Millis now_ = 0;
  std::chrono::steady_clock::time_point time_;
  std::string date_;
  Millis date_made_ = -1'000'000;
  Millis proxy_reported_ = -1'000'000;
  Connection* watched_first_ = nullptr;  // In order of when they began to wait.
  Connection* watched_last_ = nullptr;
  std::vector<std::unique_ptr<Connection>> connections_;  // All ever made; never destroyed before the worker.
  std::vector<Connection*> free_connections_;
  std::list<std::unique_ptr<Task>> tasks_;
};

}  // namespace sallyport::edge

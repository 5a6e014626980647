// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/worker.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "common/file_identity.h"
#include "common/text/string_view.h"
#include "services/edge/http/connection.h"

namespace sallyport::edge {
namespace {

constexpr int kAcceptsAtOnce = 16;
constexpr size_t kIdleClosedAtOnce = 16;  // Or an eighth of them, if that is more.
constexpr Millis kBetweenProxyReports = 10'000;

NetworkAddress FromSockaddr(const sockaddr_storage& storage) {
  NetworkAddress address;
  if (storage.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
    address.bytes[10] = address.bytes[11] = 0xff;
    std::memcpy(address.bytes.data() + 12, &v4.sin_addr, 4);
    address.port = ntohs(v4.sin_port);
  } else {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
    std::memcpy(address.bytes.data(), &v6.sin6_addr, 16);
    address.port = ntohs(v6.sin6_port);
  }
  return address;
}

}  // namespace

std::shared_ptr<SSL_CTX> EngineShared::ServerContext() {
  if (options.certificate.empty()) {
    return nullptr;
  }
  MutexLock lock(mu_);
  return server_;
}

std::shared_ptr<const ClientTls> EngineShared::DefaultClientTls() {
  MutexLock lock(mu_);
  if (client_ == nullptr) {
    ClientTls::Options tls;
    if (!options.upstream_ca_bundle.empty()) {
      std::stringstream pem;
      pem << std::ifstream(options.upstream_ca_bundle).rdbuf();
      tls.ca_pem = pem.str();
    }
    auto made = ClientTls::Make(tls);
    if (!made.ok()) {
      if (options.log) {
        options.log(std::string(made.status().message()));
      }
      return nullptr;
    }
    client_ = *std::move(made);
  }
  return client_;
}

absl::Status EngineShared::LoadCertificate() {
  MutexLock lock(mu_);
  loaded_ = absl::StrCat(FileIdentity(options.certificate), "/", FileIdentity(options.private_key));
  auto context = MakeServerContext(options.certificate, options.private_key);
  if (!context.ok()) {
    return context.status();
  }
  server_ = *std::move(context);
  return absl::OkStatus();
}

void EngineShared::CheckCertificate() {
  {
    MutexLock lock(mu_);
    if (loaded_ == absl::StrCat(FileIdentity(options.certificate), "/", FileIdentity(options.private_key))) {
      return;
    }
  }
  const absl::Status status = LoadCertificate();
  if (options.log) {
    options.log(status.ok() ? "certificate reloaded"
                            : "certificate not reloaded, the old one stays: " + std::string(status.message()));
  }
}

void EngineShared::CheckMemory() {
  const MemoryReading reading = options.memory();
  const MemoryLevel before = memory_level.load(std::memory_order_relaxed);
  const MemoryLevel level = NextMemoryLevel(before, reading);
  memory_limit.store(reading.limit, std::memory_order_relaxed);
  memory_used.store(reading.used, std::memory_order_relaxed);
  memory_level.store(level, std::memory_order_relaxed);
  if (level > before || level >= MemoryLevel::kNoRequests) {
    ReturnFreeMemory();
  }
  if (level != before && options.log) {
    options.log(absl::StrCat("memory level ", static_cast<int>(level), ": ", reading.used, " of ", reading.limit,
                             " bytes in use"));
  }
}

struct WorkerImpl::Task final : Timer {
  explicit Task(WorkerImpl& task_worker) : worker(task_worker) {}
  void OnTimer() override {
    const std::function<void()> run = std::move(task);
    worker.RemoveTask(*this);
    run();
  }
  WorkerImpl& worker;
  std::function<void()> task;
  std::list<std::unique_ptr<Task>>::iterator self;
};

WorkerImpl::WorkerImpl(EngineShared& engine_shared, Gateway& the_gateway, size_t worker_index)
    : io(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE_IO),  // One thread runs it; others only post.
      shared(engine_shared),
      limits(engine_shared.options.limits),
      proxy(engine_shared.options.proxy.get()),
      gateway(the_gateway),
      poller(io),
      resolver(io),
      upstreams(*this),
      index_(worker_index),
      wheel_(std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
                 .count()),
      tick_(io.get_executor()),
      watch_tick_(io.get_executor()),
      acceptor_(io.get_executor()),
      work_(boost::asio::make_work_guard(io)) {
  Touch();
}

WorkerImpl::~WorkerImpl() = default;

absl::Status WorkerImpl::Listen(int fd, bool v6) {
  if (!poller.ok()) {
    ::close(fd);
    return absl::UnavailableError("listen: the kernel gives no epoll instance");
  }
  boost::system::error_code error;
  acceptor_.assign(v6 ? Tcp::v6() : Tcp::v4(), fd, error);
  if (error) {
    ::close(fd);
    return absl::UnavailableError("listen: socket refused by the event loop");
  }
  WaitAccept();
  if (index_ == 0 && !shared.options.certificate.empty()) {
    CheckCertificateLater();
  }
  return absl::OkStatus();
}

void WorkerImpl::CheckCertificateLater() {
  After(shared.options.certificate_check, [this] {
    shared.CheckCertificate();
    CheckCertificateLater();
  });
}

void WorkerImpl::Run() {
  gateway.OnWorkerStart(*this);
  io.run();
  gateway.OnWorkerStop(*this);
}

void WorkerImpl::Post(std::function<void()> task) {
  boost::asio::post(io, [this, task = std::move(task)] {
    Touch();
    task();
  });
}

void WorkerImpl::After(std::chrono::milliseconds delay, std::function<void()> task) {
  if (cut_) {
    return;
  }
  auto made = std::make_unique<Task>(*this);
  Task& waiting = *made;
  waiting.task = std::move(task);
  waiting.self = tasks_.insert(tasks_.end(), std::move(made));
  SetTimer(waiting, now_ + delay.count());
}

void WorkerImpl::RemoveTask(Task& task) { tasks_.erase(task.self); }

void WorkerImpl::Touch() {
  time_ = std::chrono::steady_clock::now();
  now_ = std::chrono::duration_cast<std::chrono::milliseconds>(time_.time_since_epoch()).count();
}

const std::string& WorkerImpl::date() {
  if (now_ - date_made_ >= 1'000) {
    const std::time_t seconds = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&seconds, &parts);
    char text[48];
    // Not strftime's %a and %b: they follow the locale.
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    std::strftime(text, sizeof(text), "%Y %H:%M:%S GMT\r\n", &parts);
    date_ = absl::StrCat("Date: ", kDays[parts.tm_wday], ", ", absl::Dec(parts.tm_mday, absl::kZeroPad2), " ",
                         kMonths[parts.tm_mon], " ", text);
    date_made_ = now_;
  }
  return date_;
}

void WorkerImpl::SetTimer(Timer& timer, Millis deadline) {
  wheel_.Set(timer, deadline);
  WaitTick();
}

void WorkerImpl::WaitTick() {
  if (ticking_ || cut_ || wheel_.empty()) {
    return;
  }
  ticking_ = true;
  tick_.expires_after(std::chrono::milliseconds(TimerWheel::kTick));
  tick_.async_wait([this](const boost::system::error_code& error) {
    ticking_ = false;
    if (!error) {
      Tick();
    }
  });
}

void WorkerImpl::Tick() {
  Touch();
  wheel_.Advance(now_);
  WaitTick();
}

void WorkerImpl::Watch(Connection& connection) {
  if (connection.watched) {
    return;
  }
  connection.watched = true;
  connection.watch_since = now_;
  connection.watch_next = nullptr;
  connection.watch_previous = watched_last_;
  (watched_last_ == nullptr ? watched_first_ : watched_last_->watch_next) = &connection;
  watched_last_ = &connection;
  WaitWatchTick();
}

void WorkerImpl::WaitWatchTick() {
  if (watch_ticking_ || cut_ || watched_first_ == nullptr) {
    return;
  }
  watch_ticking_ = true;
  watch_tick_.expires_after(limits.watch_client_after);
  watch_tick_.async_wait([this](const boost::system::error_code& error) {
    watch_ticking_ = false;
    if (!error) {
      TickWatched();
    }
  });
}

void WorkerImpl::Unwatch(Connection& connection) {
  if (!connection.watched) {
    return;
  }
  connection.watched = false;
  (connection.watch_previous == nullptr ? watched_first_ : connection.watch_previous->watch_next) =
      connection.watch_next;
  (connection.watch_next == nullptr ? watched_last_ : connection.watch_next->watch_previous) =
      connection.watch_previous;
}

void WorkerImpl::TickWatched() {
  Touch();
  while (watched_first_ != nullptr && now_ - watched_first_->watch_since >= limits.watch_client_after.count()) {
    Connection& connection = *watched_first_;
    Unwatch(connection);
    connection.StartWatching();
  }
  WaitWatchTick();
}

void WorkerImpl::WaitAccept() {
  acceptor_.async_wait(Tcp::acceptor::wait_read, [this](const boost::system::error_code& error) {
    if (!error && !draining_) {
      Touch();
      Accept();
    }
  });
}

void WorkerImpl::Accept() {
  if (memory_level() >= MemoryLevel::kNoConnections) {
    PauseAccept();
    return;
  }
  for (int i = 0; i < kAcceptsAtOnce; ++i) {
    if (shared.connections.fetch_add(1, std::memory_order_relaxed) >= limits.connections) {
      shared.connections.fetch_sub(1, std::memory_order_relaxed);
      PauseAccept();
      return;
    }
    sockaddr_storage peer{};
    socklen_t size = sizeof(peer);
    const int fd =
        ::accept4(acceptor_.native_handle(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      shared.connections.fetch_sub(1, std::memory_order_relaxed);
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        PauseAccept();
        return;
      }
      break;
    }
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (free_connections_.empty()) {
      connections_.push_back(std::make_unique<Connection>(*this));
      free_connections_.push_back(connections_.back().get());
    }
    Connection& connection = *free_connections_.back();
    free_connections_.pop_back();
    counters.accepted.Add();
    counters.open.Add();
    connection.Start(fd, FromSockaddr(peer));
  }
  WaitAccept();
}

void WorkerImpl::PauseAccept() {
  After(std::chrono::milliseconds(TimerWheel::kTick), [this] {
    if (!draining_) {
      Accept();
    }
  });
}

void WorkerImpl::CountProxyFailure(UpstreamError error) {
  counters.proxy_failures.at(static_cast<size_t>(error) - static_cast<size_t>(UpstreamError::kProxyUnreachable)).Add();
  if (shared.options.log && now_ - proxy_reported_ >= kBetweenProxyReports) {
    proxy_reported_ = now_;
    shared.options.log(absl::StrCat("the egress proxy opened no connection: ", ToAbsl(UpstreamErrorName(error)),
                                    error == UpstreamError::kProxyUnauthorized
                                        ? "; check username and passwordFile of deployment.egress.proxy"
                                        : ""));
  }
}

void WorkerImpl::Recycle(Connection& connection) {
  counters.open.Subtract(1);
  shared.connections.fetch_sub(1, std::memory_order_relaxed);
  free_connections_.push_back(&connection);
}

void WorkerImpl::Drain() {
  draining_ = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  for (const auto& connection : connections_) {
    connection->CloseIdle();
  }
  upstreams.CloseIdle();
}

void WorkerImpl::CloseNewestIdle() {
  std::vector<Connection*> idle;
  for (const auto& connection : connections_) {
    if (connection->idle()) {
      idle.push_back(connection.get());
    }
  }
  const size_t most = std::min(idle.size(), std::max(kIdleClosedAtOnce, idle.size() / 8));
  std::partial_sort(idle.begin(), idle.begin() + static_cast<ptrdiff_t>(most), idle.end(),
                    [](const Connection* a, const Connection* b) { return a->opened() > b->opened(); });
  for (size_t i = 0; i < most; ++i) {
    counters.memory_connections.Add();
    idle[i]->CloseIdle();
  }
}

void WorkerImpl::Cut() {
  cut_ = true;
  for (const auto& connection : connections_) {
    connection->Cut();
  }
  upstreams.CloseIdle();
  poller.Stop();
  resolver.Cancel();
  tasks_.clear();
  tick_.cancel();
  watch_tick_.cancel();
  work_.reset();
}

}  // namespace sallyport::edge

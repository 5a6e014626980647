// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/acceptor.h"

#include <algorithm>
#include <cerrno>
#include <poll.h>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/json_log.h"
#include "common/listen.h"
#include "common/metrics.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

// How many are accepted from one port before the others, and Stop, have their turn.
constexpr int kTurn = 64;
constexpr int kShortPauseMs = 100;
constexpr absl::Duration kLogInterval = absl::Minutes(1);

constexpr CounterInfo kRefused = {
    .name = "sallyport_rpc_connections_refused_total",
    .help = "gRPC connections closed at once because the process is short of file descriptors",
    .unit = "connections",
    .labels = {{"reason", "file_limit (three quarters of the open files are in use), exhausted (all are)"}},
    .rise = "Somebody opens connections without end: a client that leaks them, or a stranger who reaches the port",
    .action = "Find out who (ss -tn), close the port to strangers, or raise the limit of open files",
};

prometheus::Counter& Refused(const char* reason) { return MetricCounter(kRefused, {{"reason", reason}}); }

bool IsShortage(int error) { return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM; }

}  // namespace

struct Acceptor::State {
  std::vector<Fd> listeners;
  Fd stop;
  // Given up for the moment it takes to accept and close a connection when no other descriptor is left: otherwise the
  // callers in the queue would wait for an answer, and poll would report them for ever.
  Fd spare;
  rlim_t limit = 0;
  int highest = 0;  // A descriptor from here on says that as many are open: the kernel gives out the lowest.
  int port = 0;
  Take take;
  std::thread thread;
  SystemClock clock;
  absl::Time last_log = absl::InfinitePast();
  prometheus::Counter& over_share = Refused("file_limit");
  prometheus::Counter& exhausted = Refused("exhausted");

  void Run();
  bool Pause(int milliseconds) const;
  void AcceptFrom(const Fd& listener);
  void Refuse(prometheus::Counter& reason);
  // 0, or what stopped it: EAGAIN when no connection waits.
  int TurnAway(const Fd& listener);
};

// True when it is time to end.
bool Acceptor::State::Pause(int milliseconds) const {
  pollfd stopped = {stop.get(), POLLIN, 0};
  return poll(&stopped, 1, milliseconds) > 0;
}

void Acceptor::State::Refuse(prometheus::Counter& reason) {
  reason.Increment();
  const absl::Time now = clock.Now();
  if (now - last_log >= kLogInterval) {
    last_log = now;
    Log(LogLevel::kWarning, "rpc_connections_refused",
        {{"port", port},
         {"file_limit", static_cast<uint64_t>(limit)},
         {"remedy", "find out who opens so many connections, or raise LimitNOFILE or ulimit -n"}});
  }
}

int Acceptor::State::TurnAway(const Fd& listener) {
  spare = Fd();
  Fd connection(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const int error = connection.get() >= 0 ? 0 : errno;
  // Before its caller can know of it.
  if (error == 0) {
    Refuse(exhausted);
  }
  connection = Fd();
  spare = Fd(eventfd(0, EFD_CLOEXEC));
  return error;
}

void Acceptor::State::AcceptFrom(const Fd& listener) {
  for (int i = 0; i < kTurn; ++i) {
    Fd connection(accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (connection.get() >= highest) {
      Refuse(over_share);
    } else if (connection.get() >= 0) {
      const int on = 1;
      setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      take(listener.get(), connection.Release());
    } else if (errno == EAGAIN) {
      return;
    } else if (IsShortage(errno)) {
      // With no descriptor left accept(2) does not look whether a connection waits at all.
      const int error = TurnAway(listener);
      if (IsShortage(error)) {
        Pause(kShortPauseMs);
      }
      if (error != 0) {
        return;
      }
    }
    // Anything else is the fault of one connection (accept(2), "Error handling"): the next one may be good.
  }
}

void Acceptor::State::Run() {
  std::vector<pollfd> polled;
  for (const Fd& listener : listeners) {
    polled.push_back({listener.get(), POLLIN, 0});
  }
  polled.push_back({stop.get(), POLLIN, 0});
  for (;;) {
    if (poll(polled.data(), polled.size(), -1) < 0) {
      if (errno != EINTR && Pause(kShortPauseMs)) {
        return;
      }
      continue;
    }
    if (polled.back().revents != 0) {
      return;
    }
    for (size_t i = 0; i < listeners.size(); ++i) {
      if (polled[i].revents != 0) {
        AcceptFrom(listeners[i]);
      }
    }
  }
}

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Listen(const std::string& address, const std::string& field,
                                                           int percent) {
  std::unique_ptr<Acceptor> acceptor(new Acceptor);
  acceptor->state_ = std::make_unique<State>();
  State& state = *acceptor->state_;
  ASSIGN_OR_RETURN(state.listeners, ListenOn(address, field, ListenMode::kAll, SOMAXCONN));
  state.port = PortOf(state.listeners.front());
  state.stop = Fd(eventfd(0, EFD_CLOEXEC));
  state.spare = Fd(eventfd(0, EFD_CLOEXEC));
  if (state.stop.get() < 0 || state.spare.get() < 0) {
    return absl::UnavailableError("no file descriptor is left: raise LimitNOFILE or ulimit -n");
  }
  rlimit files = {};
  getrlimit(RLIMIT_NOFILE, &files);
  // The kernel has no more than 2^30 (fs.nr_open).
  state.limit = std::min<rlim_t>(files.rlim_cur, rlim_t{1} << 30);
  state.highest = static_cast<int>(state.limit * static_cast<rlim_t>(percent) / 100);
  return acceptor;
}

Acceptor::~Acceptor() {
  if (state_ != nullptr) {
    Stop();
  }
}

int Acceptor::port() const { return state_->port; }

void Acceptor::Start(Take take) {
  state_->take = std::move(take);
  state_->thread = std::thread([state = state_.get()] { state->Run(); });
}

void Acceptor::Stop() {
  if (state_->thread.joinable()) {
    const uint64_t one = 1;
    (void)!write(state_->stop.get(), &one, sizeof(one));
    state_->thread.join();
  }
  state_->listeners.clear();
}

}  // namespace sallyport

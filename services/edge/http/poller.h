// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include <boost/asio.hpp>

namespace sallyport::edge {

using IoContext = boost::asio::io_context;

class Stream;

// Tells streams when their sockets become readable or writable. Each socket is registered with epoll once,
// edge-triggered and for both directions, and the stream remembers what it was told: waiting for the next message costs
// no system call, where Asio's async_wait takes one (epoll_ctl) each time. One thread's, like the IoContext, which runs
// it.
class Poller {
 public:
  explicit Poller(IoContext& io);
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // False if the kernel has refused what it needs; then nothing can be added.
  bool ok() const { return epoll_ >= 0; }
  // A registered socket; kNone is none.
  using Ticket = uint32_t;
  static constexpr Ticket kNone = UINT32_MAX;
  // Calls stream.OnReady from now on, at first with what the socket is ready for already. kNone if that failed.
  Ticket Add(int fd, Stream& stream);
  // Before the socket is closed. What it was ready for is not told any more.
  void Remove(Ticket ticket);
  // Lets the IoContext run out of work once the last socket is removed.
  void Stop();

 private:
  struct Slot {
    Stream* stream = nullptr;
    uint32_t generation = 0;  // Tells events of a socket that is gone from those of the one that has its slot now.
  };
  void Wait();
  void Dispatch();
  void StopIfUnused();

  int epoll_;
  boost::asio::posix::basic_stream_descriptor<IoContext::executor_type> descriptor_;  // Owns epoll_.
  std::vector<Slot> slots_;
  std::vector<Ticket> free_;
  bool stopping_ = false;
};

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/poller.h"

#include <array>
#include <unistd.h>

#include <sys/epoll.h>

#include "services/edge/http/stream.h"

namespace sallyport::edge {
namespace {

constexpr int kEventsAtOnce = 128;
constexpr uint32_t kReadable = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR;
constexpr uint32_t kWritable = EPOLLOUT | EPOLLHUP | EPOLLERR;
constexpr uint32_t kEnded = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

}  // namespace

Poller::Poller(IoContext& io) : epoll_(::epoll_create1(EPOLL_CLOEXEC)), descriptor_(io.get_executor()) {
  if (epoll_ < 0) {
    return;
  }
  boost::system::error_code error;
  descriptor_.assign(epoll_, error);
  if (error) {
    ::close(epoll_);
    epoll_ = -1;
    return;
  }
  Wait();
}

Poller::~Poller() = default;

Poller::Ticket Poller::Add(int fd, Stream& stream) {
  if (free_.empty()) {
    free_.push_back(static_cast<Ticket>(slots_.size()));
    slots_.emplace_back();
  }
  const Ticket ticket = free_.back();
  Slot& slot = slots_[ticket];
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.u64 = (uint64_t{slot.generation} << 32) | ticket;
  if (epoll_ < 0 || ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
    return kNone;
  }
  slot.stream = &stream;
  free_.pop_back();
  return ticket;
}

void Poller::Remove(Ticket ticket) {
  slots_[ticket].stream = nullptr;
  ++slots_[ticket].generation;
  free_.push_back(ticket);
  StopIfUnused();
}

void Poller::Stop() {
  stopping_ = true;
  StopIfUnused();
}

void Poller::StopIfUnused() {
  if (stopping_ && free_.size() == slots_.size()) {
    boost::system::error_code ignored;
    descriptor_.cancel(ignored);
  }
}

void Poller::Wait() {
  descriptor_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                         [this](const boost::system::error_code& error) {
                           if (error) {
                             return;
                           }
                           Dispatch();
                           if (!stopping_ || free_.size() < slots_.size()) {
                             Wait();  // At once, if more events are there than were taken.
                           }
                         });
}

void Poller::Dispatch() {
  std::array<epoll_event, kEventsAtOnce> events;
  const int count = ::epoll_wait(epoll_, events.data(), kEventsAtOnce, 0);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    // Copied: what a stream does now may add a slot, or take this one.
    const Slot slot = slots_[static_cast<Ticket>(event.data.u64)];
    if (slot.stream != nullptr && slot.generation == event.data.u64 >> 32) {
      slot.stream->OnReady((event.events & kReadable) != 0, (event.events & kWritable) != 0,
                           (event.events & kEnded) != 0);
    }
  }
}

}  // namespace sallyport::edge

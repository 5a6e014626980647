// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/stream.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <poll.h>
#include <unistd.h>

#include <openssl/err.h>
#include <sys/socket.h>

namespace sallyport::edge {
namespace {

constexpr size_t kTlsRecord = 16 * 1024;

// One TLS record is cheaper than several: head and body go into one.
std::string_view Coalesce(const iovec* parts, size_t count) {
  if (count == 1) {
    return {static_cast<const char*>(parts[0].iov_base), parts[0].iov_len};
  }
  static thread_local char record[kTlsRecord];
  size_t size = 0;
  for (size_t i = 0; i < count && size < sizeof(record); ++i) {
    const size_t piece = std::min(parts[i].iov_len, sizeof(record) - size);
    std::memcpy(record + size, parts[i].iov_base, piece);
    size += piece;
  }
  return {record, size};
}

}  // namespace

template <typename T>
struct Stream::PostAllocator {
  using value_type = T;
  PostMemory* memory;

  explicit PostAllocator(PostMemory* post_memory) : memory(post_memory) {}
  template <typename U>
  PostAllocator(const PostAllocator<U>& other)  // NOLINT(google-explicit-constructor): an allocator must convert.
      : memory(other.memory) {}
  T* allocate(size_t count) {
    const size_t size = count * sizeof(T);
    if (!memory->taken && size <= PostMemory::kBytes) {
      memory->taken = true;
      return reinterpret_cast<T*>(memory->bytes);
    }
    return static_cast<T*>(::operator new(size));
  }
  void deallocate(T* pointer, size_t /*count*/) {
    if (reinterpret_cast<unsigned char*>(pointer) == memory->bytes) {
      memory->taken = false;
    } else {
      ::operator delete(pointer);
    }
  }
  template <typename U>
  bool operator==(const PostAllocator<U>& other) const {
    return memory == other.memory;
  }
};

struct Stream::PostHandler {
  using allocator_type = PostAllocator<char>;
  Stream* stream;
  Direction direction;

  allocator_type get_allocator() const { return allocator_type(&stream->memory_[direction]); }
  void operator()() const { stream->OnPosted(direction); }
};

Stream::~Stream() {
  if (open_) {
    poller_.Remove(ticket_);
    ::close(fd_);
  }
}

bool Stream::Open(int fd) {
  ticket_ = poller_.Add(fd, *this);
  if (ticket_ == Poller::kNone) {
    return false;
  }
  fd_ = fd;
  open_ = true;
  ended_ = alerted_ = false;
  ready_[kReading] = ready_[kWriting] = false;
  crossed_[kReading] = crossed_[kWriting] = false;
  return true;
}

bool Stream::StartTls(SSL_CTX* context, bool server) {
  ssl_.reset(SSL_new(context));
  if (ssl_ == nullptr || SSL_set_fd(ssl_.get(), fd_) != 1) {
    return false;
  }
  SSL_set_mode(ssl_.get(),
               SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  if (server) {
    SSL_set_accept_state(ssl_.get());
  } else {
    SSL_set_connect_state(ssl_.get());
  }
  return true;
}

ssize_t Stream::TlsResult(Direction direction, int result) {
  if (result > 0) {
    return result;
  }
  const int error = SSL_get_error(ssl_.get(), result);
  const unsigned long reason = ERR_peek_last_error();
  alerted_ = alerted_ || (error == SSL_ERROR_SSL && ERR_GET_LIB(reason) == ERR_LIB_SSL &&
                          ERR_GET_REASON(reason) >= SSL_AD_REASON_OFFSET);
  ERR_clear_error();
  if (error == SSL_ERROR_WANT_READ) {
    ready_[kReading] = false;
  } else if (error == SSL_ERROR_WANT_WRITE) {
    ready_[kWriting] = false;
  }
  crossed_[direction] = error == (direction == kReading ? SSL_ERROR_WANT_WRITE : SSL_ERROR_WANT_READ);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
    return kAgain;
  }
  return error == SSL_ERROR_ZERO_RETURN && direction == kReading ? 0 : kFailed;
}

ssize_t Stream::Handshake() {
  ERR_clear_error();
  return TlsResult(kReading, SSL_do_handshake(ssl_.get()));
}

ssize_t Stream::Read(char* data, size_t size) {
  if (ssl_ != nullptr) {
    ERR_clear_error();
    const ssize_t taken =
        TlsResult(kReading, SSL_read(ssl_.get(), data, static_cast<int>(std::min(size, size_t{1} << 30))));
    // What TLS has taken from the socket makes no socket readable.
    ready_[kReading] = ready_[kReading] || (taken > 0 && SSL_has_pending(ssl_.get()) == 1);
    return taken;
  }
  ssize_t result = 0;
  do {
    result = ::recv(fd_, data, size, MSG_DONTWAIT);
  } while (result < 0 && errno == EINTR);
  return PlainResult(kReading, result, size);
}

ssize_t Stream::PlainResult(Direction direction, ssize_t result, size_t asked) {
  if (result < 0) {
    if (errno != EAGAIN) {
      return kFailed;
    }
    ready_[direction] = false;
    return kAgain;
  }
  // Less than asked for: the kernel has no more, and the poller tells of what comes (epoll(7)). Of an end it has told
  // already.
  if (static_cast<size_t>(result) < asked && !ended_) {
    ready_[direction] = false;
  }
  return result;
}

ssize_t Stream::Write(const iovec* parts, size_t count) {
  if (ssl_ != nullptr) {
    const std::string_view record = Coalesce(parts, count);
    ERR_clear_error();
    return TlsResult(kWriting,
                     SSL_write(ssl_.get(), record.data(), static_cast<int>(std::min(record.size(), size_t{1} << 30))));
  }
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts);  // NOLINT: sendmsg does not write to it.
  message.msg_iovlen = count;
  ssize_t result = 0;
  do {
    result = ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (result < 0 && errno == EINTR);
  size_t asked = 0;
  for (size_t i = 0; i < count; ++i) {
    asked += parts[i].iov_len;
  }
  return PlainResult(kWriting, result, asked);
}

void Stream::WaitRead() { Wait(kReading); }

void Stream::WaitWrite() { Wait(kWriting); }

void Stream::Wait(Direction direction) {
  if (waiting_[direction] || !open_) {
    return;
  }
  waiting_[direction] = true;
  const Direction needed = NeededFor(direction);
  // Of TLS a read seldom tells that the socket is empty, and the owner must not be called for nothing.
  if (ready_[needed] && (ssl_ == nullptr || needed != kReading || PeekReadable())) {
    Post(direction);  // Not at once: our caller is in the middle of its work.
  }
}

void Stream::OnReady(bool readable, bool writable, bool ended) {
  ended_ = ended_ || ended;
  ready_[kReading] = ready_[kReading] || readable;
  ready_[kWriting] = ready_[kWriting] || writable;
  Deliver(kReading);
  Deliver(kWriting);
}

void Stream::Deliver(Direction direction) {
  const Direction needed = NeededFor(direction);
  if (!open_ || !waiting_[direction] || posted_[direction] || !ready_[needed]) {
    return;
  }
  waiting_[direction] = false;
  if (direction == kReading) {
    owner_.OnReadable();
  } else {
    owner_.OnWritable();
  }
}

void Stream::Post(Direction direction) {
  if (!posted_[direction]) {
    posted_[direction] = true;
    boost::asio::post(io_, PostHandler{this, direction});
  }
}

void Stream::OnPosted(Direction direction) {
  posted_[direction] = false;
  if (open_) {
    Deliver(direction);
  } else if (!posted_[kReading] && !posted_[kWriting]) {
    owner_.OnClosed();
  }
}

bool Stream::PeekReadable() {
  if (ssl_ != nullptr && SSL_has_pending(ssl_.get()) == 1) {
    return true;
  }
  char byte = 0;
  if (::recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN) {
    ready_[kReading] = false;
    return false;
  }
  return true;
}

bool Stream::PeerGone() const {
  pollfd poll{fd_, POLLRDHUP, 0};
  return ::poll(&poll, 1, 0) > 0;
}

int Stream::ConnectError() const {
  int error = 0;
  socklen_t size = sizeof(error);
  return ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

void Stream::ShutdownSend() {
  if (ssl_ != nullptr && SSL_is_init_finished(ssl_.get()) == 1) {
    ERR_clear_error();
    SSL_shutdown(ssl_.get());
    ERR_clear_error();
  }
  ::shutdown(fd_, SHUT_WR);
}

void Stream::ResetOnClose() {
  const linger reset{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

void Stream::Close() {
  if (!open_) {
    return;
  }
  open_ = false;
  waiting_[kReading] = waiting_[kWriting] = false;
  ssl_.reset();
  poller_.Remove(ticket_);
  ::close(fd_);
  fd_ = -1;
  if (!posted_[kReading]) {
    Post(kWriting);  // Not at once: our caller is still using the owner.
  }
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/stream.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <poll.h>

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
struct Stream::WaitAllocator {
  using value_type = T;
  WaitMemory* memory;

  explicit WaitAllocator(WaitMemory* wait_memory) : memory(wait_memory) {}
  template <typename U>
  WaitAllocator(const WaitAllocator<U>& other)  // NOLINT(google-explicit-constructor): an allocator must convert.
      : memory(other.memory) {}
  T* allocate(size_t count) {
    const size_t size = count * sizeof(T);
    if (!memory->taken && size <= WaitMemory::kBytes) {
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
  bool operator==(const WaitAllocator<U>& other) const {
    return memory == other.memory;
  }
};

struct Stream::WaitHandler {
  using allocator_type = WaitAllocator<char>;
  Stream* stream;
  Direction direction;

  allocator_type get_allocator() const { return allocator_type(&stream->memory_[direction]); }
  void operator()(const boost::system::error_code& error) const { stream->OnWait(direction, !error); }
};

bool Stream::Open(int fd, bool v6) {
  boost::system::error_code error;
  socket_.assign(v6 ? Tcp::v6() : Tcp::v4(), fd, error);
  if (error) {
    return false;
  }
  fd_ = fd;
  open_ = true;
  drained_ = true;
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
  ERR_clear_error();
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
    const ssize_t result =
        TlsResult(kReading, SSL_read(ssl_.get(), data, static_cast<int>(std::min(size, size_t{1} << 30))));
    drained_ = result == kAgain;
    return result;
  }
  while (true) {
    const ssize_t result = ::recv(fd_, data, size, MSG_DONTWAIT);
    if (result >= 0) {
      return result;
    }
    if (errno != EINTR) {
      return errno == EAGAIN ? kAgain : kFailed;
    }
  }
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
  while (true) {
    const ssize_t result = ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (result >= 0) {
      return result;
    }
    if (errno != EINTR) {
      return errno == EAGAIN ? kAgain : kFailed;
    }
  }
}

void Stream::WaitRead() {
  if (waiting_[kReading] || !open_) {
    return;
  }
  if (ssl_ != nullptr && !drained_ && SSL_has_pending(ssl_.get()) == 1) {
    // Bytes that TLS has already taken from the socket make no socket readable.
    waiting_[kReading] = true;
    boost::asio::post(socket_.get_executor(), [this] { OnWait(kReading, true); });
    return;
  }
  Wait(kReading, crossed_[kReading] ? TcpSocket::wait_write : TcpSocket::wait_read);
}

void Stream::WaitWrite() {
  if (!waiting_[kWriting] && open_) {
    Wait(kWriting, crossed_[kWriting] ? TcpSocket::wait_read : TcpSocket::wait_write);
  }
}

void Stream::Wait(Direction direction, boost::asio::socket_base::wait_type type) {
  waiting_[direction] = true;
  socket_.async_wait(type, WaitHandler{this, direction});
}

void Stream::OnWait(Direction direction, bool ok) {
  waiting_[direction] = false;
  if (!open_) {
    ReportClosed();
  } else if (!ok) {
    return;
  } else if (direction == kReading) {
    owner_.OnReadable();
  } else {
    owner_.OnWritable();
  }
}

void Stream::ReportClosed() {
  if (!waiting_[kReading] && !waiting_[kWriting]) {
    owner_.OnClosed();
  }
}

bool Stream::PeekReadable() const {
  if (ssl_ != nullptr && SSL_has_pending(ssl_.get()) == 1) {
    return true;
  }
  char byte = 0;
  return !(::recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN);
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
  ssl_.reset();
  boost::system::error_code ignored;
  socket_.close(ignored);
  fd_ = -1;
  if (!waiting_[kReading] && !waiting_[kWriting]) {
    // Not at once: our caller is still using the owner.
    waiting_[kWriting] = true;
    boost::asio::post(socket_.get_executor(), [this] { OnWait(kWriting, false); });
  }
}

}  // namespace sallyport::edge

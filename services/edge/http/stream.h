// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include <boost/asio.hpp>
#include <openssl/ssl.h>
#include <sys/types.h>
#include <sys/uio.h>

namespace sallyport::edge {

using IoContext = boost::asio::io_context;
using Tcp = boost::asio::ip::tcp;
using TcpSocket = boost::asio::basic_stream_socket<Tcp, IoContext::executor_type>;

class StreamOwner {
 public:
  virtual void OnReadable() = 0;
  virtual void OnWritable() = 0;
  // After Close, once nothing of the stream is pending any more; the owner may then be reused or destroyed.
  virtual void OnClosed() = 0;

 protected:
  ~StreamOwner() = default;
};

// A non-blocking TCP connection, with or without TLS. Reads and writes go straight to the kernel; Asio is asked only to
// wait. Waiting allocates nothing: each direction has its own memory for the one wait that can be pending.
class Stream {
 public:
  static constexpr ssize_t kAgain = -1;
  static constexpr ssize_t kFailed = -2;

  Stream(IoContext& io, StreamOwner& owner) : socket_(io.get_executor()), owner_(owner) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Takes a connected or connecting non-blocking socket.
  bool Open(int fd, bool v6);
  // Speaks TLS from now on. `ssl` is configured but for its file descriptor and role.
  bool StartTls(SSL_CTX* context, bool server);
  SSL* ssl() const { return ssl_.get(); }
  // 1 done, kAgain (then Wait…, whichever `handshake_wants_write` says), kFailed.
  ssize_t Handshake();

  // Bytes, 0 at the end of the stream (with TLS only after close_notify), kAgain, kFailed.
  ssize_t Read(char* data, size_t size);
  // Bytes taken (maybe not all), kAgain, kFailed. After kAgain the same bytes must come again, more may follow.
  ssize_t Write(const iovec* parts, size_t count);
  // One OnReadable or OnWritable later. Asking again while one is pending does nothing.
  void WaitRead();
  void WaitWrite();
  bool waiting_read() const { return waiting_[kReading]; }

  bool open() const { return open_; }
  // Is there something to read (or the end), without reading it? Of TLS also what is decrypted or half read already.
  bool PeekReadable() const;
  // Has the peer closed or reset the connection, whatever of its bytes are unread?
  bool PeerGone() const;
  // SO_ERROR after a non-blocking connect.
  int ConnectError() const;
  void ShutdownSend();
  // The peer sees a reset, not an end.
  void ResetOnClose();
  void Close();

 private:
  enum Direction : size_t { kReading = 0, kWriting = 1 };
  struct WaitMemory {
    static constexpr size_t kBytes = 192;
    alignas(std::max_align_t) unsigned char bytes[kBytes];
    bool taken = false;
  };
  template <typename T>
  struct WaitAllocator;
  struct WaitHandler;
  struct FreeSsl {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };

  void Wait(Direction direction, boost::asio::socket_base::wait_type type);
  void OnWait(Direction direction, bool ok);
  void ReportClosed();
  ssize_t TlsResult(Direction direction, int result);

  TcpSocket socket_;
  StreamOwner& owner_;
  std::unique_ptr<SSL, FreeSsl> ssl_;
  int fd_ = -1;
  bool open_ = false;
  bool waiting_[2] = {false, false};
  bool crossed_[2] = {false, false};  // TLS: this direction waits for the other kind of readiness.
  bool drained_ = true;               // TLS: the last read said kAgain.
  WaitMemory memory_[2];
};

}  // namespace sallyport::edge

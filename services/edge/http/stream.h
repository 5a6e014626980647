// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include <boost/asio.hpp>
#include <openssl/ssl.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "services/edge/http/poller.h"

namespace sallyport::edge {

using Tcp = boost::asio::ip::tcp;

class StreamOwner {
 public:
  virtual void OnReadable() = 0;
  virtual void OnWritable() = 0;
  // After Close, once nothing of the stream is pending any more; the owner may then be reused or destroyed.
  virtual void OnClosed() = 0;

 protected:
  ~StreamOwner() = default;
};

// A non-blocking TCP connection, with or without TLS. Reads and writes go straight to the kernel; the poller tells when
// more can be read or written, and the stream remembers it until the kernel says otherwise. Waiting allocates nothing:
// each direction has its own memory for the one call that can be posted to the event loop.
class Stream {
 public:
  static constexpr ssize_t kAgain = -1;
  static constexpr ssize_t kFailed = -2;

  Stream(IoContext& io, Poller& poller, StreamOwner& owner) : io_(io), poller_(poller), owner_(owner) {}
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Takes a connected or connecting non-blocking socket. False if it cannot be waited for; it is the caller's then.
  bool Open(int fd);
  // Speaks TLS from now on. `ssl` is configured but for its file descriptor and role.
  bool StartTls(SSL_CTX* context, bool server);
  SSL* ssl() const { return ssl_.get(); }
  // 1 done, kAgain (then Wait…, whichever `handshake_wants_write` says), kFailed.
  ssize_t Handshake();
  // The peer has ended TLS with an error of its own (RFC 8446 section 6.2). Of our certificate it may say so only after
  // the handshake.
  bool alerted() const { return alerted_; }

  // Bytes, 0 at the end of the stream (with TLS only after close_notify), kAgain, kFailed.
  ssize_t Read(char* data, size_t size);
  // Bytes taken (maybe not all), kAgain, kFailed. After kAgain the same bytes must come again, more may follow.
  ssize_t Write(const iovec* parts, size_t count);
  // One OnReadable or OnWritable later. Asking again while one is pending does nothing.
  void WaitRead();
  void WaitWrite();

  bool open() const { return open_; }
  // Is there something to read (or the end), without reading it? Of TLS also what is decrypted or half read already.
  bool PeekReadable();
  // Has the peer closed or reset the connection, whatever of its bytes are unread?
  bool PeerGone() const;
  // SO_ERROR after a non-blocking connect.
  int ConnectError() const;
  void ShutdownSend();
  // The peer sees a reset, not an end.
  void ResetOnClose();
  void Close();

  // From the poller: what the socket has become ready for. `ended`: the peer has closed its side, or the connection
  // broke.
  void OnReady(bool readable, bool writable, bool ended);

 private:
  enum Direction : size_t { kReading = 0, kWriting = 1 };
  // For a call that is posted.
  struct PostMemory {
    static constexpr size_t kBytes = 192;
    alignas(std::max_align_t) unsigned char bytes[kBytes];
    bool taken = false;
  };
  template <typename T>
  struct PostAllocator;
  struct PostHandler;
  struct FreeSsl {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };

  // The readiness that a direction waits for.
  Direction NeededFor(Direction direction) const {
    return crossed_[direction] ? static_cast<Direction>(1 - direction) : direction;
  }
  void Wait(Direction direction);
  // Calls the owner if it waits for what the socket is ready for.
  void Deliver(Direction direction);
  void Post(Direction direction);
  void OnPosted(Direction direction);
  ssize_t TlsResult(Direction direction, int result);
  // What the kernel has said to a read or write of the socket itself.
  ssize_t PlainResult(Direction direction, ssize_t result, size_t asked);

  IoContext& io_;
  Poller& poller_;
  StreamOwner& owner_;
  std::unique_ptr<SSL, FreeSsl> ssl_;
  Poller::Ticket ticket_ = Poller::kNone;
  int fd_ = -1;
  bool open_ = false;
  bool alerted_ = false;
  bool ended_ = false;                // Reading goes on until it has seen the end.
  bool ready_[2] = {false, false};    // As the poller has told, and no read or write has disproved since.
  bool waiting_[2] = {false, false};  // The owner waits to be called.
  bool posted_[2] = {false, false};
  bool crossed_[2] = {false, false};  // TLS: this direction waits for the other kind of readiness.
  PostMemory memory_[2];
};

}  // namespace sallyport::edge

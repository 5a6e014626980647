// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <hiredis/read.h>

#include "common/redis/client.h"
#include "common/redis/resolver.h"
#include "common/redis/tls.h"

// Inside of RedisClient and RedisSubscriber: one connection and its protocol. hiredis serves as codec only.
namespace sallyport {

// An answer of the server, as far as our commands get any.
struct RedisReply {
  enum class Kind { kText, kInteger, kNil, kError, kArray };
  Kind kind = Kind::kNil;
  std::string text;  // kText, kError.
  int64_t integer = 0;
  std::vector<RedisReply> elements;
};

// Every failure is counted and logged where it happens (failures.h). With Send and Receive the caller counts what did
// not come in time.
class RedisConnection {
 public:
  // Finds the address, connects, speaks TLS if it is to, and authenticates. `deadline` is of the steady clock, as
  // NowSteady() gives it.
  static absl::StatusOr<std::unique_ptr<RedisConnection>> Open(const RedisOptions& options, absl::Duration deadline);
  ~RedisConnection();
  RedisConnection(const RedisConnection&) = delete;
  RedisConnection& operator=(const RedisConnection&) = delete;

  // One command, one answer; after an error the connection must be dropped. UNAVAILABLE also for an answer nobody asked
  // for.
  absl::StatusOr<RedisReply> Call(const std::vector<std::string>& command, absl::Duration deadline);
  // The next answer; nothing if none came before the deadline. Another thread may Send meanwhile.
  absl::StatusOr<std::optional<RedisReply>> Receive(absl::Duration deadline);
  absl::Status Send(const std::vector<std::string>& command, absl::Duration deadline);
  // Without waiting, for RedisPipeline, which locks around these. What the system does not take at once is sent by
  // FlushNow, once the socket can be written; an error if that is too much (8 MiB).
  absl::Status SendNow(const std::vector<std::string>& command);
  absl::Status FlushNow();
  bool wants_to_write() const { return !unsent_.empty(); }
  // Adds the answers that are there, perhaps none; an error if there are more than `wanted`, or if bytes still come at
  // the deadline.
  absl::Status ReceiveNow(size_t wanted, absl::Duration deadline, std::vector<RedisReply>& replies);
  int fd() const { return fd_; }
  // Makes a Receive on another thread return.
  void Interrupt();

  // Registers every series, so that the first handshake is a rise from 0.
  static void ShowMetrics();
  // Time since some fixed moment; never goes back.
  static absl::Duration NowSteady();

 private:
  RedisConnection();
  absl::Status Connect(const RedisOptions& options, absl::Duration deadline);
  absl::Status ConnectTo(const SocketAddress& address, absl::Duration deadline);
  absl::Status StartTls(RedisTls& tls, const std::string& host, absl::Duration deadline);
  absl::Status LogIn(const RedisOptions& options, absl::Duration deadline);
  // DEADLINE_EXCEEDED if nothing happens.
  absl::Status WaitFor(short events, absl::Duration deadline) const;
  // Bytes from or to the server, in TLS or not, without waiting.
  absl::StatusOr<TlsStream::Step> ReadSome(char* buffer, size_t size);
  absl::StatusOr<TlsStream::Step> WriteSome(absl::string_view bytes);
  // Fails if the server has sent something without being asked.
  absl::Status CheckSilent();
  // Nothing if the reader needs more bytes.
  absl::StatusOr<std::optional<RedisReply>> NextBuffered();
  absl::Status Broken(absl::string_view what) const;

  struct ReaderDeleter {
    void operator()(redisReader* reader) const { redisReaderFree(reader); }
  };
  int fd_ = -1;
  std::string unsent_;
  size_t unfinished_ = 0;           // Bytes of an answer of which ReceiveNow has not seen the end.
  std::unique_ptr<TlsStream> tls_;  // Null: plaintext.
  // Nothing has come in plaintext over TCP yet: the port may be one for TLS.
  std::atomic<bool> perhaps_tls_ = false;
  std::unique_ptr<redisReader, ReaderDeleter> reader_;
};

}  // namespace sallyport

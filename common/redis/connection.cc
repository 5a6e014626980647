// SPDX-License-Identifier: Apache-2.0
#include "common/redis/connection.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/crypto/openssl.h"
#include "common/metrics.h"
#include "common/redis/failures.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

constexpr size_t kMaxReplySize = 8 << 20;
constexpr char kTooLate[] = "no answer in time";

constexpr CounterInfo kHandshakes = {
    .name = "sallyport_redis_tls_handshakes_total",
    .help = "TLS handshakes with Redis, with the server's certificate or with a former session",
    .unit = "handshakes",
    .labels = {{"kind", "full, resumed"}},
    .rise = "Connections to Redis are opened again and again",
    .action = "See sallyport_redis_failures_total; check the idle timeout of Redis and of what lies between",
};

prometheus::Counter& Handshakes(const char* kind) { return MetricCounter(kHandshakes, {{"kind", kind}}); }

const std::array<prometheus::Counter*, 2>& CountedHandshakes() {
  static const std::array<prometheus::Counter*, 2> by_kind = {&Handshakes("full"), &Handshakes("resumed")};
  return by_kind;
}

// "host:port", with or without brackets around an IPv6 address, as it was checked before.
std::pair<std::string, std::string> HostAndPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) host = host.substr(1, host.size() - 2);
  return {std::move(host), address.substr(colon + 1)};
}

// A command as it goes over the wire; wiped in the end, for it may hold a password.
class Formatted {
 public:
  explicit Formatted(const std::vector<std::string>& command) {
    std::vector<const char*> arguments;
    std::vector<size_t> sizes;
    for (const std::string& argument : command) {
      arguments.push_back(argument.data());
      sizes.push_back(argument.size());
    }
    size_ = redisFormatCommandArgv(&text_, static_cast<int>(arguments.size()), arguments.data(), sizes.data());
  }
  ~Formatted() {
    if (size_ < 0) return;
    OPENSSL_cleanse(text_, static_cast<size_t>(size_));
    redisFreeCommand(text_);
  }
  Formatted(const Formatted&) = delete;
  Formatted& operator=(const Formatted&) = delete;
  bool ok() const { return size_ >= 0; }
  absl::string_view text() const { return {text_, static_cast<size_t>(size_)}; }

 private:
  char* text_ = nullptr;
  // hiredis 0.14 gives an int, 1.x a long long.
  decltype(redisFormatCommandArgv(nullptr, 0, nullptr, nullptr)) size_ = -1;
};

void FreeReply(redisReply* reply) { freeReplyObject(reply); }

RedisReply Convert(const redisReply& reply) {
  RedisReply out;
  switch (reply.type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
      out.kind = RedisReply::Kind::kText;
      out.text.assign(reply.str, static_cast<size_t>(reply.len));
      break;
    case REDIS_REPLY_ERROR:
      out.kind = RedisReply::Kind::kError;
      out.text.assign(reply.str, static_cast<size_t>(reply.len));
      break;
    case REDIS_REPLY_INTEGER:
      out.kind = RedisReply::Kind::kInteger;
      out.integer = reply.integer;
      break;
    case REDIS_REPLY_ARRAY:
      out.kind = RedisReply::Kind::kArray;
      for (size_t i = 0; i < reply.elements; ++i) out.elements.push_back(Convert(*reply.element[i]));
      break;
    default:
      break;
  }
  return out;
}

}  // namespace

void RedisConnection::ShowMetrics() { CountedHandshakes(); }

RedisConnection::RedisConnection() : reader_(redisReaderCreate()) {}
RedisConnection::~RedisConnection() {
  tls_.reset();
  if (fd_ >= 0) close(fd_);
}

absl::Duration RedisConnection::NowSteady() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

absl::Status RedisConnection::Broken(absl::string_view what) const {
  return RedisFailed(RedisFailure::kBroken,
                     absl::StrCat(what, perhaps_tls_ ? ": if this port speaks TLS, set redis.tls" : ""));
}

absl::StatusOr<std::unique_ptr<RedisConnection>> RedisConnection::Open(const RedisOptions& options,
                                                                       absl::Duration deadline) {
  std::unique_ptr<RedisConnection> connection(new RedisConnection());
  if (connection->reader_ == nullptr) return absl::ResourceExhaustedError("redis: out of memory");
  RETURN_IF_ERROR(connection->Connect(options, deadline));
  if (!options.password.empty()) RETURN_IF_ERROR(connection->LogIn(options, deadline));
  return connection;
}

absl::Status RedisConnection::LogIn(const RedisOptions& options, absl::Duration deadline) {
  std::vector<std::string> command = {"AUTH"};
  if (!options.username.empty()) command.push_back(options.username);
  command.emplace_back(options.password.Expose());
  auto reply = Call(command, deadline);
  OPENSSL_cleanse(command.back().data(), command.back().size());
  RETURN_IF_ERROR(reply.status());
  if (reply->kind == RedisReply::Kind::kText) return absl::OkStatus();
  return RedisFailed(RedisFailure::kAuth,
                     "user or password refused: check redis.username, redis.passwordFile and the server's ACL");
}

absl::Status RedisConnection::Connect(const RedisOptions& options, absl::Duration deadline) {
  if (absl::StartsWith(options.address, "unix:")) {
    sockaddr_un un{};
    un.sun_family = AF_UNIX;
    const std::string path = options.address.substr(5);
    if (path.size() >= sizeof(un.sun_path)) return absl::InvalidArgumentError("redis: the socket's path is too long");
    std::memcpy(un.sun_path, path.c_str(), path.size() + 1);
    SocketAddress address;
    std::memcpy(&address.storage, &un, sizeof(un));
    address.size = sizeof(un);
    if (ConnectTo(address, deadline).ok()) return absl::OkStatus();
    return RedisFailed(RedisFailure::kConnect,
                       "cannot connect to the unix socket: is Redis running, and may this user write to the socket?");
  }
  const auto [host, port] = HostAndPort(options.address);
  RedisResolver& resolver = options.resolver == nullptr ? RedisResolver::Process() : *options.resolver;
  ASSIGN_OR_RETURN(const std::vector<SocketAddress> addresses, resolver.Resolve(host, port, NowSteady(), deadline));
  absl::Status connected;
  for (size_t i = 0; i < addresses.size(); ++i) {
    // Each gets its share, so that one that is silent leaves time for the next.
    const absl::Duration now = NowSteady();
    connected = ConnectTo(addresses[i], now + (deadline - now) / static_cast<int64_t>(addresses.size() - i));
    if (connected.ok()) break;
  }
  if (!connected.ok()) {
    return RedisFailed(RedisFailure::kConnect,
                       absl::StrCat("cannot connect to ", options.address.substr(0, 64),
                                    absl::IsDeadlineExceeded(connected) ? " in time: is it reachable from here?"
                                                                        : ": is Redis listening there?"));
  }
  if (options.tls != nullptr) return StartTls(*options.tls, host, deadline);
  perhaps_tls_ = true;
  return absl::OkStatus();
}

absl::Status RedisConnection::ConnectTo(const SocketAddress& address, absl::Duration deadline) {
  if (fd_ >= 0) close(fd_);
  fd_ = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd_ < 0) return absl::UnavailableError("no socket");
  const int on = 1;
  if (address.storage.ss_family != AF_UNIX) setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (connect(fd_, reinterpret_cast<const sockaddr*>(&address.storage), address.size) == 0) return absl::OkStatus();
  if (errno != EINPROGRESS) return absl::UnavailableError("cannot connect");
  RETURN_IF_ERROR(WaitFor(POLLOUT, deadline));
  int error = 0;
  socklen_t error_size = sizeof(error);
  if (getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &error_size) == 0 && error == 0) return absl::OkStatus();
  return absl::UnavailableError("cannot connect");
}

absl::Status RedisConnection::StartTls(RedisTls& tls, const std::string& host, absl::Duration deadline) {
  ASSIGN_OR_RETURN(tls_, tls.Start(fd_, host));
  while (true) {
    ASSIGN_OR_RETURN(const TlsStream::Step step, tls_->Handshake());
    if (step.wait_for == 0) break;
    const absl::Status status = WaitFor(step.wait_for, deadline);
    if (absl::IsDeadlineExceeded(status)) {
      return RedisFailed(RedisFailure::kTls,
                         "no TLS handshake in time: does this port speak TLS (tls-port), and is redis.timeout enough?");
    }
    RETURN_IF_ERROR(status);
  }
  CountedHandshakes()[tls_->resumed() ? 1 : 0]->Increment();
  return absl::OkStatus();
}

absl::Status RedisConnection::WaitFor(short events, absl::Duration deadline) const {
  while (true) {
    // Looked at every time: a server that trickles must not buy time with each byte.
    const absl::Duration left = deadline - NowSteady();
    if (left <= absl::ZeroDuration()) return absl::DeadlineExceededError("redis: no answer in time");
    pollfd entry{fd_, events, 0};
    const int n = poll(&entry, 1, static_cast<int>(std::min<int64_t>(left / absl::Milliseconds(1) + 1, 60'000)));
    if (n > 0) return absl::OkStatus();
    if (n < 0 && errno != EINTR) return absl::UnavailableError("redis: poll failed");
  }
}

absl::Status RedisConnection::Send(const std::vector<std::string>& command, absl::Duration deadline) {
  const Formatted formatted(command);
  if (!formatted.ok()) return absl::ResourceExhaustedError("redis: out of memory");
  absl::string_view left = formatted.text();
  absl::Status status;
  while (status.ok() && !left.empty()) {
    absl::StatusOr<TlsStream::Step> step = WriteSome(left);
    if (!step.ok()) {
      status = step.status();
    } else if (step->bytes > 0) {
      left.remove_prefix(step->bytes);
    } else {
      status = WaitFor(step->wait_for, deadline);
    }
  }
  if (absl::IsDeadlineExceeded(status)) status = RedisFailed(RedisFailure::kTimeout, kTooLate);
  return status;
}

absl::Status RedisConnection::SendNow(const std::vector<std::string>& command) {
  const Formatted formatted(command);
  if (!formatted.ok()) return absl::ResourceExhaustedError("redis: out of memory");
  if (unsent_.size() + formatted.text().size() > kMaxReplySize) return Broken("the server does not read");
  const bool first = unsent_.empty();
  absl::StrAppend(&unsent_, formatted.text());
  return first ? FlushNow() : absl::OkStatus();
}

absl::Status RedisConnection::FlushNow() {
  absl::string_view left = unsent_;
  while (!left.empty()) {
    ASSIGN_OR_RETURN(const TlsStream::Step step, WriteSome(left));
    if (step.bytes == 0) break;
    left.remove_prefix(step.bytes);
  }
  unsent_.erase(0, unsent_.size() - left.size());
  return absl::OkStatus();
}

absl::Status RedisConnection::ReceiveNow(size_t wanted, absl::Duration deadline, std::vector<RedisReply>& replies) {
  char buffer[16 << 10];
  while (true) {
    ASSIGN_OR_RETURN(const TlsStream::Step step, ReadSome(buffer, sizeof(buffer)));
    if (step.bytes == 0) return absl::OkStatus();
    unfinished_ += step.bytes;
    if (unfinished_ > kMaxReplySize) return RedisFailed(RedisFailure::kProtocol, "the answer is too long");
    if (redisReaderFeed(reader_.get(), buffer, step.bytes) != REDIS_OK) {
      return RedisFailed(RedisFailure::kProtocol, "malformed answer");
    }
    while (true) {
      ASSIGN_OR_RETURN(auto reply, NextBuffered());
      if (!reply) break;
      if (replies.size() == wanted) return RedisFailed(RedisFailure::kProtocol, "an answer that nobody asked for");
      replies.push_back(*std::move(reply));
      unfinished_ = 0;
    }
    // What is left in plaintext makes the socket readable again; TLS may hold more without that.
    if (tls_ == nullptr && step.bytes < sizeof(buffer)) return absl::OkStatus();
    // Checked while bytes still arrive: a server that never stops sending must not block the callers.
    if (NowSteady() >= deadline) return RedisFailed(RedisFailure::kTimeout, kTooLate);
  }
}

absl::StatusOr<TlsStream::Step> RedisConnection::WriteSome(absl::string_view bytes) {
  if (tls_ != nullptr) return tls_->Write(bytes);
  while (true) {
    const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n > 0) return TlsStream::Step{.bytes = static_cast<size_t>(n)};
    if (n < 0 && errno == EAGAIN) return TlsStream::Step{.wait_for = POLLOUT};
    if (n == 0 || errno != EINTR) return Broken("the connection broke");
  }
}

absl::StatusOr<TlsStream::Step> RedisConnection::ReadSome(char* buffer, size_t size) {
  if (tls_ != nullptr) {
    ASSIGN_OR_RETURN(const TlsStream::Step step, tls_->Read(buffer, size));
    if (step.bytes == 0 && step.wait_for == 0) return Broken("the server closed the connection");
    return step;
  }
  while (true) {
    const ssize_t n = recv(fd_, buffer, size, 0);
    if (n > 0) return TlsStream::Step{.bytes = static_cast<size_t>(n)};
    if (n == 0) return Broken("the server closed the connection");
    if (errno == EAGAIN) return TlsStream::Step{.wait_for = POLLIN};
    if (errno != EINTR) return Broken("the connection broke");
  }
}

absl::StatusOr<std::optional<RedisReply>> RedisConnection::NextBuffered() {
  void* raw = nullptr;
  if (redisReaderGetReply(reader_.get(), &raw) != REDIS_OK) {
    return RedisFailed(
        RedisFailure::kProtocol,
        absl::StrCat("malformed answer: is this Redis?", perhaps_tls_ ? " If the port speaks TLS, set redis.tls" : ""));
  }
  if (raw == nullptr) return std::optional<RedisReply>();
  perhaps_tls_ = false;
  const std::unique_ptr<redisReply, decltype(&FreeReply)> reply(static_cast<redisReply*>(raw), &FreeReply);
  return std::optional<RedisReply>(Convert(*reply));
}

absl::StatusOr<std::optional<RedisReply>> RedisConnection::Receive(absl::Duration deadline) {
  size_t received = 0;
  while (true) {
    ASSIGN_OR_RETURN(auto reply, NextBuffered());
    if (reply) return reply;
    // Also while bytes come: what is no answer in time is none, and the reader looks at all of it after each read.
    if (received > 0 && NowSteady() >= deadline) return std::optional<RedisReply>();
    char buffer[16 << 10];
    ASSIGN_OR_RETURN(const TlsStream::Step step, ReadSome(buffer, sizeof(buffer)));
    if (step.bytes > 0) {
      received += step.bytes;
      if (received > kMaxReplySize) return RedisFailed(RedisFailure::kProtocol, "the answer is too long");
      if (redisReaderFeed(reader_.get(), buffer, step.bytes) != REDIS_OK) {
        return RedisFailed(RedisFailure::kProtocol, "malformed answer");
      }
      continue;
    }
    const absl::Status status = WaitFor(step.wait_for, deadline);
    if (absl::IsDeadlineExceeded(status)) return std::optional<RedisReply>();
    RETURN_IF_ERROR(status);
  }
}

absl::Status RedisConnection::CheckSilent() {
  // With TLS there may be records that are no data, such as a ticket.
  char byte = 0;
  ASSIGN_OR_RETURN(const TlsStream::Step step, ReadSome(&byte, 1));
  if (step.bytes > 0) return RedisFailed(RedisFailure::kProtocol, "the idle connection was not silent");
  return absl::OkStatus();
}

absl::StatusOr<RedisReply> RedisConnection::Call(const std::vector<std::string>& command, absl::Duration deadline) {
  // What lies here already belongs to nobody: answers would be taken for those of other commands.
  RETURN_IF_ERROR(CheckSilent());
  RETURN_IF_ERROR(Send(command, deadline));
  ASSIGN_OR_RETURN(auto reply, Receive(deadline));
  if (!reply) return RedisFailed(RedisFailure::kTimeout, kTooLate);
  ASSIGN_OR_RETURN(const auto second, NextBuffered());
  if (second) return RedisFailed(RedisFailure::kProtocol, "more than one answer");
  return *std::move(reply);
}

void RedisConnection::Interrupt() { shutdown(fd_, SHUT_RDWR); }

}  // namespace sallyport

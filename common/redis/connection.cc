// SPDX-License-Identifier: Apache-2.0
#include "common/redis/connection.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <netdb.h>
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
#include "common/status_macros.h"

namespace sallyport {
namespace {

constexpr size_t kMaxReplySize = 8 << 20;

absl::Status Broken(absl::string_view what) { return absl::UnavailableError(absl::StrCat("redis: ", what)); }

struct AddressDeleter {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

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
  int size_ = -1;
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

RedisConnection::RedisConnection() : reader_(redisReaderCreate()) {}
RedisConnection::~RedisConnection() {
  if (fd_ >= 0) close(fd_);
}

absl::Duration RedisConnection::NowSteady() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

absl::StatusOr<std::unique_ptr<RedisConnection>> RedisConnection::Open(const RedisOptions& options,
                                                                       absl::Duration deadline) {
  std::unique_ptr<RedisConnection> connection(new RedisConnection());
  if (connection->reader_ == nullptr) return absl::ResourceExhaustedError("redis: out of memory");
  RETURN_IF_ERROR(connection->Connect(options.address, deadline));
  if (!options.password.empty()) {
    std::vector<std::string> command = {"AUTH"};
    if (!options.username.empty()) command.push_back(options.username);
    command.emplace_back(options.password.Expose());
    auto reply = connection->Call(command, deadline);
    OPENSSL_cleanse(command.back().data(), command.back().size());
    RETURN_IF_ERROR(reply.status());
    if (reply->kind != RedisReply::Kind::kText) return absl::FailedPreconditionError("redis: user or password refused");
  }
  return connection;
}

absl::Status RedisConnection::Connect(const std::string& address, absl::Duration deadline) {
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (absl::StartsWith(address, "unix:")) {
    sockaddr_un un{};
    un.sun_family = AF_UNIX;
    const std::string path = address.substr(5);
    if (path.size() >= sizeof(un.sun_path)) return absl::InvalidArgumentError("redis: the socket's path is too long");
    std::memcpy(un.sun_path, path.c_str(), path.size() + 1);
    std::memcpy(&storage, &un, sizeof(un));
    size = sizeof(un);
  } else {
    const size_t colon = address.rfind(':');
    std::string host = address.substr(0, colon);
    if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) host = host.substr(1, host.size() - 2);
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(host.c_str(), address.substr(colon + 1).c_str(), &hints, &found) != 0)
      return Broken("name not resolved");
    const std::unique_ptr<addrinfo, AddressDeleter> owner(found);
    std::memcpy(&storage, found->ai_addr, found->ai_addrlen);
    size = found->ai_addrlen;
  }
  fd_ = socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd_ < 0) return Broken("no socket");
  const int on = 1;
  if (storage.ss_family != AF_UNIX) setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (connect(fd_, reinterpret_cast<const sockaddr*>(&storage), size) == 0) return absl::OkStatus();
  if (errno != EINPROGRESS) return Broken("cannot connect");
  RETURN_IF_ERROR(WaitFor(POLLOUT, deadline));
  int error = 0;
  socklen_t error_size = sizeof(error);
  if (getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &error_size) != 0 || error != 0) return Broken("cannot connect");
  return absl::OkStatus();
}

absl::Status RedisConnection::WaitFor(short events, absl::Duration deadline) const {
  while (true) {
    const int64_t left = (deadline - NowSteady()) / absl::Milliseconds(1);
    pollfd entry{fd_, events, 0};
    const int n = poll(&entry, 1, static_cast<int>(std::max<int64_t>(0, std::min<int64_t>(left + 1, 60'000))));
    if (n > 0) return absl::OkStatus();
    if (n < 0 && errno != EINTR) return Broken("poll failed");
    if (NowSteady() >= deadline) return absl::DeadlineExceededError("redis: no answer in time");
  }
}

absl::Status RedisConnection::Send(const std::vector<std::string>& command, absl::Duration deadline) {
  const Formatted formatted(command);
  if (!formatted.ok()) return absl::ResourceExhaustedError("redis: out of memory");
  absl::string_view left = formatted.text();
  absl::Status status;
  while (status.ok() && !left.empty()) {
    const ssize_t n = send(fd_, left.data(), left.size(), MSG_NOSIGNAL);
    if (n > 0) {
      left.remove_prefix(static_cast<size_t>(n));
    } else if (n < 0 && errno == EAGAIN) {
      status = WaitFor(POLLOUT, deadline);
    } else if (n == 0 || errno != EINTR) {
      status = Broken("the connection broke");
    }
  }
  return status;
}

absl::Status RedisConnection::SendNow(const std::vector<std::string>& command) {
  const Formatted formatted(command);
  if (!formatted.ok()) return absl::ResourceExhaustedError("redis: out of memory");
  const ssize_t n = send(fd_, formatted.text().data(), formatted.text().size(), MSG_NOSIGNAL);
  // The system takes some hundred kilobytes: a server that reads so little is as good as gone.
  return n == static_cast<ssize_t>(formatted.text().size()) ? absl::OkStatus() : Broken("the server does not read");
}

absl::Status RedisConnection::ReceiveNow(std::vector<RedisReply>& replies) {
  char buffer[16 << 10];
  while (true) {
    const ssize_t n = recv(fd_, buffer, sizeof(buffer), 0);
    if (n == 0) return Broken("the server closed the connection");
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN ? absl::OkStatus() : Broken("the connection broke");
    unfinished_ += static_cast<size_t>(n);
    if (unfinished_ > kMaxReplySize) return Broken("the answer is too long");
    if (redisReaderFeed(reader_.get(), buffer, static_cast<size_t>(n)) != REDIS_OK) return Broken("malformed answer");
    while (true) {
      ASSIGN_OR_RETURN(auto reply, NextBuffered());
      if (!reply) break;
      replies.push_back(*std::move(reply));
      unfinished_ = 0;
    }
    if (static_cast<size_t>(n) < sizeof(buffer)) return absl::OkStatus();
  }
}

absl::StatusOr<std::optional<RedisReply>> RedisConnection::NextBuffered() {
  void* raw = nullptr;
  if (redisReaderGetReply(reader_.get(), &raw) != REDIS_OK) return Broken("malformed answer");
  if (raw == nullptr) return std::optional<RedisReply>();
  const std::unique_ptr<redisReply, decltype(&FreeReply)> reply(static_cast<redisReply*>(raw), &FreeReply);
  return std::optional<RedisReply>(Convert(*reply));
}

absl::StatusOr<std::optional<RedisReply>> RedisConnection::Receive(absl::Duration deadline) {
  size_t received = 0;
  while (true) {
    ASSIGN_OR_RETURN(auto reply, NextBuffered());
    if (reply) return reply;
    char buffer[16 << 10];
    const ssize_t n = recv(fd_, buffer, sizeof(buffer), 0);
    if (n > 0) {
      received += static_cast<size_t>(n);
      if (received > kMaxReplySize) return Broken("the answer is too long");
      if (redisReaderFeed(reader_.get(), buffer, static_cast<size_t>(n)) != REDIS_OK) return Broken("malformed answer");
      continue;
    }
    if (n == 0) return Broken("the server closed the connection");
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return Broken("the connection broke");
    const absl::Status status = WaitFor(POLLIN, deadline);
    if (absl::IsDeadlineExceeded(status)) return std::optional<RedisReply>();
    RETURN_IF_ERROR(status);
  }
}

absl::StatusOr<RedisReply> RedisConnection::Call(const std::vector<std::string>& command, absl::Duration deadline) {
  // What lies here already belongs to nobody: answers would be taken for those of other commands.
  char byte = 0;
  const ssize_t n = recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (n >= 0 || errno != EAGAIN) return Broken("the idle connection was closed or not silent");
  RETURN_IF_ERROR(Send(command, deadline));
  ASSIGN_OR_RETURN(auto reply, Receive(deadline));
  if (!reply) return Broken("no answer in time");
  ASSIGN_OR_RETURN(const auto second, NextBuffered());
  if (second) return Broken("more than one answer");
  return *std::move(reply);
}

void RedisConnection::Interrupt() { shutdown(fd_, SHUT_RDWR); }

}  // namespace sallyport

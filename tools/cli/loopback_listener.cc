// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/loopback_listener.h"

#include <algorithm>
#include <chrono>
#include <poll.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <netinet/in.h>
#include <sys/socket.h>

namespace sallyport::cli {
namespace {

constexpr size_t kMaxHead = 16 << 10;
constexpr absl::Duration kReadPatience = absl::Seconds(5);
constexpr char kPage[] =
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>sallyport</title>"
    "<body style=\"font:16px system-ui;margin:4rem auto;max-width:32rem\"><h1>You can close this window</h1>"
    "<p>The sallyport command line has received the answer; it continues in your terminal.</p></body></html>";

using Clock = std::chrono::steady_clock;

Clock::time_point After(absl::Duration patience) { return Clock::now() + absl::ToChronoMilliseconds(patience); }

bool Readable(int fd, Clock::time_point deadline) {
  pollfd poll_fd = {.fd = fd, .events = POLLIN, .revents = 0};
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return poll(&poll_fd, 1, static_cast<int>(std::max<int64_t>(wait, 0))) > 0;
}

// Target of the request line; empty if none came.
std::string ReadTarget(int fd) {
  const Clock::time_point deadline = After(kReadPatience);
  std::string head;
  while (head.size() < kMaxHead && !absl::StrContains(head, "\r\n\r\n") && Readable(fd, deadline)) {
    char buffer[4096];
    const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got <= 0) break;
    head.append(buffer, static_cast<size_t>(got));
  }
  const std::vector<std::string> words = absl::StrSplit(head.substr(0, head.find("\r\n")), ' ');
  return words.size() == 3 && words[0] == "GET" ? words[1] : "";
}

void Answer(int fd, const char* status, const std::string& body) {
  const std::string response = absl::StrCat(
      "HTTP/1.1 ", status, "\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n",
      "Referrer-Policy: no-referrer\r\nConnection: close\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
  send(fd, response.data(), response.size(), MSG_NOSIGNAL);
  shutdown(fd, SHUT_WR);
}

}  // namespace

absl::StatusOr<LoopbackListener> LoopbackListener::Open() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  void* raw = &address;
  auto* generic = static_cast<sockaddr*>(raw);
  if (fd < 0 || bind(fd, generic, size) != 0 || listen(fd, 8) != 0 || getsockname(fd, generic, &size) != 0) {
    if (fd >= 0) close(fd);
    return absl::UnavailableError("no port of 127.0.0.1 can be opened for the browser's answer");
  }
  return LoopbackListener(fd, ntohs(address.sin_port));
}

LoopbackListener::LoopbackListener(LoopbackListener&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), port_(other.port_) {}

LoopbackListener::~LoopbackListener() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::string> LoopbackListener::Await(absl::Duration patience) {
  const Clock::time_point deadline = After(patience);
  while (Readable(fd_, deadline)) {
    const int connection = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) continue;
    const std::string target = ReadTarget(connection);
    const bool ours = absl::StartsWith(target, "/callback?");
    Answer(connection, ours ? "200 OK" : "404 Not Found", ours ? kPage : "");
    close(connection);
    if (ours) return target.substr(target.find('?') + 1);
  }
  return absl::DeadlineExceededError("nobody signed in within the time given");
}

}  // namespace sallyport::cli

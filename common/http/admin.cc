// SPDX-License-Identifier: Apache-2.0
#include "common/http/admin.h"

#include <cerrno>
#include <poll.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "common/listen.h"
#include "common/metrics.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

constexpr int kThreads = 3;
constexpr int kBacklog = 16;
constexpr size_t kMaxHeadBytes = 8 << 10;
constexpr int kTimeoutMs = 5'000;

struct Answer {
  int status;
  absl::string_view reason;
  std::string body;
};

// The head up to the blank line; empty if it did not come whole and in time.
std::string ReadHead(int fd) {
  std::string head;
  char buffer[1024];
  while (head.size() < kMaxHeadBytes) {
    const ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
    if (n <= 0) {
      return "";
    }
    head.append(buffer, static_cast<size_t>(n));
    if (absl::StrContains(head, "\r\n\r\n")) {
      return head;
    }
  }
  return "";
}

void Send(int fd, const Answer& answer, bool with_body) {
  std::string text =
      absl::StrCat("HTTP/1.1 ", answer.status, " ", answer.reason,
                   "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nCache-Control: no-store"
                   "\r\nConnection: close\r\nContent-Length: ",
                   answer.body.size(), "\r\n\r\n");
  if (with_body) {
    text += answer.body;
  }
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = send(fd, text.data() + done, text.size() - done, MSG_NOSIGNAL);
    if (n <= 0) {
      return;
    }
    done += static_cast<size_t>(n);
  }
  // Lets the peer read all of it before the close, should it have sent more than we read.
  shutdown(fd, SHUT_WR);
}

Answer AnswerTo(absl::string_view path, const AdminHttp::Ready& ready) {
  if (path == "/livez") {
    return {200, "OK", "ok\n"};
  }
  if (path == "/metrics") {
    return {200, "OK", SerializeMetrics()};
  }
  if (path == "/readyz") {
    const absl::Status status = ready ? ready() : absl::OkStatus();
    return status.ok() ? Answer{200, "OK", "ok\n"}
                       : Answer{503, "Service Unavailable", absl::StrCat(status.message(), "\n")};
  }
  return {404, "Not Found", "/metrics, /livez and /readyz are here\n"};
}

void Serve(int fd, const AdminHttp::Ready& ready) {
  const timeval timeout = {kTimeoutMs / 1000, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
  const std::string head = ReadHead(fd);
  absl::string_view line = absl::string_view(head).substr(0, head.find("\r\n"));
  const bool is_head = absl::StartsWith(line, "HEAD ");
  if (head.empty() || !absl::StrContains(line, " HTTP/1.")) {
    Send(fd, {400, "Bad Request", "not an HTTP/1.1 request\n"}, true);
    return;
  }
  if (!is_head && !absl::StartsWith(line, "GET ")) {
    Send(fd, {405, "Method Not Allowed", "only GET\n"}, true);
    return;
  }
  line.remove_prefix(line.find(' ') + 1);
  Send(fd, AnswerTo(line.substr(0, line.find_first_of(" ?")), ready), !is_head);
}

}  // namespace

struct AdminHttp::State {
  Fd listener;
  Fd stop;
  Ready ready;
  int port = 0;
  std::vector<std::thread> threads;

  void Run() {
    for (;;) {
      pollfd fds[] = {{listener.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}};
      if (poll(fds, 2, -1) < 0 && errno != EINTR) {
        return;
      }
      if ((fds[1].revents & POLLIN) != 0) {
        return;
      }
      // Every thread is woken; one gets the connection, the others EAGAIN.
      const Fd connection(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (connection.get() >= 0) {
        Serve(connection.get(), ready);
      } else if (errno == EMFILE || errno == ENFILE) {
        poll(&fds[1], 1, 100);  // Not to spin while descriptors are short.
      }
    }
  }
};

absl::StatusOr<std::unique_ptr<AdminHttp>> AdminHttp::Start(const std::string& listen, Ready ready,
                                                            const std::string& field) {
  auto server = std::unique_ptr<AdminHttp>(new AdminHttp);
  server->state_ = std::make_unique<State>();
  State& state = *server->state_;
  ASSIGN_OR_RETURN(std::vector<Fd> listeners, ListenOn(listen, field, ListenMode::kFirst, kBacklog));
  state.listener = std::move(listeners.front());
  state.stop = Fd(eventfd(0, EFD_CLOEXEC));
  state.ready = std::move(ready);
  state.port = PortOf(state.listener);
  for (int i = 0; i < kThreads; ++i) {
    state.threads.emplace_back([&state] { state.Run(); });
  }
  return server;
}

AdminHttp::~AdminHttp() {
  if (state_ == nullptr) {
    return;
  }
  const uint64_t one = 1;
  (void)!write(state_->stop.get(), &one, sizeof(one));  // Stays readable: all threads see it.
  for (std::thread& thread : state_->threads) {
    thread.join();
  }
}

int AdminHttp::port() const { return state_->port; }

}  // namespace sallyport

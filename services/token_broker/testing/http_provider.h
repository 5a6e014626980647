// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <poll.h>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/http/url.h"
#include "common/mutex.h"

namespace sallyport::token_broker::testing {

// A small HTTP server on loopback, a thread a connection. What it answers is the test's business.
class HttpProvider {
 public:
  struct Request {
    std::string path;
    std::map<std::string, std::string> form;
    std::string authorization;
  };
  struct Response {
    int status = 200;
    std::string body;
    std::string content_type = "application/json";
    std::string extra_headers;  // "Retry-After: 7\r\n"
  };
  using Handler = std::function<Response(const Request&)>;

  explicit HttpProvider(Handler handler) : handler_(std::move(handler)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_, generic, size) != 0 || ::listen(listener_, 64) != 0 ||
        ::getsockname(listener_, generic, &size) != 0) {
      std::abort();
    }
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~HttpProvider() {
    stopping_ = true;
    acceptor_.join();
    ::close(listener_);
    std::vector<std::thread> threads;
    {
      MutexLock lock(mu_);
      threads.swap(threads_);
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::string Url(const std::string& path) const { return absl::StrCat("http://127.0.0.1:", port_, path); }
  // Where nothing listens.
  static std::string UrlOfNobody(const std::string& path) {
    return HttpProvider([](const Request&) { return Response(); }).Url(path);
  }
  void SetHandler(Handler handler) {
    MutexLock lock(mu_);
    handler_ = std::move(handler);
  }

 private:
  void Accept() {
    while (!stopping_) {
      pollfd waiting{listener_, POLLIN, 0};
      if (::poll(&waiting, 1, 20) <= 0) continue;
      const int connection = ::accept(listener_, nullptr, nullptr);
      if (connection < 0) continue;
      MutexLock lock(mu_);
      threads_.emplace_back([this, connection] { Serve(connection); });
    }
  }

  bool Fill(int connection, std::string* buffer) const {
    while (!stopping_) {
      pollfd waiting{connection, POLLIN, 0};
      if (::poll(&waiting, 1, 20) <= 0) continue;
      char chunk[4096];
      const ssize_t n = ::read(connection, chunk, sizeof(chunk));
      if (n <= 0) return false;
      buffer->append(chunk, static_cast<size_t>(n));
      return true;
    }
    return false;
  }

  void Serve(int connection) {
    std::string buffer;
    while (true) {
      size_t end = 0;
      while ((end = buffer.find("\r\n\r\n")) == std::string::npos) {
        if (!Fill(connection, &buffer)) return void(::close(connection));
      }
      const std::vector<std::string> lines = absl::StrSplit(buffer.substr(0, end), "\r\n");
      size_t length = 0;
      Request request;
      request.path = std::vector<std::string>(absl::StrSplit(lines[0], ' '))[1];
      for (const std::string& line : lines) {
        if (absl::StartsWithIgnoreCase(line, "content-length: ") && !absl::SimpleAtoi(line.substr(16), &length))
          length = 0;
        if (absl::StartsWithIgnoreCase(line, "authorization: ")) request.authorization = line.substr(15);
      }
      while (buffer.size() < end + 4 + length) {
        if (!Fill(connection, &buffer)) return void(::close(connection));
      }
      request.form = FormDecodeUnique(buffer.substr(end + 4, length)).value_or(std::map<std::string, std::string>());
      buffer.erase(0, end + 4 + length);
      Handler handler;
      {
        MutexLock lock(mu_);
        handler = handler_;
      }
      const Response response = handler(request);
      const std::string answer = absl::StrCat(
          "HTTP/1.1 ", response.status, " X\r\nContent-Type: ", response.content_type,
          "\r\nContent-Length: ", response.body.size(), "\r\n", response.extra_headers, "\r\n", response.body);
      if (::send(connection, answer.data(), answer.size(), MSG_NOSIGNAL) < 0) return void(::close(connection));
    }
  }

  Mutex mu_;
  Handler handler_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> stopping_{false};
  int listener_ = -1;
  int port_ = 0;
  std::thread acceptor_;
};

}  // namespace sallyport::token_broker::testing

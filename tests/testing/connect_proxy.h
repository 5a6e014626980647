// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <poll.h>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace sallyport::testing {

// An HTTP proxy on a free loopback port that knows CONNECT only, for tests: one thread a connection. Every name is this
// host to it; the port is the one it is asked for. Stops in the destructor.
class ConnectProxy {
 public:
  static constexpr char kOpened[] = "HTTP/1.1 200 Connection established\r\n\r\n";
  // What is sent for the head of a request. A complete head of a 2xx at the end opens the tunnel;
  // after anything else the connection closes. Nothing: it stays open without an answer.
  using Answer = std::function<std::string(const std::string& head)>;

  explicit ConnectProxy(Answer answer = [](const std::string& /*head*/) { return kOpened; })
      : answer_(std::move(answer)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof(address);
    if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) != 0 || ::listen(listener_, 64) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      std::abort();
    }
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~ConnectProxy() {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      stopping_ = true;
      for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
    }
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    for (std::thread& thread : threads_) thread.join();
    for (const int fd : open_) ::close(fd);
    ::close(listener_);
  }
  ConnectProxy(const ConnectProxy&) = delete;
  ConnectProxy& operator=(const ConnectProxy&) = delete;

  uint16_t port() const { return port_; }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  int connections() const { return connections_; }
  // The heads of all requests, as they came.
  std::vector<std::string> heads() {
    const std::lock_guard<std::mutex> lock(mu_);
    return heads_;
  }
  // All that clients sent through tunnels.
  std::string passed() {
    const std::lock_guard<std::mutex> lock(mu_);
    return passed_;
  }

 private:
  static sockaddr_in Loopback(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
  }
  static bool SendAll(int fd, const char* data, size_t size) {
    while (size > 0) {
      const ssize_t sent = ::send(fd, data, size, MSG_NOSIGNAL);
      if (sent <= 0) return false;
      data += sent;
      size -= static_cast<size_t>(sent);
    }
    return true;
  }

  static bool Opens(const std::string& answer) {
    const size_t status = answer.rfind("HTTP/1.");
    return status != std::string::npos && answer.compare(status + 8, 2, " 2") == 0 && answer.ends_with("\r\n\r\n");
  }

  void Accept() {
    while (true) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      const std::lock_guard<std::mutex> lock(mu_);
      open_.push_back(fd);
      if (stopping_) return;
      ++connections_;
      threads_.emplace_back([this, fd] { Serve(fd); });
    }
  }

  void Serve(int client) {
    std::string head;
    char byte = 0;
    while (!head.ends_with("\r\n\r\n")) {
      if (::recv(client, &byte, 1, 0) != 1) return;
      head += byte;
    }
    {
      const std::lock_guard<std::mutex> lock(mu_);
      heads_.push_back(head);
    }
    const std::string answer = answer_(head);
    if (answer.empty()) {
      while (::recv(client, &byte, 1, 0) == 1) {
      }
    } else if (SendAll(client, answer.data(), answer.size()) && Opens(answer)) {
      Tunnel(client, head);
    }
    ::shutdown(client, SHUT_RDWR);
  }

  void Tunnel(int client, const std::string& head) {
    const std::string authority = head.substr(8, head.find(' ', 8) - 8);
    const int upstream = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    {
      const std::lock_guard<std::mutex> lock(mu_);
      open_.push_back(upstream);
      if (stopping_) return;
    }
    const sockaddr_in address = Loopback(static_cast<uint16_t>(std::stoi(authority.substr(authority.rfind(':') + 1))));
    if (::connect(upstream, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return;
    pollfd ends[] = {{client, POLLIN, 0}, {upstream, POLLIN, 0}};
    char bytes[16384];
    while (::poll(ends, 2, -1) > 0) {
      for (int from = 0; from < 2; ++from) {
        if (ends[from].revents == 0) continue;
        const ssize_t got = ::recv(ends[from].fd, bytes, sizeof(bytes), 0);
        if (got <= 0 || !SendAll(ends[1 - from].fd, bytes, static_cast<size_t>(got))) {
          ::shutdown(upstream, SHUT_RDWR);
          return;
        }
        if (from == 0) {
          const std::lock_guard<std::mutex> lock(mu_);
          passed_.append(bytes, static_cast<size_t>(got));
        }
      }
    }
  }

  const Answer answer_;
  const int listener_;
  uint16_t port_ = 0;
  std::atomic<int> connections_{0};
  std::mutex mu_;
  bool stopping_ = false;
  std::vector<int> open_;  // Closed at the end only, so that no number is used twice.
  std::vector<std::string> heads_;
  std::string passed_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace sallyport::testing

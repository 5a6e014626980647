// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace sallyport::testing {

// A server that sends `answer` to whatever it is asked.
class LyingServer {
 public:
  explicit LyingServer(std::string answer) {
    std::string pattern = "/tmp/sallyport-redis-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, (directory_ + "/s").c_str(), sizeof(address.sun_path) - 1);
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
    thread_ = std::thread([this, answer = std::move(answer)] {
      while (true) {
        const int fd = accept(listener_, nullptr, nullptr);
        if (fd < 0) return;
        char buffer[1000];
        while (recv(fd, buffer, sizeof(buffer), 0) > 0) send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
        close(fd);
      }
    });
  }
  ~LyingServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
    std::filesystem::remove_all(directory_);
  }
  std::string address() const { return "unix:" + directory_ + "/s"; }

 private:
  std::string directory_;
  int listener_;
  std::thread thread_;
};

}  // namespace sallyport::testing

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/mutex.h"

namespace sallyport::testing {

// A small HTTP/1.1 server on a free loopback port for tests: one thread a connection, keep-alive, optionally TLS with a
// certificate of its own authority (ca_pem()). Stops in the destructor.
class TestHttpServer {
 public:
  struct Request {
    std::string method;
    std::string target;                          // Path and query.
    std::map<std::string, std::string> headers;  // Names in lower case; the last one wins.
    std::string body;
  };
  struct Response {
    int status = 200;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string body;
    // Sent instead of everything above, then the connection is closed.
    std::string raw;
    // The connection is closed without an answer.
    bool hang_up = false;
  };
  // Runs on the connection's thread; may block to be slow.
  using Handler = std::function<Response(const Request&)>;

  explicit TestHttpServer(Handler handler, bool tls = false);
  ~TestHttpServer();
  TestHttpServer(const TestHttpServer&) = delete;
  TestHttpServer& operator=(const TestHttpServer&) = delete;

  int port() const { return port_; }
  // "http://127.0.0.1:1234" or "https://127.0.0.1:1234".
  std::string origin() const;
  // The authority's certificate; empty without TLS.
  const std::string& ca_pem() const { return ca_pem_; }
  int connections() const { return connections_; }
  int requests() const { return requests_; }

 private:
  struct Tls;
  void Accept();
  void Serve(int fd);

  Handler handler_;
  std::unique_ptr<Tls> tls_;
  std::string ca_pem_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<int> connections_{0};
  std::atomic<int> requests_{0};
  Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<int> open_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> serving_ ABSL_GUARDED_BY(mu_);
  std::thread accepting_;
};

}  // namespace sallyport::testing

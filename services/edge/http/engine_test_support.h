// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "services/edge/http/engine.h"
#include "services/edge/http/header_rules.h"
#include "services/edge/http/response_rules.h"

// A real engine between raw sockets: tests decide every byte on both sides.
namespace sallyport::edge::testing {

// How long tests wait for what must happen: much longer than it takes on a busy machine.
constexpr std::chrono::seconds kPatience{30};

// Waits until `condition` holds; false after kPatience.
bool Eventually(const std::function<bool()>& condition);

// A blocking socket whose reads give up after kPatience.
class RawSocket {
 public:
  explicit RawSocket(int fd) : fd_(fd) {}
  ~RawSocket() { Close(); }
  RawSocket(const RawSocket&) = delete;
  RawSocket& operator=(const RawSocket&) = delete;

  static std::unique_ptr<RawSocket> Connect(uint16_t port);
  // False when the peer is gone.
  bool Send(std::string_view bytes);
  // At least one byte; "" at the end of the stream, on an error or after kPatience.
  std::string ReadSome();
  // Until `end` was seen (the bytes up to and with it), or what there was at the end of the stream.
  std::string ReadUntil(std::string_view end);
  std::string ReadBytes(size_t count);
  std::string ReadToEnd();
  // One HTTP message with Content-Length, chunked coding (taken as it is) or no body.
  std::string ReadMessage();
  // The stream ended (not: kPatience passed).
  bool ended() const { return ended_; }
  // The stream ended with a reset.
  bool reset() const { return reset_; }
  void ShutdownSend();
  void Reset();  // Closes with RST.
  void Close();
  // From another thread: whoever reads or writes gets the end.
  void Interrupt();
  int fd() const { return fd_; }

 private:
  bool Fill();

  int fd_;
  std::mutex close_mu_;  // Between Close and Interrupt.
  std::string buffer_;
  bool ended_ = false;
  bool reset_ = false;
};

// Serves each connection by `serve` on a thread of its own.
class FakeUpstream {
 public:
  using Serve = std::function<void(RawSocket&)>;

  explicit FakeUpstream(Serve serve);
  ~FakeUpstream();
  uint16_t port() const { return port_; }
  int connections() const { return connections_; }
  // Heads and bodies as ReadRequest got them.
  std::vector<std::string> requests();
  // Reads one request and remembers it; "" when the client is gone.
  std::string ReadRequest(RawSocket& socket);

 private:
  void Accept();

  Serve serve_;
  int listener_;
  uint16_t port_ = 0;
  std::atomic<int> connections_{0};
  std::mutex mu_;
  std::vector<std::string> requests_;
  std::vector<std::unique_ptr<RawSocket>> sockets_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

std::string JsonResponse(std::string_view body, std::string_view fields = "");

// Forwards everything to one upstream, unless a test says otherwise.
class TestGateway : public Gateway {
 public:
  uint64_t OnHead(Exchange& exchange) override { return on_head ? on_head(exchange) : body_limit; }
  void OnRequest(Exchange& exchange) override {
    if (on_request) {
      on_request(exchange);
    } else {
      ForwardPlain(exchange);
    }
  }
  Verdict OnUpstreamHead(Exchange& exchange, const ResponseHead& head, RelayHead& relay) override {
    if (on_upstream_head) {
      return on_upstream_head(exchange, head, relay);
    }
    AppendResponseFields(head, ResponseRules(), relay.fields);
    return Verdict::kRelay;
  }
  void OnUpstreamBody(Exchange& exchange, const ResponseHead& head, std::string_view body) override {
    on_upstream_body(exchange, head, body);
  }
  void OnUpstreamError(Exchange& exchange, UpstreamError error) override {
    if (on_upstream_error) {
      on_upstream_error(exchange, error);
    } else {
      Gateway::OnUpstreamError(exchange, error);
    }
  }
  void OnDone(Exchange& exchange) override;
  bool AllowAddress(const UpstreamTarget& /*target*/, const NetworkAddress& /*address*/) override { return allow; }
  void OnRejected(Worker& worker, const NetworkAddress& client, int status, std::string_view reason) override;

  void ForwardPlain(Exchange& exchange);
  std::vector<ExchangeStats> done();
  std::vector<std::string> rejected();

  // Set before the engine starts.
  uint64_t body_limit = 4 << 20;
  bool allow = true;
  UpstreamTarget target;
  std::function<uint64_t(Exchange&)> on_head;
  std::function<void(Exchange&)> on_request;
  std::function<Verdict(Exchange&, const ResponseHead&, RelayHead&)> on_upstream_head;
  std::function<void(Exchange&, const ResponseHead&, std::string_view)> on_upstream_body;
  std::function<void(Exchange&, UpstreamError)> on_upstream_error;

 private:
  std::mutex mu_;
  std::vector<ExchangeStats> done_;
  std::vector<std::string> rejected_;
};

class EngineTest : public ::testing::Test {
 protected:
  // No limit in time that a busy machine could meet; a test of such a limit sets its own.
  static EngineOptions Patient();
  // Starts the upstream, points the gateway at it.
  void ServeUpstream(FakeUpstream::Serve serve);
  // An upstream that answers each request with `response`.
  void AnswerUpstream(std::string response);
  void StartEngine();
  std::unique_ptr<RawSocket> Connect() { return RawSocket::Connect(engine->port()); }
  // Sends `request` on a new connection; everything until the end of the stream.
  std::string Roundtrip(std::string_view request);

  EngineOptions options = Patient();
  TestGateway gateway;
  std::unique_ptr<FakeUpstream> upstream;
  std::unique_ptr<Engine> engine;  // Stops first.
};

std::string Post(std::string_view body, std::string_view fields = "", std::string_view target = "/mcp/a");
int StatusOf(std::string_view response);
std::string BodyOf(const std::string& response);

}  // namespace sallyport::edge::testing

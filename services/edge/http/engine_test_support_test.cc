// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/engine_test_support.h"

#include <cerrno>
#include <cstdlib>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "tests/testing/status_matchers.h"

namespace sallyport::edge::testing {

using ::sallyport::testing::IsOk;

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

namespace {

void Configure(int fd) {
  const timeval timeout{kPatience.count(), 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

size_t BodyLength(const std::string& head) {
  const size_t at = head.find("Content-Length: ");
  return at == std::string::npos ? 0 : std::strtoul(head.c_str() + at + 16, nullptr, 10);
}

}  // namespace

std::unique_ptr<RawSocket> RawSocket::Connect(uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  Configure(fd);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return std::make_unique<RawSocket>(fd);
}

bool RawSocket::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) {
      return false;
    }
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool RawSocket::Fill() {
  char bytes[16384];
  const ssize_t got = ::recv(fd_, bytes, sizeof(bytes), 0);
  if (got <= 0) {
    reset_ = got < 0 && errno == ECONNRESET;
    ended_ = got == 0 || reset_;
    return false;
  }
  buffer_.append(bytes, static_cast<size_t>(got));
  return true;
}

std::string RawSocket::ReadSome() {
  if (buffer_.empty()) {
    Fill();
  }
  return std::exchange(buffer_, std::string());
}

std::string RawSocket::ReadUntil(std::string_view end) {
  size_t at = 0;
  while ((at = buffer_.find(end)) == std::string::npos) {
    if (!Fill()) {
      return std::exchange(buffer_, std::string());
    }
  }
  return ReadBytes(at + end.size());
}

std::string RawSocket::ReadBytes(size_t count) {
  while (buffer_.size() < count && Fill()) {
  }
  const std::string bytes = buffer_.substr(0, count);
  buffer_.erase(0, bytes.size());
  return bytes;
}

std::string RawSocket::ReadToEnd() {
  while (Fill()) {
  }
  return std::exchange(buffer_, std::string());
}

std::string RawSocket::ReadMessage() {
  const std::string head = ReadUntil("\r\n\r\n");
  if (head.find("Transfer-Encoding: chunked") != std::string::npos) {
    return head + ReadUntil("0\r\n\r\n");
  }
  return head + ReadBytes(BodyLength(head));
}

void RawSocket::ShutdownSend() { ::shutdown(fd_, SHUT_WR); }

void RawSocket::Reset() {
  const linger reset{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  Close();
}

void RawSocket::Interrupt() {
  const std::lock_guard lock(close_mu_);
  ::shutdown(fd_, SHUT_RDWR);
}

void RawSocket::Close() {
  const std::lock_guard lock(close_mu_);
  if (fd_ >= 0) {
    ::close(std::exchange(fd_, -1));
  }
}

FakeUpstream::FakeUpstream(Serve serve) : serve_(std::move(serve)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(::listen(listener_, 64), 0);
  socklen_t size = sizeof(address);
  ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

FakeUpstream::~FakeUpstream() {
  ::shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  ::close(listener_);
  for (const auto& socket : sockets_) {
    socket->Interrupt();
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void FakeUpstream::Accept() {
  while (true) {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) {
      return;
    }
    Configure(fd);
    ++connections_;
    sockets_.push_back(std::make_unique<RawSocket>(fd));
    threads_.emplace_back([this, &socket = *sockets_.back()] { serve_(socket); });
  }
}

std::string FakeUpstream::ReadRequest(RawSocket& socket) {
  std::string request = socket.ReadMessage();
  if (!request.empty()) {
    const std::lock_guard lock(mu_);
    requests_.push_back(request);
  }
  return request;
}

std::vector<std::string> FakeUpstream::requests() {
  const std::lock_guard lock(mu_);
  return requests_;
}

std::string JsonResponse(std::string_view body, std::string_view fields) {
  return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + std::string(fields) +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

void TestGateway::ForwardPlain(Exchange& exchange) {
  std::string& out = exchange.upstream_head();
  out.clear();
  AppendRequestLine(exchange.head().method, target, exchange.head().query, "", "", out);
  RequestRules().AppendFields(exchange.head(), HeaderId::kOther, out);
  FinishRequestHead(exchange.head().method, exchange.body().size(), out);
  exchange.Forward(target);
}

void TestGateway::OnDone(Exchange& exchange) {
  const std::lock_guard lock(mu_);
  done_.push_back(exchange.stats());
}

void TestGateway::OnRejected(Worker& /*worker*/, const NetworkAddress& /*client*/, int status,
                             std::string_view reason) {
  const std::lock_guard lock(mu_);
  rejected_.push_back(std::to_string(status) + " " + std::string(reason));
}

std::vector<ExchangeStats> TestGateway::done() {
  const std::lock_guard lock(mu_);
  return done_;
}

std::vector<std::string> TestGateway::rejected() {
  const std::lock_guard lock(mu_);
  return rejected_;
}

EngineOptions EngineTest::Patient() {
  constexpr std::chrono::minutes kLong{5};
  EngineOptions options{.listen = "127.0.0.1:0"};
  options.limits.tls_handshake = kLong;
  options.limits.head = kLong;
  options.limits.keep_alive_idle = kLong;
  options.limits.body_window = kLong;
  options.limits.write_stall = kLong;
  options.limits.upstream_idle = kLong;
  options.limits.linger = kLong;
  return options;
}

void EngineTest::ServeUpstream(FakeUpstream::Serve serve) {
  upstream = std::make_unique<FakeUpstream>(std::move(serve));
  auto target = ParseUpstreamUrl("http://127.0.0.1:" + std::to_string(upstream->port()) + "/up");
  ASSERT_THAT(target, IsOk());
  gateway.target = *std::move(target);
  gateway.target.connect_timeout = kPatience;
}

void EngineTest::AnswerUpstream(std::string response) {
  ServeUpstream([this, response = std::move(response)](RawSocket& socket) {
    while (!upstream->ReadRequest(socket).empty() && socket.Send(response)) {
    }
  });
}

void EngineTest::StartEngine() {
  auto started = Engine::Start(options, gateway);
  ASSERT_THAT(started, IsOk());
  engine = *std::move(started);
}

std::string EngineTest::Roundtrip(std::string_view request) {
  const auto client = Connect();
  client->Send(request);
  return client->ReadToEnd();
}

std::string Post(std::string_view body, std::string_view fields, std::string_view target) {
  return "POST " + std::string(target) + " HTTP/1.1\r\nHost: gw\r\nContent-Type: application/json\r\n" +
         std::string(fields) + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

int StatusOf(std::string_view response) {
  return response.size() < 12 ? 0 : std::atoi(std::string(response.substr(9, 3)).c_str());
}

std::string BodyOf(const std::string& response) {
  const size_t end = response.find("\r\n\r\n");
  return end == std::string::npos ? "" : response.substr(end + 4);
}

}  // namespace sallyport::edge::testing

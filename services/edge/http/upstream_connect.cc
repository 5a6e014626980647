// SPDX-License-Identifier: Apache-2.0
// From an upstream's name to a connection that can be written to.
#include <cerrno>
#include <cstring>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include "services/edge/http/upstream.h"
#include "services/edge/http/worker.h"

namespace sallyport::edge {
namespace {

socklen_t ToSockaddr(const NetworkAddress& address, sockaddr_storage& storage) {
  std::memset(&storage, 0, sizeof(storage));
  if (address.is_v4()) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(address.port);
    std::memcpy(&v4->sin_addr, address.bytes.data() + 12, 4);
    return sizeof(sockaddr_in);
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(address.port);
  std::memcpy(&v6->sin6_addr, address.bytes.data(), 16);
  return sizeof(sockaddr_in6);
}

// Name checks are OpenSSL's (RFC 6125); without them any certificate of a trusted authority would do.
bool ExpectHost(SSL* ssl, const std::string& host) {
  if (NetworkAddress::Parse(host).has_value()) {
    return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1;
  }
  std::string name = host;  // The control call takes no const.
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return SSL_set1_host(ssl, host.c_str()) == 1 &&
         SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data()) == 1;
}

}  // namespace

void Upstream::Dial(UpstreamClient& client, const UpstreamRequest& request) {
  client_ = &client;
  request_ = request;
  key_ = request.target->pool_key;
  tls_ = request.target->tls;
  reused_ = false;
  via_proxy_ = false;
  last_error_ = UpstreamError::kResolve;
  worker_.counters.upstream_connects.Add();
  worker_.SetTimer(*this, worker_.now() + request.target->connect_timeout.count());
  phase_ = Phase::kResolving;
  if (worker_.proxy == nullptr) {
    Resolve(request.target->host, request.target->port);
    return;
  }
  switch (worker_.gateway.RouteTo(*request.target)) {
    case UpstreamRoute::kDirect:
      Resolve(request.target->host, request.target->port);
      return;
    case UpstreamRoute::kProxy:
      via_proxy_ = true;
      last_error_ = UpstreamError::kProxyUnreachable;
      Resolve(worker_.proxy->host, worker_.proxy->port);
      return;
    case UpstreamRoute::kRefused:
      FailSoon(UpstreamError::kRefusedAddress);
      return;
  }
}

void Upstream::FailSoon(UpstreamError error) {
  boost::asio::post(worker_.io, [this, error, generation = generation_] {
    if (generation == generation_) {
      Fail(error);
    }
  });
}

void Upstream::Resolve(const std::string& host, uint16_t port) {
  if (const auto literal = NetworkAddress::Parse(host, port)) {
    addresses_.assign(1, *literal);
    next_address_ = 0;
    if (!TryNextAddress()) {
      FailSoon(last_error_);
    }
    return;
  }
  worker_.resolver.Resolve(host, port, worker_.now(),
                           [this, generation = generation_](std::vector<NetworkAddress> addresses) {
                             if (generation == generation_ && phase_ == Phase::kResolving) {
                               Resolved(std::move(addresses));
                             }
                           });
}

void Upstream::Resolved(std::vector<NetworkAddress> addresses) {
  addresses_ = std::move(addresses);
  next_address_ = 0;
  if (!TryNextAddress()) {
    Fail(last_error_);
  }
}

bool Upstream::TryNextAddress() {
  while (next_address_ < addresses_.size()) {
    const NetworkAddress& address = addresses_[next_address_++];
    // The proxy is the administrator's own choice, wherever it is but for what is never dialled.
    const bool allowed = via_proxy_ ? worker_.gateway.AllowProxyAddress(address)
                                    : worker_.gateway.AllowAddress(*request_.target, address);
    if (!allowed) {
      last_error_ = via_proxy_ ? UpstreamError::kProxyUnreachable : UpstreamError::kRefusedAddress;
      continue;
    }
    last_error_ = via_proxy_ ? UpstreamError::kProxyUnreachable : UpstreamError::kConnect;
    if (Connect(address)) {
      return true;
    }
  }
  return false;
}

bool Upstream::Connect(const NetworkAddress& address) {
  const bool v6 = !address.is_v4();
  const int fd = ::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return false;
  }
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  sockaddr_storage storage;
  const socklen_t size = ToSockaddr(address, storage);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&storage), size) != 0 && errno != EINPROGRESS) {
    ::close(fd);
    return false;
  }
  if (!stream_.Open(fd)) {
    ::close(fd);
    return false;
  }
  phase_ = Phase::kConnecting;
  stream_.WaitWrite();
  return true;
}

void Upstream::Connected() {
  if (stream_.ConnectError() != 0) {
    // The socket must be gone before the next address is tried; OnClosed goes on from here.
    closing_ = true;
    stream_.Close();
    return;
  }
  if (via_proxy_) {
    StartTunnel();
  } else {
    Opened();
  }
}

void Upstream::Opened() {
  if (tls_) {
    StartTls();
  } else {
    StartRequest();
  }
}

void Upstream::StartTls() {
  phase_ = Phase::kHandshake;
  std::shared_ptr<const ClientTls> tls = request_.target->client_tls;
  if (tls == nullptr) {
    tls = worker_.shared.DefaultClientTls();
  }
  const ClientCertificate* certificate = request_.target->client_certificate.get();
  if (tls == nullptr || !stream_.StartTls(tls->context(), /*server=*/false) ||
      !ExpectHost(stream_.ssl(), request_.target->host) ||
      (certificate != nullptr && !certificate->Use(stream_.ssl()))) {
    Fail(UpstreamError::kTls);
    return;
  }
  ContinueHandshake();
}

void Upstream::ContinueHandshake() {
  const ssize_t result = stream_.Handshake();
  if (result == Stream::kAgain) {
    stream_.WaitRead();
  } else if (result <= 0) {
    Fail(UpstreamError::kTls);
  } else {
    StartRequest();
  }
}

}  // namespace sallyport::edge

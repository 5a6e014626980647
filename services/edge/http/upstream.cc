// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/upstream.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include "services/edge/http/worker.h"

namespace sallyport::edge {
namespace {

// The pending read reports a close while idle; a look at the socket only covers what the event loop has not seen yet.
// Servers do not give up a connection this young, so the look is spared where it would be made most often.
constexpr Millis kCertainlyFresh = 100;

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

Upstream::Upstream(WorkerImpl& worker) : worker_(worker), stream_(worker.io, *this) {}
Upstream::~Upstream() = default;

void Upstream::Dial(UpstreamClient& client, const UpstreamRequest& request) {
  client_ = &client;
  request_ = request;
  key_ = request.target->pool_key;
  tls_ = request.target->tls;
  reused_ = false;
  last_error_ = UpstreamError::kResolve;
  worker_.counters.upstream_connects.Add();
  worker_.SetTimer(*this, worker_.now() + request.target->connect_timeout.count());
  phase_ = Phase::kResolving;
  if (const auto literal = NetworkAddress::Parse(request.target->host, request.target->port)) {
    addresses_.assign(1, *literal);
    next_address_ = 0;
    if (!TryNextAddress()) {
      // Not at once: our caller is still in the middle of forwarding.
      boost::asio::post(worker_.io, [this, generation = generation_] {
        if (generation == generation_) {
          Fail(last_error_);
        }
      });
    }
    return;
  }
  worker_.resolver.Resolve(request.target->host, request.target->port, worker_.now(),
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
    if (!worker_.gateway.AllowAddress(*request_.target, address)) {
      last_error_ = UpstreamError::kRefusedAddress;
      continue;
    }
    last_error_ = UpstreamError::kConnect;
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
  if (!stream_.Open(fd, v6)) {
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
  if (tls == nullptr || !stream_.StartTls(tls->context(), /*server=*/false) ||
      !ExpectHost(stream_.ssl(), request_.target->host)) {
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

void Upstream::Reuse(UpstreamClient& client, const UpstreamRequest& request) {
  client_ = &client;
  request_ = request;
  reused_ = true;
  worker_.counters.upstream_reuses.Add();
  StartRequest();
}

void Upstream::StartRequest() {
  phase_ = Phase::kHead;
  parser_ = ResponseParser(request_.head_method);
  sent_ = 0;
  all_sent_ = false;
  worker_.ClearTimer(*this);
  stream_.WaitRead();
  Send();
}

void Upstream::Send() {
  const size_t head = request_.head.size();
  const size_t total = head + request_.body.size();
  while (sent_ < total) {
    iovec parts[2];
    size_t count = 0;
    if (sent_ < head) {
      parts[count++] = {const_cast<char*>(request_.head.data()) + sent_, head - sent_};  // NOLINT: iovec has no const.
    }
    if (const size_t from = sent_ - std::min(sent_, head); from < request_.body.size()) {
      parts[count++] = {const_cast<char*>(request_.body.data()) + from, request_.body.size() - from};  // NOLINT
    }
    const ssize_t written = stream_.Write(parts, count);
    if (written == Stream::kAgain) {
      // A peer that takes nothing is as dead as one that answers nothing.
      worker_.SetTimer(*this, worker_.now() + request_.target->first_byte_timeout.count());
      stream_.WaitWrite();
      return;
    }
    if (written <= 0) {
      if (reused_ && sent_ == 0) {
        UpstreamClient* client = Detach();
        CloseNow();
        client->OnStaleConnection();
      }
      // Else the pending read tells: an answer may already lie in the socket (a refusal of the body), or the error
      // comes.
      return;
    }
    sent_ += static_cast<size_t>(written);
  }
  Sent();
}

void Upstream::Sent() {
  all_sent_ = true;
  worker_.SetTimer(*this, worker_.now() + request_.target->first_byte_timeout.count());
}

void Upstream::OnReadable() {
  worker_.Touch();
  switch (phase_) {
    case Phase::kIdle:  // Closed, or speaking out of turn: useless either way.
      worker_.upstreams.RemoveIdle(*this);
      CloseNow();
      return;
    case Phase::kHandshake:
      ContinueHandshake();
      return;
    case Phase::kHead:
      ReadHead();
      return;
    case Phase::kBody:
      ReadBody();
      return;
    default:
      return;
  }
}

void Upstream::OnWritable() {
  worker_.Touch();
  if (phase_ == Phase::kConnecting) {
    Connected();
  } else if (phase_ == Phase::kHead && !all_sent_) {
    Send();
  }
}

void Upstream::ReadHead() {
  if (!in_) {
    in_ = worker_.response_buffers.Take();
  }
  const ssize_t got = stream_.Read(in_->data + in_->end, in_->room());
  if (got == Stream::kAgain) {
    stream_.WaitRead();
    return;
  }
  if (got <= 0) {
    Fail(UpstreamError::kClosed);
    return;
  }
  in_->end += static_cast<size_t>(got);
  const ResponseParser::Result result = parser_.Parse(in_->data, in_->end, in_->head);
  if (result == ResponseParser::Result::kNeedMore) {
    if (in_->room() == 0) {
      Fail(UpstreamError::kBadResponse);
    } else {
      stream_.WaitRead();
    }
    return;
  }
  const ResponseHead& head = in_->head;
  if (result == ResponseParser::Result::kError || (!all_sent_ && head.status < 400)) {
    Fail(UpstreamError::kBadResponse);
    return;
  }
  in_->begin = parser_.head_size();
  phase_ = Phase::kBody;
  worker_.ClearTimer(*this);
  framing_ = head.framing;
  remaining_ = head.content_length;
  chunks_ = ChunkedDecoder();
  broken_chunks_ = false;
  keep_alive_ = head.keep_alive;
  keep_alive_timeout_ = head.keep_alive_timeout;
  const uint64_t generation = generation_;
  const bool keep_head = client_->OnResponseHead(head);
  if (generation != generation_ || client_ == nullptr) {
    return;
  }
  keep_ = keep_head ? in_->begin : 0;
  if (DeliverBody() && client_->TakesMore()) {
    stream_.WaitRead();
  }
}

void Upstream::ReadBody() {
  if (!client_->TakesMore()) {
    return;  // Resume will come.
  }
  if (!in_) {
    in_ = worker_.response_buffers.Take();
  }
  const ssize_t got = stream_.Read(in_->data + in_->end, in_->room());
  if (got == Stream::kAgain) {
    if (keep_ == 0) {
      ReleaseBuffer();
    }
    stream_.WaitRead();
    return;
  }
  if (got == 0 && framing_ == BodyFraming::kUntilClose) {
    FinishResponse(in_->data, 0);
    return;
  }
  if (got <= 0) {
    Truncated();
    return;
  }
  in_->end += static_cast<size_t>(got);
  if (DeliverBody() && client_->TakesMore()) {
    stream_.WaitRead();
  }
}

void Upstream::Resume() {
  if (phase_ == Phase::kBody) {
    stream_.WaitRead();
  }
}

bool Upstream::DeliverBody() {
  char* data = nullptr;
  bool last = false;
  const size_t size = TakeBody(data, last);
  if (last) {
    FinishResponse(data, size);
    return false;
  }
  const uint64_t generation = generation_;
  if (size > 0 || !broken_chunks_) {  // Without a byte, too: the head must not wait for one.
    client_->OnResponseBody(data, size, false);
    if (generation != generation_ || client_ == nullptr) {
      return false;
    }
  }
  if (broken_chunks_) {
    Truncated();
    return false;
  }
  in_->begin = in_->end = keep_;
  return true;
}

// Everything in the buffer is taken, but for bytes after the end of the body, which must not be there.
size_t Upstream::TakeBody(char*& data, bool& last) {
  data = in_->data + in_->begin;
  size_t size = in_->size();
  switch (framing_) {
    case BodyFraming::kNone:
      last = true;
      return 0;
    case BodyFraming::kLength:
      size = static_cast<size_t>(std::min<uint64_t>(size, remaining_));
      in_->begin += size;
      remaining_ -= size;
      last = remaining_ == 0;
      return size;
    case BodyFraming::kChunked:
      return DecodeChunks(data, last);
    case BodyFraming::kUntilClose:
      in_->begin = in_->end;
      return size;
  }
  return 0;
}

// Moves the pieces together, so that they leave as one chunk.
size_t Upstream::DecodeChunks(char*& data, bool& last) {
  std::string_view input(in_->data + in_->begin, in_->size());
  size_t size = 0;
  while (true) {
    std::string_view piece;
    switch (chunks_.Next(input, piece)) {
      case ChunkedDecoder::Result::kData:
        if (size == 0) {
          data = in_->data + (piece.data() - in_->data);
        } else {
          std::memmove(data + size, piece.data(), piece.size());
        }
        size += piece.size();
        continue;
      case ChunkedDecoder::Result::kDone:
        last = true;
        break;
      case ChunkedDecoder::Result::kError:
        broken_chunks_ = true;
        break;
      case ChunkedDecoder::Result::kNeedMore:
        break;
    }
    in_->begin = in_->end - input.size();
    return size;
  }
}

// The connection goes back to the pool before the client learns of the end: its next request may want it. The buffer
// stays with us until the client has used the bytes.
void Upstream::FinishResponse(char* data, size_t size) {
  std::unique_ptr<ResponseBuffer> buffer = std::move(in_);
  const bool reusable = keep_alive_ && all_sent_ && buffer->size() == 0 && !worker_.draining();
  UpstreamClient* client = Detach();
  Millis idle = worker_.limits.upstream_idle.count();
  if (keep_alive_timeout_ > 0) {
    idle = std::min<Millis>(idle, (Millis{keep_alive_timeout_} - 1) * 1000);
  }
  if (reusable && idle > 0 && worker_.upstreams.PutIdle(*this)) {
    GoIdle(worker_.now() + idle);
  } else {
    CloseNow();
  }
  client->OnResponseBody(data, size, true);
  worker_.response_buffers.Give(std::move(buffer));
}

void Upstream::GoIdle(Millis until) {
  phase_ = Phase::kIdle;
  idle_since_ = worker_.now();
  worker_.SetTimer(*this, until);
  stream_.WaitRead();  // Stays pending when the connection is used again: it is the wait for the response then.
}

bool Upstream::StillGood() {
  return stream_.open() && (worker_.now() - idle_since_ < kCertainlyFresh || !stream_.PeekReadable());
}

void Upstream::OnTimer() {
  switch (phase_) {
    case Phase::kIdle:
      worker_.upstreams.RemoveIdle(*this);
      CloseNow();
      return;
    case Phase::kResolving:
    case Phase::kConnecting:
    case Phase::kHandshake:
      Fail(UpstreamError::kConnectTimeout);
      return;
    case Phase::kHead:
      Fail(UpstreamError::kFirstByteTimeout);
      return;
    default:
      return;
  }
}

UpstreamClient* Upstream::Detach() {
  ++generation_;
  UpstreamClient* client = client_;
  client_ = nullptr;
  return client;
}

void Upstream::Fail(UpstreamError error) {
  UpstreamClient* client = Detach();
  CloseNow();
  if (client != nullptr) {
    client->OnResponseFailed(error);
  }
}

void Upstream::Truncated() {
  UpstreamClient* client = Detach();
  CloseNow();
  client->OnResponseTruncated();
}

void Upstream::Abandon() {
  Detach();
  CloseNow();
}

void Upstream::ReleaseBuffer() { worker_.response_buffers.Give(std::move(in_)); }

void Upstream::CloseNow() {
  if (phase_ == Phase::kClosed) {
    return;
  }
  ++generation_;
  phase_ = Phase::kClosed;
  worker_.ClearTimer(*this);
  ReleaseBuffer();
  if (stream_.open()) {
    closing_ = true;
    stream_.Close();
  } else if (!closing_) {
    worker_.upstreams.Recycle(*this);  // Never had a socket.
  }
}

void Upstream::OnClosed() {
  closing_ = false;
  if (phase_ == Phase::kClosed) {
    worker_.upstreams.Recycle(*this);
  } else if (!TryNextAddress()) {  // Connecting.
    Fail(last_error_);
  }
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
// The tunnel through the egress proxy: CONNECT (RFC 9110 section 9.3.6) and its answer, before anything of the
// upstream's own is sent.
#include <openssl/crypto.h>

#include "common/text/string_view.h"
#include "services/edge/http/upstream.h"
#include "services/edge/http/worker.h"

namespace sallyport::edge {
namespace {

UpstreamError AnswerError(int status) {
  return status == 407 ? UpstreamError::kProxyUnauthorized : UpstreamError::kProxyRefused;
}

}  // namespace

Upstream::Tunnel::~Tunnel() { OPENSSL_cleanse(request.data(), request.size()); }

void Upstream::StartTunnel() {
  const bool v6 = request_.target->host.find(':') != std::string::npos;
  const std::string authority =
      (v6 ? "[" + request_.target->host + "]" : request_.target->host) + ":" + std::to_string(request_.target->port);
  const std::string_view authorization = ToStd(worker_.proxy->authorization.Expose());
  constexpr std::string_view kField = "Proxy-Authorization: ";
  tunnel_ = std::make_unique<Tunnel>();
  std::string& out = tunnel_->request;
  // At once: what a growing string leaves behind is not wiped.
  out.reserve(2 * authority.size() + authorization.size() + 64);
  out.append("CONNECT ").append(authority).append(" HTTP/1.1\r\nHost: ").append(authority).append("\r\n");
  if (!authorization.empty()) {
    out.append(kField).append(authorization).append("\r\n");
  }
  out.append("\r\n");
  parser_ = ResponseParser();
  phase_ = Phase::kTunnel;
  stream_.WaitRead();
  SendTunnel();
}

void Upstream::SendTunnel() {
  while (tunnel_->sent < tunnel_->request.size()) {
    const iovec part{tunnel_->request.data() + tunnel_->sent, tunnel_->request.size() - tunnel_->sent};
    const ssize_t written = stream_.Write(&part, 1);
    if (written == Stream::kAgain) {
      stream_.WaitWrite();
      return;
    }
    if (written <= 0) {
      return;  // The pending read tells: a refusal may already lie in the socket, or the error comes.
    }
    tunnel_->sent += static_cast<size_t>(written);
  }
}

void Upstream::ReadTunnel() {
  if (!in_) {
    in_ = worker_.response_buffers.Take();
  }
  const ssize_t got = stream_.Read(in_->data + in_->end, in_->room());
  if (got == Stream::kAgain) {
    stream_.WaitRead();
    return;
  }
  if (got <= 0) {
    Fail(UpstreamError::kProxyBadResponse);
    return;
  }
  in_->end += static_cast<size_t>(got);
  const ResponseParser::Result result = parser_.Parse(in_->data, in_->end, in_->head);
  if (result == ResponseParser::Result::kNeedMore && in_->room() > 0) {
    stream_.WaitRead();
    return;
  }
  if (result != ResponseParser::Result::kDone) {
    Fail(UpstreamError::kProxyBadResponse);
    return;
  }
  const int status = in_->head.status;
  if (status < 200 || status > 299) {
    Fail(AnswerError(status));  // Its body is not read.
    return;
  }
  // Whatever the fields say, a tunnel's answer has no body, and the upstream speaks only when spoken to: bytes that
  // come now would be taken for its answer.
  if (in_->end != parser_.head_size() || tunnel_->sent < tunnel_->request.size()) {
    Fail(UpstreamError::kProxyBadResponse);
    return;
  }
  ReleaseBuffer();
  tunnel_.reset();
  Opened();
}

}  // namespace sallyport::edge

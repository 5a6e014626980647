// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/upstream.h"

#include <algorithm>

#include "services/edge/http/worker.h"

namespace sallyport::edge {

Upstream::Upstream(WorkerImpl& worker) : worker_(worker), stream_(worker.io, worker.poller, *this) {}
Upstream::~Upstream() = default;

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
    case Phase::kTunnel:
      ReadTunnel();
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
  } else if (phase_ == Phase::kTunnel) {
    SendTunnel();
  } else if (phase_ == Phase::kHead && !all_sent_) {
    Send();
  }
}

void Upstream::GoIdle(Millis until) {
  phase_ = Phase::kIdle;
  idle_until_ = until;
  worker_.SetTimer(*this, until);
  stream_.WaitRead();  // Stays pending when the connection is used again: it is the wait for the response then.
}

// The pending read reports a close, or bytes nobody asked for, while idle; but the event loop may not have come to it
// yet. However young the connection is: such bytes would be taken for the answer to the next caller's request. Nor may
// the loop have come to its timer yet.
bool Upstream::StillGood() { return stream_.open() && worker_.now() < idle_until_ && !stream_.PeekReadable(); }

void Upstream::OnTimer() {
  switch (phase_) {
    case Phase::kIdle:
      worker_.upstreams.RemoveIdle(*this);
      CloseNow();
      return;
    case Phase::kResolving:
    case Phase::kConnecting:
    case Phase::kTunnel:
      Fail(via_proxy_ ? UpstreamError::kProxyTimeout : UpstreamError::kConnectTimeout);
      return;
    case Phase::kHandshake:
      Fail(UpstreamError::kConnectTimeout);
      return;
    case Phase::kHead:
      Fail(UpstreamError::kFirstByteTimeout);
      return;
    case Phase::kBody:
      if (client_->TakesMore()) {
        Truncated();
      } else {
        WaitForBody();  // It is our client who is slow.
      }
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
  if (IsProxyError(error)) {
    worker_.CountProxyFailure(error);
  }
  UpstreamClient* client = Detach();
  CloseNow();
  if (client != nullptr) {
    client->OnResponseFailed(error);
  }
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
  tunnel_.reset();
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

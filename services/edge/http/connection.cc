// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/connection.h"

#include <algorithm>
#include <string>
#include <unistd.h>

#include "services/edge/http/header_rules.h"
#include "services/edge/http/response_rules.h"
#include "services/edge/http/worker.h"

namespace sallyport::edge {
namespace {

// Fibonacci hashing: neighbours end up far apart.
constexpr uint64_t kSpread = 0x9e3779b97f4a7c15 >> 32;
constexpr Millis kLookout = 500;

}  // namespace

Connection::Connection(WorkerImpl& worker) : worker_(worker), stream_(worker.io, worker.poller, *this) {}

Connection::~Connection() {
  if (ref_target_ != nullptr) {
    ref_target_->Disconnect();
  }
}

Worker& Connection::worker() { return worker_; }

void Connection::Start(int fd, const NetworkAddress& peer) {
  peer_ = peer;
  opened_ = worker_.now();
  // Up to a tenth more, so that the clients of a restart do not come back all at once.
  const Millis age = worker_.limits.keep_alive_age.count();
  most_age_ = age + static_cast<Millis>(worker_.counters.accepted.value() * kSpread % 1024) * age / 10 / 1024;
  requests_ = 0;
  close_after_ = unread_input_ = broken_ = http10_ = head_method_ = answered_ = false;
  parser_.Reset();
  head_deadline_ = kNever;
  phase_ = Phase::kHead;
  if (!stream_.Open(fd)) {
    ::close(fd);
    CloseStream();
    return;
  }
  const std::shared_ptr<SSL_CTX> tls = worker_.shared.ServerContext();
  if (tls == nullptr) {
    worker_.SetTimer(*this, opened_ + worker_.limits.keep_alive_idle.count());
    stream_.WaitRead();
    return;
  }
  phase_ = Phase::kHandshake;
  worker_.SetTimer(*this, opened_ + worker_.limits.tls_handshake.count());
  if (!stream_.StartTls(tls.get(), /*server=*/true)) {
    CloseStream();
    return;
  }
  stream_.WaitRead();
}

void Connection::OnReadable() {
  worker_.Touch();
  switch (phase_) {
    case Phase::kHandshake:
      ContinueHandshake();
      return;
    case Phase::kHead:
      ReadInput();
      return;
    case Phase::kBody:
      ReadBody();
      return;
    case Phase::kBusy:
    case Phase::kFlush:
      WatchClient();
      return;
    case Phase::kLinger:
      Discard();
      return;
    case Phase::kClosed:
      return;
  }
}

void Connection::ContinueHandshake() {
  const ssize_t result = stream_.Handshake();
  if (result == Stream::kAgain) {
    stream_.WaitRead();
  } else if (result <= 0) {
    CloseStream();
  } else {
    phase_ = Phase::kHead;
    worker_.SetTimer(*this, worker_.now() + worker_.limits.keep_alive_idle.count());
    stream_.WaitRead();
  }
}

void Connection::ReadInput() {
  if (!in_) {
    in_ = worker_.request_buffers.Take();
  }
  const ssize_t got = stream_.Read(in_->data + in_->end, in_->room());
  if (got > 0) {
    in_->end += static_cast<size_t>(got);
    ProcessInput();
  } else if (got == Stream::kAgain) {
    if (in_->size() == 0) {
      ReleaseInput();
    }
    stream_.WaitRead();
  } else {
    CloseStream();
  }
}

// A loop, not a recursion: a buffer full of pipelined requests must not decide how deep our stack gets.
void Connection::ProcessInput() {
  if (processing_) {
    again_ = true;
    return;
  }
  processing_ = true;
  do {
    again_ = false;
    ParseHead();
  } while (again_);
  processing_ = false;
}

void Connection::ParseHead() {
  if (phase_ != Phase::kHead) {
    return;
  }
  switch (parser_.Parse(in_->data, in_->end, in_->head)) {
    case RequestParser::Result::kNeedMore:
      if (head_deadline_ == kNever) {
        head_deadline_ = worker_.now() + worker_.limits.head.count();
        worker_.SetTimer(*this, head_deadline_);
      }
      stream_.WaitRead();
      return;
    case RequestParser::Result::kError:
      Reject(parser_.status(), parser_.reason());
      return;
    case RequestParser::Result::kDone:
      in_->begin = parser_.head_size();
      StartExchange();
      return;
  }
}

void Connection::StartExchange() {
  ++requests_;
  worker_.counters.requests.Add();
  worker_.ClearTimer(*this);
  stats_ = ExchangeStats();
  stats_.started = worker_.time();
  http10_ = in_->head.minor_version == 0;
  head_method_ = in_->head.method == "HEAD";
  answered_ = streaming_ = heartbeats_ = chunked_out_ = continue_sent_ = body_is_large_ = false;
  body_ = {};
  chunks_ = ChunkedDecoder();
  if (worker_.memory_level() >= MemoryLevel::kNoRequests) {
    worker_.counters.memory_requests.Add();
    Reject(503, "memory_limit");
    return;
  }
  if (!state_made_) {
    state_ = worker_.gateway.NewState(worker_);
    state_made_ = true;
  }
  phase_ = Phase::kBody;
  in_exchange_ = true;
  body_limit_ = worker_.gateway.OnHead(*this);
  if (phase_ != Phase::kBody || !in_exchange_) {
    return;  // Answered.
  }
  const RequestHead& head = in_->head;
  if (head.framing == BodyFraming::kLength && head.content_length > body_limit_) {
    Reject(413, "body_too_large");
    return;
  }
  if (TakeBody()) {
    StartRequest();
  } else if (phase_ == Phase::kBody) {
    WaitForBody();
  }
}

void Connection::StartRequest() {
  phase_ = Phase::kBusy;
  worker_.ClearTimer(*this);
  stats_.request_body_bytes = body_.size();
  const uint64_t generation = generation_;
  worker_.gateway.OnRequest(*this);
  if (generation == generation_ && phase_ == Phase::kBusy) {
    worker_.Watch(*this);
  }
}

void Connection::StartWatching() { stream_.WaitRead(); }

// The client's next request may come while this one is answered; what matters here is whether the client is still
// there. A full buffer is no reason to read on, nor to forget the client.
void Connection::WatchClient() {
  if (in_->room() == 0) {
    if (stream_.PeerGone()) {
      End(Outcome::kClientGone);
      return;
    }
    worker_.SetTimer(lookout_, worker_.now() + kLookout);
    return;
  }
  const ssize_t got = stream_.Read(in_->data + in_->end, in_->room());
  if (got == 0 || got == Stream::kFailed) {
    End(Outcome::kClientGone);
    return;
  }
  in_->end += static_cast<size_t>(std::max<ssize_t>(got, 0));
  if (in_->room() > 0) {
    stream_.WaitRead();
  } else {
    worker_.SetTimer(lookout_, worker_.now() + kLookout);
  }
}

void Connection::OnTimer() {
  switch (phase_) {
    case Phase::kHead:
      if (in_ != nullptr && in_->size() > 0) {
        Reject(408, "head_timeout");
        return;
      }
      CloseStream();
      return;
    case Phase::kBody:
      CheckBodyRate();
      return;
    case Phase::kBusy:
    case Phase::kFlush:
      OnSendTimer();
      return;
    default:
      CloseStream();
      return;
  }
}

void Connection::Reject(int status, std::string_view reason) {
  worker_.counters.rejected.Add();
  worker_.gateway.OnRejected(worker_, peer_, status, reason);
  close_after_ = unread_input_ = true;
  phase_ = Phase::kBusy;
  std::string fields = "Content-Type: application/json\r\n";
  if (!in_exchange_) {
    fields += kNoPageFields;  // Nobody knows yet for whom it was.
  }
  if (status == 405) {
    fields += "Allow: ";
    fields += kAllowedMethods;
    fields += "\r\n";
  } else if (status == 503) {
    fields += "Retry-After: 1\r\n";
  }
  Answer(status, fields, "{\"error\":\"" + std::string(reason) + "\"}");
}

void Connection::NextRequest() {
  phase_ = Phase::kHead;
  parser_.Reset();
  head_deadline_ = kNever;
  if (in_ != nullptr && in_->size() > 0) {
    in_->Compact();
    if (processing_) {
      again_ = true;
      return;
    }
    // Not at once: our caller may be the gateway.
    boost::asio::post(worker_.io, [this, generation = generation_] {
      if (generation == generation_ && phase_ == Phase::kHead) {
        worker_.Touch();
        ProcessInput();
      }
    });
    return;
  }
  // The head of a long answer was sent, without "Connection: close", before anybody knew.
  if (worker_.draining()) {
    CloseStream();
    return;
  }
  ReleaseInput();
  worker_.SetTimer(*this, worker_.now() + worker_.limits.keep_alive_idle.count());
  stream_.WaitRead();
}

// Closing a socket with unread input resets it, and the reset may overtake the answer (RFC 9112 section 9.6).
void Connection::CloseGracefully() {
  stream_.ShutdownSend();
  if (!unread_input_ && (in_ == nullptr || in_->size() == 0)) {
    CloseStream();
    return;
  }
  ReleaseInput();
  phase_ = Phase::kLinger;
  worker_.SetTimer(*this, worker_.now() + worker_.limits.linger.count());
  stream_.WaitRead();
}

void Connection::Discard() {
  char waste[4096];
  for (int reads = 0; reads < 16; ++reads) {
    const ssize_t got = stream_.Read(waste, sizeof(waste));
    if (got == Stream::kAgain) {
      break;
    }
    if (got <= 0) {
      CloseStream();
      return;
    }
  }
  stream_.WaitRead();
}

void Connection::CloseIdle() {
  if (idle()) {
    CloseStream();
  }
}

void Connection::Cut() {
  if (in_exchange_) {
    End(Outcome::kAborted);
  } else {
    CloseStream();
  }
}

void Connection::ReleaseInput() { worker_.request_buffers.Give(std::move(in_)); }

void Connection::CloseStream() {
  if (phase_ == Phase::kClosed) {
    return;
  }
  phase_ = Phase::kClosed;
  ++generation_;
  worker_.ClearTimer(*this);
  worker_.ClearTimer(lookout_);
  ReleaseInput();
  large_body_.Release();
  out_.clear();
  out_sent_ = 0;
  if (stream_.open()) {
    stream_.Close();
  } else {
    worker_.Recycle(*this);
  }
}

void Connection::OnClosed() { worker_.Recycle(*this); }

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
// The forwarding half of Connection.
#include <algorithm>
#include <utility>

#include "services/edge/http/connection.h"
#include "services/edge/http/field_parser.h"
#include "services/edge/http/worker.h"

namespace sallyport::edge {
namespace {

constexpr size_t kMostCollected = 1 << 20;

// A field "data" in an event stream; comments alone are no event.
bool HoldsData(std::string_view events) {
  return events.starts_with("data") || events.find("\ndata") != std::string_view::npos ||
         events.find("\rdata") != std::string_view::npos;
}

}  // namespace

void Connection::Forward(const UpstreamTarget& target, std::string_view body) {
  if (!in_exchange_ || phase_ != Phase::kBusy || upstream_ != nullptr || (answered_ && !streaming_)) {
    return;
  }
  request_ = {&target, upstream_head_, body, std::string_view(upstream_head_).starts_with("HEAD ")};
  mode_ = Mode::kRelay;
  event_begun_ = false;
  ++stats_.forwards;
  stats_.upstream_sent = worker_.time();
  SendUpstream(/*fresh=*/false);
}

void Connection::SendUpstream(bool fresh) {
  Upstream* idle = fresh ? nullptr : worker_.upstreams.TakeIdle(request_.target->pool_key);
  stats_.upstream_reused = idle != nullptr;
  if (idle != nullptr) {
    upstream_ = idle;
    idle->Reuse(*this, request_);
  } else {
    upstream_ = &worker_.upstreams.New();
    upstream_->Dial(*this, request_);
  }
}

bool Connection::OnResponseHead(const ResponseHead& head) {
  stats_.upstream_first = worker_.time();
  stats_.upstream_status = head.status;
  std::string& fields = worker_.scratch;
  fields.clear();
  RelayHead relay{head.status, fields};
  const uint64_t generation = generation_;
  const Verdict verdict = worker_.gateway.OnUpstreamHead(*this, head, relay);
  if (generation != generation_ || upstream_ == nullptr) {
    return false;  // Aborted, or answered otherwise.
  }
  if (verdict == Verdict::kCollect) {
    mode_ = Mode::kCollect;
    collected_.clear();
    collected_head_ = &head;
    boundary_ = EventBoundary();
    return true;
  }
  if (verdict == Verdict::kDiscard) {
    Decide(head, {});
    return false;
  }
  if (verdict == Verdict::kRelayHead || verdict == Verdict::kRelayIfEmpty) {
    mode_ = verdict == Verdict::kRelayHead ? Mode::kDropped : Mode::kEmpty;
    collected_head_ = &head;
    if (!streaming_) {
      StartRelay(head, relay.status, {BodyFraming::kNone, 0, relay.status != 204});
      heartbeats_ = false;
    }
    return true;
  }
  if (streaming_) {
    mode_ = head.event_stream ? Mode::kRelay : Mode::kEvent;
  } else if (!head.event_stream || in_->head.method != "GET" || !RefuseStream()) {
    // A stream that answers a call is no new one: the call has been made, and would be made again.
    StartRelay(head, relay.status, RelayFraming(head, relay.status));
  }
  return false;
}

Connection::Framing Connection::RelayFraming(const ResponseHead& head, int status) const {
  Framing framing;
  switch (head.framing) {
    case BodyFraming::kNone: {
      const HeaderField* length = head.Find(HeaderId::kContentLength);
      framing.length = length == nullptr ? 0 : ParseContentLength(length->value).value_or(0);
      framing.announce = head_method_ || status == 304 ? length != nullptr : status != 204;
      if (!head_method_ && status != 304) {
        framing.length = 0;
      }
      return framing;
    }
    case BodyFraming::kLength:
      return {BodyFraming::kLength, head.content_length};
    default:
      framing.kind = http10_ ? BodyFraming::kUntilClose : BodyFraming::kChunked;
      return framing;
  }
}

void Connection::StartRelay(const ResponseHead& head, int status, const Framing& framing) {
  head_out_.clear();
  AppendStatusLine(status, head_out_);
  if (head.Find(HeaderId::kDate) == nullptr) {
    head_out_ += worker_.date();  // RFC 9110 section 6.6.1
  }
  head_out_ += common_fields_;
  head_out_ += worker_.scratch;
  AppendFraming(framing, head_out_);
  answered_ = true;
  stats_.status = status;
  boundary_ = EventBoundary();
  heartbeats_ = head.event_stream && !head.content_encoded && framing.kind != BodyFraming::kLength &&
                framing.kind != BodyFraming::kNone;
  if (heartbeats_) {
    last_sent_ = worker_.now();
    ArmTimer();
  }
}

void Connection::OnResponseBody(char* data, size_t size, bool last) {
  if (last) {
    upstream_ = nullptr;
  }
  if (mode_ == Mode::kCollect) {
    CollectPiece({data, size}, last);
  } else if (mode_ == Mode::kEvent) {
    EventPiece(data, size, last);
  } else if (mode_ == Mode::kDropped || mode_ == Mode::kEmpty) {
    HeadOnlyPiece({data, size}, last);
  } else if ((size > 0 || last || !head_out_.empty()) && SendBody({}, {data, size}, {}, last) && last) {
    Complete();
  }
}

void Connection::CollectPiece(std::string_view piece, bool last) {
  if (collected_.size() + piece.size() > kMostCollected) {
    DropUpstream();
    collected_.clear();
    worker_.gateway.OnUpstreamError(*this, UpstreamError::kTooLarge);
    return;
  }
  collected_ += piece;
  boundary_.Passed(piece);
  if (last) {
    worker_.gateway.OnUpstreamBody(*this, *collected_head_, collected_);
  } else if (collected_head_->event_stream && boundary_.place() == EventBoundary::Place::kBetweenEvents &&
             HoldsData(collected_)) {
    Decide(*collected_head_, collected_);
  }
}

// kEmpty: the head waits until it is known that nothing follows it. kDropped: it does not; a body that has not come
// whole with its head costs the connection.
void Connection::HeadOnlyPiece(std::string_view piece, bool last) {
  if (mode_ == Mode::kDropped || (last && piece.empty())) {
    DropUpstream();
    if (SendBody({}, {}, {}, true)) {
      Complete();
    }
    return;
  }
  if (piece.empty()) {
    return;
  }
  TakeBackHead();
  if (last) {
    worker_.gateway.OnUpstreamBody(*this, *collected_head_, piece);
  } else {
    Decide(*collected_head_, piece);
  }
}

void Connection::TakeBackHead() {
  head_out_.clear();
  if (!streaming_) {
    answered_ = heartbeats_ = false;
    stats_.status = 0;
  }
}

// `head` lives in the upstream's buffer: the upstream goes last. It is not ours any more meanwhile, so that the gateway
// may forward again.
void Connection::Decide(const ResponseHead& head, std::string_view body) {
  Upstream* upstream = std::exchange(upstream_, nullptr);
  worker_.gateway.OnUpstreamBody(*this, head, body);
  upstream->Abandon();
}

// A JSON answer becomes the data of one event. A raw line end is white space in JSON, and would end the data line.
void Connection::EventPiece(char* data, size_t size, bool last) {
  std::replace_if(
      data, data + size, [](char c) { return c == '\n' || c == '\r'; }, ' ');
  const std::string_view before = event_begun_ || (size == 0 && !last) ? "" : "event: message\ndata: ";
  event_begun_ = event_begun_ || size > 0;
  if (size == 0 && !last) {
    return;
  }
  if (last && !event_begun_) {  // Nothing to say (202): the stream just ends.
    if (SendBody({}, {}, {}, true)) {
      Complete();
    }
    return;
  }
  if (SendBody(before, {data, size}, last ? "\n\n" : "", last) && last) {
    Complete();
  }
}

void Connection::OnResponseFailed(UpstreamError error) {
  upstream_ = nullptr;
  worker_.gateway.OnUpstreamError(*this, error);
}

void Connection::OnResponseTruncated() {
  upstream_ = nullptr;
  if (mode_ == Mode::kCollect || mode_ == Mode::kEmpty) {
    TakeBackHead();
    worker_.gateway.OnUpstreamError(*this, UpstreamError::kClosed);
    return;
  }
  if (!head_out_.empty()) {  // Not a byte has left: it can still be said in so many words.
    TakeBackHead();
    worker_.gateway.OnUpstreamError(*this, UpstreamError::kBadResponse);
    return;
  }
  if (!chunked_out_ && http10_) {
    stream_.ResetOnClose();  // Without a length an orderly end would look like a complete answer.
  }
  heartbeats_ = false;
  broken_ = true;
  phase_ = Phase::kFlush;
  if (out_.empty()) {
    Finish();
  }
}

void Connection::OnStaleConnection() {
  upstream_ = nullptr;
  SendUpstream(/*fresh=*/true);
}

void Connection::DropUpstream() {
  if (upstream_ != nullptr) {
    Upstream* upstream = upstream_;
    upstream_ = nullptr;
    upstream->Abandon();
  }
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
// How a connection takes a request's body off the wire.
#include <algorithm>

#include "services/edge/http/connection.h"
#include "services/edge/http/worker.h"

namespace sallyport::edge {

void Connection::WaitForBody() {
  if (in_->head.expect_continue && !continue_sent_) {
    continue_sent_ = true;
    if (!Send({"HTTP/1.1 100 Continue\r\n\r\n"})) {
      return;
    }
  }
  window_bytes_ = 0;
  worker_.SetTimer(*this, worker_.now() + worker_.limits.body_window.count());
  stream_.WaitRead();
}

void Connection::ReadBody() {
  const ssize_t got = ReadBodyBytes();
  if (phase_ != Phase::kBody) {
    return;  // Refused for lack of memory.
  }
  if (got == 0 || got == Stream::kFailed) {
    End(Outcome::kClientGone);
    return;
  }
  window_bytes_ += static_cast<uint64_t>(std::max<ssize_t>(got, 0));
  if (TakeBody()) {
    StartRequest();
  } else if (phase_ == Phase::kBody) {
    stream_.WaitRead();
  }
}

ssize_t Connection::ReadBodyBytes() {
  if (!body_is_large_ || in_->head.framing == BodyFraming::kChunked) {
    const ssize_t got = stream_.Read(in_->data + in_->end, in_->room());
    in_->end += static_cast<size_t>(std::max<ssize_t>(got, 0));
    return got;
  }
  const uint64_t length = in_->head.content_length;
  if (large_body_.room() == 0 && !GrowBody(length)) {
    return Stream::kAgain;
  }
  const size_t wanted = static_cast<size_t>(std::min<uint64_t>(large_body_.room(), length - large_body_.size()));
  const ssize_t got = stream_.Read(large_body_.tail(), wanted);
  large_body_.Added(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return got;
}

bool Connection::TakeBody() {
  switch (in_->head.framing) {
    case BodyFraming::kLength:
      return TakeLengthBody();
    case BodyFraming::kChunked:
      return TakeChunkedBody();
    default:
      return true;
  }
}

bool Connection::TakeLengthBody() {
  const uint64_t length = in_->head.content_length;
  if (!body_is_large_) {
    if (in_->size() >= length) {
      body_ = {in_->data + in_->begin, static_cast<size_t>(length)};
      in_->begin += static_cast<size_t>(length);
      return true;
    }
    if (length <= RequestBuffer::kCapacity - in_->begin) {
      return false;
    }
    body_is_large_ = true;
    if (!GrowBody(length)) {
      return false;
    }
    large_body_.Append({in_->data + in_->begin, in_->size()});  // Less than kFirst of BodyBuffer: it fits.
    in_->begin = in_->end = parser_.head_size();  // Room for what follows the body, or for the client's departure.
  }
  body_ = {large_body_.data(), large_body_.size()};
  return large_body_.size() == length;
}

bool Connection::TakeChunkedBody() {
  body_is_large_ = true;
  while (true) {
    std::string_view input(in_->data + in_->begin, in_->size());
    std::string_view piece;
    const ChunkedDecoder::Result result = chunks_.Next(input, piece);
    in_->begin = in_->end - input.size();
    switch (result) {
      case ChunkedDecoder::Result::kNeedMore:
        in_->begin = in_->end = parser_.head_size();
        return false;
      case ChunkedDecoder::Result::kError:
        Reject(400, "chunked_body");
        return false;
      case ChunkedDecoder::Result::kDone:
        body_ = {large_body_.data(), large_body_.size()};
        return true;
      case ChunkedDecoder::Result::kData:
        break;
    }
    if (chunks_.body_bytes() > body_limit_) {
      Reject(413, "body_too_large");
      return false;
    }
    while (large_body_.room() < piece.size()) {
      if (!GrowBody(body_limit_)) {
        return false;
      }
    }
    large_body_.Append(piece);
  }
}

bool Connection::GrowBody(uint64_t limit) {
  if (large_body_.Grow(limit, worker_.shared.body_memory, worker_.limits.body_memory)) {
    return true;
  }
  Reject(503, "body_memory");
  return false;
}

void Connection::CheckBodyRate() {
  const Millis window = worker_.limits.body_window.count();
  if (window_bytes_ * 1000 < uint64_t{worker_.limits.body_rate} * static_cast<uint64_t>(window)) {
    Reject(408, "body_timeout");
    return;
  }
  window_bytes_ = 0;
  worker_.SetTimer(*this, worker_.now() + window);
}

void Connection::CutBody(size_t offset, size_t length) {
  offset = std::min(offset, body_.size());
  length = std::min(length, body_.size() - offset);
  char* bytes = body_is_large_ ? large_body_.data() : in_->data + (body_.data() - in_->data);
  std::copy(body_.begin() + static_cast<ptrdiff_t>(offset + length), body_.end(), bytes + offset);
  body_.remove_suffix(length);
}

}  // namespace sallyport::edge

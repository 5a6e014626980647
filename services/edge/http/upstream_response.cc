// SPDX-License-Identifier: Apache-2.0
// What an upstream answers: head, body and its framing, and where the connection goes afterwards.
#include <algorithm>
#include <cstring>

#include "services/edge/http/upstream.h"
#include "services/edge/http/worker.h"

namespace sallyport::edge {

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
    Fail(stream_.alerted() ? UpstreamError::kTls : UpstreamError::kClosed);
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
  const bool event_stream = head.event_stream;
  const bool keep_head = client_->OnResponseHead(head);
  if (generation != generation_ || client_ == nullptr) {
    return;
  }
  keep_ = keep_head ? in_->begin : 0;
  endless_ = event_stream && !keep_head;
  if (DeliverBody() && client_->TakesMore()) {
    WaitForBody();
  }
}

void Upstream::WaitForBody() {
  if (!endless_) {
    // A server that sends the head early may think as long as one that does not.
    worker_.SetTimer(*this, worker_.now() + request_.target->first_byte_timeout.count());
  }
  stream_.WaitRead();
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
    WaitForBody();
  }
}

void Upstream::Resume() {
  if (phase_ == Phase::kBody) {
    WaitForBody();
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
  const Millis idle = TimeKeptIdle(worker_.limits.upstream_idle.count(), keep_alive_timeout_);
  if (reusable && idle > 0 && worker_.upstreams.PutIdle(*this)) {
    GoIdle(worker_.now() + idle);
  } else {
    CloseNow();
  }
  client->OnResponseBody(data, size, true);
  worker_.response_buffers.Give(std::move(buffer));
}

void Upstream::Truncated() {
  UpstreamClient* client = Detach();
  CloseNow();
  client->OnResponseTruncated();
}

}  // namespace sallyport::edge

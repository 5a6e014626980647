// SPDX-License-Identifier: Apache-2.0
// The answering half of Connection.
#include <algorithm>
#include <charconv>
#include <utility>

#include "services/edge/http/connection.h"
#include "services/edge/http/header_rules.h"
#include "services/edge/http/worker.h"

namespace sallyport::edge {
namespace {

constexpr std::string_view kLastChunk = "0\r\n\r\n";
constexpr size_t kKeptCapacity = 64 * 1024;

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";  // RFC 9112 section 4: clients ignore it.
  }
}

void AppendNumber(uint64_t number, int base, std::string& out) {
  char digits[24];
  out.append(digits, std::to_chars(digits, digits + sizeof(digits), number, base).ptr);
}

bool HasNoBody(int status) { return status == 204 || status == 304; }

// The engine's own fields; the gateway may not set them.
bool IsEngineField(HeaderId id) { return IsHopByHop(id) || id == HeaderId::kContentLength || id == HeaderId::kDate; }

bool AppendFields(std::span<const Field> fields, std::string& out) {
  for (const Field& field : fields) {
    HeaderId id = HeaderId::kOther;
    if (!ClassifyToken(field.name, id) || !IsFieldValue(field.value) || IsEngineField(id)) {
      return false;
    }
    out += field.name;
    out += ": ";
    out += field.value;
    out += "\r\n";
  }
  return true;
}

bool Names(std::span<const Field> fields, std::string_view name) {
  return std::any_of(fields.begin(), fields.end(),
                     [name](const Field& field) { return EqualIgnoreCase(field.name, name); });
}

}  // namespace

void Connection::AppendStatusLine(int status, std::string& out) const {
  out += "HTTP/1.1 ";
  AppendNumber(static_cast<uint64_t>(status), 10, out);
  out += ' ';
  out += ReasonPhrase(status);
  out += "\r\n";
}

void Connection::AppendFraming(const Framing& framing, std::string& out) {
  const EngineLimits& limits = worker_.limits;
  close_after_ = close_after_ || http10_ || (in_exchange_ && !in_->head.keep_alive) || worker_.draining() ||
                 worker_.memory_level() >= MemoryLevel::kNoRequests || requests_ >= limits.keep_alive_requests ||
                 worker_.now() - opened_ > most_age_ || framing.kind == BodyFraming::kUntilClose;
  if (framing.kind == BodyFraming::kChunked) {
    out += "Transfer-Encoding: chunked\r\n";
  } else if (framing.kind == BodyFraming::kLength || (framing.kind == BodyFraming::kNone && framing.announce)) {
    out += "Content-Length: ";
    AppendNumber(framing.length, 10, out);
    out += "\r\n";
  }
  chunked_out_ = framing.kind == BodyFraming::kChunked;
  out += close_after_ ? "Connection: close\r\n\r\n" : "\r\n";
}

void Connection::Answer(int status, std::string_view fields, std::string_view body) {
  std::string& out = worker_.scratch;
  out.clear();
  AppendStatusLine(status, out);
  out += worker_.date();
  out += common_fields_;
  out += fields;
  AppendFraming({BodyFraming::kNone, body.size(), !HasNoBody(status)}, out);
  answered_ = true;
  stats_.status = status;
  const std::string_view sent_body = head_method_ || HasNoBody(status) ? std::string_view() : body;
  stats_.response_body_bytes = sent_body.size();
  if (Send({out, sent_body})) {
    Complete();
  }
}

void Connection::Respond(int status, std::span<const Field> fields, std::string_view body) {
  if (answered_ || !in_exchange_) {
    return;
  }
  DropUpstream();
  if (phase_ == Phase::kBody && in_->head.framing != BodyFraming::kNone) {  // Called from OnHead: the body is not read.
    if (in_->head.framing == BodyFraming::kLength && in_->size() >= in_->head.content_length) {
      in_->begin += static_cast<size_t>(in_->head.content_length);
    } else {
      close_after_ = unread_input_ = true;
    }
  }
  phase_ = Phase::kBusy;
  std::string& rendered = head_out_;
  rendered.clear();
  if (status < 200 || status > 599 || !AppendFields(fields, rendered)) {
    status = 500;
    rendered.clear();
    body = {};
    fields = {};
  }
  if (in_->head.method == "OPTIONS" && !Names(fields, "allow")) {  // RFC 9110 section 9.3.7
    rendered += "Allow: ";
    rendered += kAllowedMethods;
    rendered += "\r\n";
  }
  Answer(status, rendered, body);
}

bool Connection::RefuseStream() {
  if (worker_.memory_level() < MemoryLevel::kNoStreams) {
    return false;
  }
  worker_.counters.memory_streams.Add();
  static constexpr Field kFields[] = {{"Content-Type", "application/json"}, {"Retry-After", "1"}};
  Respond(503, kFields, R"({"error":"memory_limit"})");
  return true;
}

bool Connection::StartStream(std::span<const Field> fields) {
  if (answered_ || !in_exchange_ || phase_ != Phase::kBusy || RefuseStream()) {
    return false;
  }
  std::string& out = worker_.scratch;
  out.clear();
  AppendStatusLine(200, out);
  out += worker_.date();
  out += common_fields_;
  out += "Content-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n";
  if (!AppendFields(fields, out)) {
    Respond(500, {}, {});
    return false;
  }
  AppendFraming({http10_ ? BodyFraming::kUntilClose : BodyFraming::kChunked}, out);
  answered_ = streaming_ = heartbeats_ = true;
  stats_.status = 200;
  boundary_ = EventBoundary();
  if (!Send({out})) {
    return false;
  }
  ArmTimer();
  return true;
}

void Connection::WriteEvent(std::string_view event) {
  if (!streaming_ || upstream_ != nullptr || phase_ != Phase::kBusy || event.empty()) {
    return;
  }
  if (out_.size() - out_sent_ + event.size() > worker_.limits.stream_backlog) {
    End(Outcome::kClientGone);
    return;
  }
  SendBody({}, event, {}, false);
}

void Connection::EndStream() {
  if (!streaming_ || upstream_ != nullptr || phase_ != Phase::kBusy) {
    return;
  }
  if (SendBody({}, {}, {}, true)) {
    Complete();
  }
}

bool Connection::SendBody(std::string_view before, std::string_view data, std::string_view after, bool last) {
  const size_t size = before.size() + data.size() + after.size();
  bool sent = false;
  if (chunked_out_) {
    char digits[24];
    char* end = std::to_chars(digits, digits + 16, size, 16).ptr;
    *end++ = '\r';
    *end++ = '\n';
    const bool empty = size == 0;
    sent = Send({head_out_, empty ? std::string_view() : std::string_view(digits, static_cast<size_t>(end - digits)),
                 before, data, after, empty ? "" : "\r\n", last ? kLastChunk : ""});
  } else {
    sent = Send({head_out_, before, data, after});
  }
  if (!sent) {
    return false;
  }
  head_out_.clear();
  stats_.response_body_bytes += size;
  if (heartbeats_) {
    boundary_.Passed(before);
    boundary_.Passed(data);
    boundary_.Passed(after);
  }
  return true;
}

bool Connection::Send(std::initializer_list<std::string_view> pieces) {
  if (phase_ == Phase::kClosed) {
    return false;
  }
  iovec parts[8];
  size_t count = 0;
  for (std::string_view piece : pieces) {
    if (!piece.empty()) {
      parts[count++] = {const_cast<char*>(piece.data()), piece.size()};  // NOLINT: iovec has no const.
    }
  }
  iovec* first = parts;
  while (out_.empty() && count > 0) {
    const ssize_t written = stream_.Write(first, count);
    if (written == Stream::kAgain) {
      break;
    }
    if (written <= 0) {
      End(Outcome::kClientGone);
      return false;
    }
    last_sent_ = worker_.now();
    auto left = static_cast<size_t>(written);
    while (count > 0 && left >= first->iov_len) {
      left -= first->iov_len;
      ++first;
      --count;
    }
    if (left > 0) {
      first->iov_base = static_cast<char*>(first->iov_base) + left;
      first->iov_len -= left;
    }
  }
  if (count == 0) {
    return true;
  }
  if (out_.empty()) {
    last_sent_ = worker_.now();  // The stall begins now.
  }
  for (; count > 0; ++first, --count) {
    out_.append(static_cast<const char*>(first->iov_base), first->iov_len);
  }
  stream_.WaitWrite();
  ArmTimer();
  return true;
}

void Connection::OnWritable() {
  worker_.Touch();
  while (out_sent_ < out_.size()) {
    const iovec part{out_.data() + out_sent_, out_.size() - out_sent_};
    const ssize_t written = stream_.Write(&part, 1);
    if (written == Stream::kAgain) {
      stream_.WaitWrite();
      return;
    }
    if (written <= 0) {
      if (in_exchange_) {
        End(Outcome::kClientGone);
      } else {
        CloseStream();
      }
      return;
    }
    out_sent_ += static_cast<size_t>(written);
    last_sent_ = worker_.now();
  }
  out_.clear();
  out_sent_ = 0;
  if (out_.capacity() > kKeptCapacity) {
    out_.shrink_to_fit();
  }
  Flushed();
}

void Connection::Flushed() {
  if (phase_ == Phase::kFlush) {
    Finish();
    return;
  }
  if (heartbeats_) {
    ArmTimer();
  }
  if (upstream_ != nullptr) {
    upstream_->Resume();
  }
}

void Connection::Complete() {
  heartbeats_ = false;
  phase_ = Phase::kFlush;
  if (out_.empty()) {
    Finish();
  }
}

void Connection::Finish() {
  if (broken_) {
    End(Outcome::kUpstreamFailure);
    return;
  }
  Done(Outcome::kComplete);
  if (phase_ != Phase::kFlush) {
    return;
  }
  if (close_after_) {
    CloseGracefully();
  } else {
    NextRequest();
  }
}

void Connection::Done(Outcome outcome) {
  worker_.ClearTimer(lookout_);
  if (!in_exchange_) {
    return;
  }
  worker_.Unwatch(*this);
  worker_.ClearTimer(*this);
  if (alarm_.task) {
    worker_.ClearTimer(alarm_);
    alarm_.task = nullptr;
  }
  stats_.done = std::chrono::steady_clock::now();
  stats_.outcome = outcome;
  worker_.gateway.OnDone(*this);
  in_exchange_ = false;
  ++generation_;
  streaming_ = heartbeats_ = false;
  body_ = {};
  large_body_.Release();
  upstream_head_.clear();
  common_fields_ = {};
  head_out_.clear();
  collected_head_ = nullptr;
  collected_.clear();
  if (collected_.capacity() > kKeptCapacity) {
    collected_.shrink_to_fit();
  }
}

void Connection::End(Outcome outcome) {
  if (phase_ == Phase::kClosed) {
    return;
  }
  DropUpstream();
  Done(outcome);
  CloseStream();
}

void Connection::ArmTimer() {
  if (!out_.empty()) {
    worker_.SetTimer(*this, last_sent_ + worker_.limits.write_stall.count());
  } else if (heartbeats_) {
    worker_.SetTimer(*this, last_sent_ + worker_.limits.heartbeat.count());
  }
}

void Connection::OnSendTimer() {
  const Millis silent = worker_.now() - last_sent_;
  if (!out_.empty() && silent >= worker_.limits.write_stall.count()) {
    stream_.ResetOnClose();
    if (in_exchange_) {
      End(Outcome::kClientGone);
    } else {
      CloseStream();
    }
    return;
  }
  if (out_.empty() && heartbeats_ && silent >= worker_.limits.heartbeat.count()) {
    Heartbeat();
  }
  if (phase_ == Phase::kBusy || phase_ == Phase::kFlush) {
    ArmTimer();
  }
}

void Connection::Heartbeat() {
  const EventBoundary::Place place = boundary_.place();
  if (mode_ == Mode::kEvent && event_begun_) {
    return;  // Within our own data line.
  }
  worker_.counters.heartbeats.Add();
  if (place == EventBoundary::Place::kBetweenEvents) {
    SendBody({}, ": keepalive\n\n", {}, false);
  } else if (place == EventBoundary::Place::kBetweenLines) {
    SendBody({}, ": keepalive\n", {}, false);
  } else {
    last_sent_ = worker_.now();  // An upstream that stopped within a line: nothing can be put there.
  }
}

void Connection::Wake(std::chrono::milliseconds delay, std::function<void(Exchange&)> task) {
  if (!in_exchange_) {
    return;
  }
  alarm_.task = std::move(task);
  worker_.SetTimer(alarm_, worker_.now() + delay.count());
}

void Connection::Alarm::OnTimer() {
  const std::function<void(Exchange&)> run = std::exchange(task, nullptr);
  if (run) {
    run(connection_);
  }
}

ExchangeRef Connection::Ref() {
  if (ref_target_ == nullptr) {
    ref_target_ = std::make_shared<ExchangeRef::Target>(worker_, *this);
  }
  return ExchangeRef(ref_target_, generation_);
}

void ExchangeRef::Target::Post(uint64_t generation, std::function<void(Exchange&)> task, std::shared_ptr<Target> self) {
  MutexLock lock(mu_);
  if (worker_ == nullptr) {
    return;
  }
  worker_->Post([self = std::move(self), generation, task = std::move(task)] {
    if (self->connection_.generation() == generation) {
      task(self->connection_);
    }
  });
}

void ExchangeRef::Target::Disconnect() {
  MutexLock lock(mu_);
  worker_ = nullptr;
}

void ExchangeRef::Post(std::function<void(Exchange&)> task) const {
  if (target_ != nullptr) {
    target_->Post(generation_, std::move(task), target_);
  }
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/request_parser.h"

#include <algorithm>
#include <cstring>

#include "services/edge/http/field_parser.h"
#include "services/edge/http/request_target.h"

namespace sallyport::edge {
namespace {

// Fields that decide framing, routing or identity: a second one would let two readers choose differently.
constexpr HeaderId kOnce[] = {
    HeaderId::kHost,        HeaderId::kContentLength, HeaderId::kTransferEncoding, HeaderId::kAuthorization,
    HeaderId::kContentType, HeaderId::kOrigin,        HeaderId::kMcpSessionId,     HeaderId::kMcpProtocolVersion,
    HeaderId::kMcpMethod,   HeaderId::kMcpName,       HeaderId::kExpect,           HeaderId::kSallyportAuthorization,
    HeaderId::kLastEventId};

constexpr uint64_t Bit(HeaderId id) { return uint64_t{1} << static_cast<unsigned>(id); }

constexpr uint64_t kOnceBits = [] {
  uint64_t bits = 0;
  for (HeaderId id : kOnce) {
    bits |= Bit(id);
  }
  return bits;
}();

bool IsVisible(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

// An offer that may be ignored (RFC 9110 section 7.8); some clients make it with every first request. What speaks
// another protocol than HTTP afterwards is not for us.
bool OffersOnlyHttp2(std::string_view upgrade) {
  while (!upgrade.empty()) {
    if (!EqualIgnoreCase(NextListElement(upgrade), "h2c")) {
      return false;
    }
  }
  return true;
}

}  // namespace

RequestParser::Result RequestParser::Fail(int status, std::string_view reason) {
  Refuse(status, reason);
  return Result::kError;
}

bool RequestParser::Refuse(int status, std::string_view reason) {
  status_ = status;
  reason_ = reason;
  return false;
}

RequestParser::Result RequestParser::Parse(char* data, size_t size, RequestHead& head) {
  if (line_start_ == 0 && scanned_ == 0) {
    head.field_count = 0;
    head.connection_option_count = 0;
    head.framing = BodyFraming::kNone;
    head.content_length = 0;
    head.expect_continue = false;
  }
  while (!complete_) {
    const auto* newline = static_cast<const char*>(std::memchr(data + scanned_, '\n', size - scanned_));
    const size_t end = newline == nullptr ? size : static_cast<size_t>(newline - data);
    if (end - line_start_ > kMaxLine) {
      return in_fields_ ? Fail(431, "field_too_long") : Fail(414, "target_too_long");
    }
    if (end > kMaxHead) {
      return Fail(431, "head_too_long");
    }
    scanned_ = end;
    if (newline == nullptr) {
      return Result::kNeedMore;
    }
    if (end == line_start_ || data[end - 1] != '\r') {
      return Fail(400, "bare_newline");
    }
    char* line = data + line_start_;
    const size_t line_size = end - 1 - line_start_;
    line_start_ = scanned_ = end + 1;
    if (!Line(line, line_size, head)) {
      return Result::kError;
    }
  }
  return Result::kDone;
}

bool RequestParser::Line(char* line, size_t size, RequestHead& head) {
  if (in_fields_) {
    return size == 0 ? Finish(head) : Field({line, size}, head);
  }
  if (size == 0 && !seen_blank_) {  // RFC 9112 section 2.2: one empty line before the request line is ignored.
    seen_blank_ = true;
    return true;
  }
  in_fields_ = true;
  return RequestLine(line, size, head);
}

bool RequestParser::RequestLine(char* line, size_t size, RequestHead& head) {
  const std::string_view text(line, size);
  const size_t first = text.find(' ');
  const size_t last = text.rfind(' ');
  if (first == std::string_view::npos || first == last) {
    return Refuse(400, "request_line");
  }
  head.method = text.substr(0, first);
  const std::string_view version = text.substr(last + 1);
  if (!IsToken(head.method) || head.method.size() > 32) {
    return Refuse(400, "method");
  }
  if (version.size() != 8 || !version.starts_with("HTTP/") || version[5] < '0' || version[5] > '9' ||
      version[6] != '.' || version[7] < '0' || version[7] > '9' || head.method == "PRI") {
    return Refuse(400, "version");
  }
  if (version[5] != '1' || version[7] > '1') {
    return Refuse(505, "version");
  }
  head.minor_version = version[7] - '0';
  if (head.method == "CONNECT" || head.method == "TRACE") {
    return Refuse(405, "method");
  }

  std::string_view target = text.substr(first + 1, last - first - 1);
  if (!IsVisible(target) || target.find('#') != std::string_view::npos) {
    return Refuse(400, "target");
  }
  if (target.starts_with("http://") || target.starts_with("https://")) {
    target.remove_prefix(target[4] == 's' ? 8 : 7);
    target_authority_ = target.substr(0, target.find_first_of("/?"));
    target.remove_prefix(target_authority_.size());
    if (target_authority_.empty()) {
      return Refuse(400, "target");
    }
  }
  // RFC 9112 section 3.2.4: the server as a whole; written without a path in the absolute form.
  if (head.method == "OPTIONS" && (target == "*" || (target.empty() && !target_authority_.empty()))) {
    head.has_query = false;
    head.query = {};
    head.path = "*";
    return true;
  }
  const size_t question = target.find('?');
  head.has_query = question != std::string_view::npos;
  head.query = head.has_query ? target.substr(question + 1) : std::string_view();
  const std::string_view raw_path = target.substr(0, question);
  head.path = DecodePath(line + (raw_path.data() - line), raw_path.size());
  return !head.path.empty() || Refuse(400, "path");
}

bool RequestParser::Field(std::string_view line, RequestHead& head) {
  if (head.field_count == RequestHead::kMaxFields) {
    return Refuse(431, "too_many_fields");
  }
  HeaderField& field = head.field_storage[head.field_count];
  if (!ParseFieldLine(line, field)) {
    return Refuse(400, "field");
  }
  ++head.field_count;
  if (field.id == HeaderId::kOther) {
    return true;
  }
  if ((kOnceBits & Bit(field.id)) != 0) {
    if ((seen_ & Bit(field.id)) != 0) {
      return Refuse(400, "repeated_field");
    }
    seen_ |= Bit(field.id);
  }
  return Framing(field, head);
}

bool RequestParser::Framing(const HeaderField& field, RequestHead& head) {
  switch (field.id) {
    case HeaderId::kContentLength: {
      const auto length = ParseContentLength(field.value);
      if (!length.has_value() || field.name.find('_') != std::string_view::npos) {
        return Refuse(400, "content_length");
      }
      head.content_length = *length;
      return true;
    }
    case HeaderId::kTransferEncoding:
      return (EqualIgnoreCase(field.value, "chunked") && field.name.find('_') == std::string_view::npos) ||
             Refuse(400, "transfer_encoding");
    case HeaderId::kHost:
      head.host = field.value;
      return IsAuthority(head.host) || Refuse(400, "host");
    case HeaderId::kConnection: {
      ConnectionOptions options;
      const bool valid =
          ParseConnection(field.value, options, head.connection_option_storage, head.connection_option_count);
      connection_close_ |= options.close;
      return valid || Refuse(400, "connection");
    }
    case HeaderId::kExpect:
      head.expect_continue = EqualIgnoreCase(field.value, "100-continue");
      return head.expect_continue || Refuse(417, "expect");
    case HeaderId::kUpgrade:
      return OffersOnlyHttp2(field.value) || Refuse(400, "upgrade");
    default:
      return true;
  }
}

bool RequestParser::Finish(RequestHead& head) {
  complete_ = true;
  const bool length = (seen_ & Bit(HeaderId::kContentLength)) != 0;
  const bool chunked = (seen_ & Bit(HeaderId::kTransferEncoding)) != 0;
  if ((seen_ & Bit(HeaderId::kHost)) == 0) {
    return Refuse(400, "host");
  }
  if (!target_authority_.empty() && !EqualIgnoreCase(target_authority_, head.host)) {
    return Refuse(400, "host");
  }
  if (chunked && (length || head.minor_version == 0)) {
    return Refuse(400, "transfer_encoding");
  }
  head.framing = chunked                             ? BodyFraming::kChunked
                 : length && head.content_length > 0 ? BodyFraming::kLength
                                                     : BodyFraming::kNone;
  head.keep_alive = head.minor_version == 1 && !connection_close_;
  head.expect_continue = head.expect_continue && head.minor_version == 1;
  return true;
}

std::string_view RequestHead::ValueOf(std::string_view name) const {
  for (const HeaderField& field : fields()) {
    if (EqualNames(field.name, name)) {
      return field.value;
    }
  }
  return {};
}

size_t RequestHead::Count(HeaderId id) const {
  const auto all = fields();
  return static_cast<size_t>(
      std::count_if(all.begin(), all.end(), [id](const HeaderField& field) { return field.id == id; }));
}

std::string_view ResponseHead::ValueOf(std::string_view name) const {
  for (const HeaderField& field : fields()) {
    if (EqualNames(field.name, name)) {
      return field.value;
    }
  }
  return {};
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/response_parser.h"

#include <cstring>

#include "services/edge/http/field_parser.h"
#include "services/edge/http/media_type.h"

namespace sallyport::edge {
namespace {

// "timeout=5, max=100"
uint32_t KeepAliveTimeout(std::string_view value) {
  while (!value.empty()) {
    const std::string_view element = NextListElement(value);
    if (element.size() > 8 && EqualIgnoreCase(element.substr(0, 8), "timeout=")) {
      const auto seconds = ParseContentLength(element.substr(8));
      return seconds.has_value() && *seconds < 1'000'000 ? static_cast<uint32_t>(*seconds) : 0;
    }
  }
  return 0;
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

ResponseParser::Result ResponseParser::Parse(const char* data, size_t size, ResponseHead& head) {
  while (!complete_) {
    const auto* newline = static_cast<const char*>(std::memchr(data + scanned_, '\n', size - scanned_));
    const size_t end = newline == nullptr ? size : static_cast<size_t>(newline - data);
    if (end > kMaxHead) {
      return Result::kError;
    }
    scanned_ = end;
    if (newline == nullptr) {
      return Result::kNeedMore;
    }
    if (end == line_start_ || data[end - 1] != '\r') {
      return Result::kError;
    }
    const std::string_view line(data + line_start_, end - 1 - line_start_);
    line_start_ = scanned_ = end + 1;
    if (!Line(line, head)) {
      return Result::kError;
    }
  }
  return Result::kDone;
}

bool ResponseParser::Line(std::string_view line, ResponseHead& head) {
  if (in_fields_) {
    return line.empty() ? Finish(head) : Field(line, head);
  }
  in_fields_ = true;
  return StatusLine(line, head);
}

bool ResponseParser::StatusLine(std::string_view line, ResponseHead& head) {
  head.field_count = head.connection_option_count = 0;
  head.keep_alive_timeout = 0;
  head.content_length = 0;
  head.body_type = BodyType::kNone;
  head.event_stream = head.content_encoded = false;
  has_length_ = chunked_ = connection_close_ = connection_keep_alive_ = false;
  if (line.size() < 12 || !line.starts_with("HTTP/1.") || (line[7] != '0' && line[7] != '1') || line[8] != ' ' ||
      !IsDigit(line[9]) || !IsDigit(line[10]) || !IsDigit(line[11]) || (line.size() > 12 && line[12] != ' ') ||
      !IsFieldValue(line)) {
    return false;
  }
  head.minor_version = line[7] - '0';
  head.status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
  return head.status >= 100 && head.status <= 599 && head.status != 101;
}

bool ResponseParser::Field(std::string_view line, ResponseHead& head) {
  if (head.field_count == ResponseHead::kMaxFields) {
    return false;
  }
  HeaderField& field = head.field_storage[head.field_count];
  if (!ParseFieldLine(line, field)) {
    return false;
  }
  ++head.field_count;
  switch (field.id) {
    case HeaderId::kContentLength: {
      const auto length = ParseContentLength(field.value);
      const bool repeated = has_length_;
      has_length_ = true;
      head.content_length = length.value_or(0);
      return length.has_value() && !repeated;
    }
    case HeaderId::kTransferEncoding: {
      const bool repeated = chunked_;
      chunked_ = true;
      return !repeated && EqualIgnoreCase(field.value, "chunked");
    }
    case HeaderId::kConnection: {
      ConnectionOptions options;
      const bool valid =
          ParseConnection(field.value, options, head.connection_option_storage, head.connection_option_count);
      connection_close_ |= options.close;
      connection_keep_alive_ |= options.keep_alive;
      return valid;
    }
    // A connection that has been or may be authenticated as one caller is nobody else's.
    case HeaderId::kWwwAuthenticate:
    case HeaderId::kProxyAuthenticate:
      connection_auth_ = connection_auth_ || NamesConnectionAuthentication(field.value);
      return true;
    case HeaderId::kPersistentAuth:
      connection_auth_ = connection_auth_ || EqualIgnoreCase(field.value, "true");
      return true;
    case HeaderId::kKeepAlive:
      head.keep_alive_timeout = KeepAliveTimeout(field.value);
      return true;
    case HeaderId::kContentType:
      head.body_type = head.body_type == BodyType::kNone ? ReadContentType(field.value) : BodyType::kOther;
      head.event_stream = head.body_type == BodyType::kEventStream;
      return true;
    case HeaderId::kContentEncoding:
      head.content_encoded = !EqualIgnoreCase(field.value, "identity");
      return true;
    default:
      return true;
  }
}

bool ResponseParser::Finish(ResponseHead& head) {
  if (head.status < 200) {
    in_fields_ = false;
    return ++interim_ <= kMaxInterim;
  }
  complete_ = true;
  return FinishFraming(head);
}

// RFC 9112 section 6.3
bool ResponseParser::FinishFraming(ResponseHead& head) {
  if (chunked_ && (has_length_ || head.minor_version == 0)) {
    return false;
  }
  head.keep_alive = !connection_auth_ && !connection_close_ && (head.minor_version == 1 || connection_keep_alive_);
  if (head_request_ || head.status == 204 || head.status == 304) {
    head.framing = BodyFraming::kNone;
  } else if (chunked_) {
    head.framing = BodyFraming::kChunked;
  } else if (has_length_) {
    head.framing = head.content_length == 0 ? BodyFraming::kNone : BodyFraming::kLength;
  } else {
    head.framing = BodyFraming::kUntilClose;
    head.keep_alive = false;
  }
  return true;
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

#include "services/edge/http/request_head.h"

namespace sallyport::edge {

// Strict incremental parser of HTTP/1.0 and 1.1 request heads (RFC 9112), stricter than the RFC wherever leniency lets
// two parsers disagree: bare LF, folded lines, lists or repeats of framing fields, Content-Length beside
// Transfer-Encoding, white space before a colon are refused. It never resynchronizes: after an error the connection
// must close.
class RequestParser {
 public:
  static constexpr size_t kMaxLine = 8 * 1024;   // Request line (414) and each field line (431).
  static constexpr size_t kMaxHead = 16 * 1024;  // 431

  enum class Result { kNeedMore, kDone, kError };

  void Reset() { *this = RequestParser(); }
  // `data` is everything of this request so far, each time at the same address; lines already read are not read again.
  // The path is decoded in place. `head` is filled while parsing and valid after kDone.
  Result Parse(char* data, size_t size, RequestHead& head);

  // Bytes of the head, after kDone.
  size_t head_size() const { return line_start_; }
  // After kError: the status to answer and a stable word for it.
  int status() const { return status_; }
  std::string_view reason() const { return reason_; }

 private:
  Result Fail(int status, std::string_view reason);
  bool Line(char* line, size_t size, RequestHead& head);
  bool RequestLine(char* line, size_t size, RequestHead& head);
  bool Field(std::string_view line, RequestHead& head);
  bool Framing(const HeaderField& field, RequestHead& head);
  bool Singleton(HeaderId id);
  bool Finish(RequestHead& head);
  bool Refuse(int status, std::string_view reason);

  size_t line_start_ = 0;
  size_t scanned_ = 0;
  bool in_fields_ = false;
  bool complete_ = false;
  bool seen_blank_ = false;
  bool connection_close_ = false;
  uint64_t seen_ = 0;                  // Bit per HeaderId that may come once.
  std::string_view target_authority_;  // Of an absolute-form target.
  int status_ = 400;
  std::string_view reason_;
};

}  // namespace sallyport::edge

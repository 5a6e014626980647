// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

#include "services/edge/http/request_head.h"

namespace sallyport::edge {

// Strict incremental parser of an upstream's response head. Interim responses (1xx) are skipped, at most 8 of them; 101
// is an error, we never upgrade. After an error the upstream connection must close.
class ResponseParser {
 public:
  static constexpr size_t kMaxHead = 32 * 1024;  // The interim heads included.
  static constexpr int kMaxInterim = 8;

  enum class Result { kNeedMore, kDone, kError };

  // `head_request`: the request was HEAD, so no body follows whatever the fields say.
  explicit ResponseParser(bool head_request = false) : head_request_(head_request) {}
  // As RequestParser::Parse.
  Result Parse(const char* data, size_t size, ResponseHead& head);
  // Bytes up to the body, interim heads included; after kDone.
  size_t head_size() const { return line_start_; }

 private:
  bool Line(std::string_view line, ResponseHead& head);
  bool StatusLine(std::string_view line, ResponseHead& head);
  bool Field(std::string_view line, ResponseHead& head);
  bool Finish(ResponseHead& head);
  bool FinishFraming(ResponseHead& head);

  bool head_request_;
  bool in_fields_ = false;
  bool complete_ = false;
  bool has_length_ = false;
  bool chunked_ = false;
  bool connection_close_ = false;
  bool connection_keep_alive_ = false;
  bool connection_auth_ = false;  // Interim heads count, too.
  int interim_ = 0;
  size_t line_start_ = 0;
  size_t scanned_ = 0;
};

}  // namespace sallyport::edge

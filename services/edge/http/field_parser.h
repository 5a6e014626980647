// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "services/edge/http/request_head.h"

// What request and response heads have in common.
namespace sallyport::edge {

// `line` without its CRLF. False for white space before the colon, a folded line, a name that is no token, a control
// byte.
bool ParseFieldLine(std::string_view line, HeaderField& field);

// RFC 9110 section 8.6, digits only: no sign, no list, no leading zero, below 10^18.
std::optional<uint64_t> ParseContentLength(std::string_view value);

struct ConnectionOptions {
  bool close = false;
  bool keep_alive = false;
};
// Reads one Connection field; names other than close and keep-alive are added to `names`. False for an empty or bad
// option or more than `names` can hold.
bool ParseConnection(std::string_view value, ConnectionOptions& options, std::span<std::string_view> names,
                     size_t& name_count);

// Takes the next comma-separated element off `list`, without surrounding white space.
std::string_view NextListElement(std::string_view& list);
std::string_view TrimWhitespace(std::string_view text);

}  // namespace sallyport::edge

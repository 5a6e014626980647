// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/field_parser.h"

namespace sallyport::edge {
namespace {

bool IsWhitespace(char c) { return c == ' ' || c == '\t'; }

}  // namespace

std::string_view TrimWhitespace(std::string_view text) {
  while (!text.empty() && IsWhitespace(text.front())) {
    text.remove_prefix(1);
  }
  while (!text.empty() && IsWhitespace(text.back())) {
    text.remove_suffix(1);
  }
  return text;
}

bool ParseFieldLine(std::string_view line, HeaderField& field) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) {
    return false;
  }
  field.name = line.substr(0, colon);
  field.value = TrimWhitespace(line.substr(colon + 1));
  return ClassifyToken(field.name, field.id) && IsFieldValue(field.value);
}

std::optional<uint64_t> ParseContentLength(std::string_view value) {
  if (value.empty() || value.size() > 18 || (value.size() > 1 && value[0] == '0')) {
    return std::nullopt;
  }
  uint64_t length = 0;
  for (char c : value) {
    if (c < '0' || c > '9') {
      return std::nullopt;
    }
    length = length * 10 + static_cast<uint64_t>(c - '0');
  }
  return length;
}

std::string_view NextListElement(std::string_view& list) {
  const size_t comma = list.find(',');
  const std::string_view element = TrimWhitespace(list.substr(0, comma));
  list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  return element;
}

bool ParseConnection(std::string_view value, ConnectionOptions& options, std::span<std::string_view> names,
                     size_t& name_count) {
  while (!value.empty()) {
    const std::string_view option = NextListElement(value);
    if (EqualIgnoreCase(option, "keep-alive")) {
      options.keep_alive = true;
    } else if (EqualIgnoreCase(option, "close")) {
      options.close = true;
    } else if (option.empty()) {
      continue;  // RFC 9110 section 5.6.1.2: recipients accept empty elements.
    } else if (!IsToken(option) || name_count == names.size()) {
      return false;
    } else {
      names[name_count++] = option;
    }
  }
  return true;
}

}  // namespace sallyport::edge

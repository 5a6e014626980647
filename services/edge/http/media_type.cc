// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/media_type.h"

#include <algorithm>

#include "services/edge/http/field_parser.h"
#include "services/edge/http/header_id.h"

namespace sallyport::edge {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kEventStream = "text/event-stream";

// Clients read both types as UTF-8 whatever is announced. These charsets have ASCII in the place where UTF-8 has it.
bool CharsetFits(std::string_view value) {
  if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
    value = value.substr(1, value.size() - 2);
  }
  return EqualIgnoreCase(value, "utf-8") || EqualIgnoreCase(value, "utf8") || EqualIgnoreCase(value, "us-ascii") ||
         EqualIgnoreCase(value, "iso-8859-1");
}

// Length of the parameter that `text` begins with, up to the next ';' outside quotes; npos if a reader could take what
// follows for another type.
size_t ParameterLength(std::string_view text) {
  bool quoted = false;
  size_t end = 0;
  for (; end < text.size() && (quoted || text[end] != ';'); ++end) {
    if (text[end] == '"') {
      quoted = !quoted;
    } else if (quoted && text[end] == '\\') {
      ++end;
    } else if (!quoted && text[end] == ',') {
      return std::string_view::npos;
    }
  }
  return quoted ? std::string_view::npos : end;
}

// `rest` is empty or begins with ';'.
bool ParametersFit(std::string_view rest) {
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const size_t length = ParameterLength(rest);
    if (length == std::string_view::npos) {
      return false;
    }
    const std::string_view parameter = rest.substr(0, length);
    const size_t equals = std::min(parameter.find('='), parameter.size());
    if (EqualIgnoreCase(TrimWhitespace(parameter.substr(0, equals)), "charset") &&
        !CharsetFits(TrimWhitespace(parameter.substr(std::min(equals + 1, parameter.size()))))) {
      return false;
    }
    rest.remove_prefix(length);
  }
  return true;
}

}  // namespace

BodyType ReadContentType(std::string_view value) {
  if (value == kJson) {
    return BodyType::kJson;
  }
  if (value == kEventStream) {
    return BodyType::kEventStream;
  }
  const size_t end = std::min(value.find(';'), value.size());
  const std::string_view type = TrimWhitespace(value.substr(0, end));
  const bool json = EqualIgnoreCase(type, kJson);
  if ((!json && !EqualIgnoreCase(type, kEventStream)) || !ParametersFit(value.substr(end))) {
    return BodyType::kOther;
  }
  return json ? BodyType::kJson : BodyType::kEventStream;
}

}  // namespace sallyport::edge

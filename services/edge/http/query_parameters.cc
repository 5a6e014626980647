// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/query_parameters.h"

#include <algorithm>

#include "services/edge/http/request_target.h"

namespace sallyport::edge {
namespace {

// Takes the next decoded byte off `encoded`, which is not empty. What is no escape stands for itself.
char TakeDecoded(std::string_view& encoded) {
  size_t taken = 1;
  char c = encoded[0] == '+' ? ' ' : encoded[0];
  if (c == '%' && encoded.size() > 2 && HexDigit(encoded[1]) >= 0 && HexDigit(encoded[2]) >= 0) {
    c = static_cast<char>(HexDigit(encoded[1]) * 16 + HexDigit(encoded[2]));
    taken = 3;
  }
  encoded.remove_prefix(taken);
  return c;
}

char Fold(char c) {
  if (c >= 'A' && c <= 'Z') {
    return static_cast<char>(c + ('a' - 'A'));
  }
  return c == '.' || c == ' ' || c == '[' ? '_' : c;
}

}  // namespace

bool SpellsParameter(std::string_view encoded, std::string_view name) {
  // Of the configured name, too: PHP reads " key" and "key" as one.
  name.remove_prefix(std::min(name.find_first_not_of(' '), name.size()));
  std::string_view rest = encoded;
  while (!rest.empty()) {
    encoded = rest;
    if (TakeDecoded(rest) != ' ') {
      break;
    }
    encoded = rest;
  }
  for (const char expected : name) {
    if (encoded.empty() || Fold(TakeDecoded(encoded)) != Fold(expected)) {
      return false;
    }
  }
  if (encoded.empty()) {
    return true;
  }
  const char next = TakeDecoded(encoded);
  return next == '[' || next == '\0';
}

void AppendQueryWithout(std::string_view query, std::string_view name, char& separator, std::string& out) {
  for (char before = '&'; !query.empty();) {
    const size_t end = std::min(query.find_first_of("&;"), query.size());
    const std::string_view parameter = query.substr(0, end);
    if (!SpellsParameter(parameter.substr(0, parameter.find('=')), name)) {
      out += separator == '?' ? '?' : before;
      out += parameter;
      separator = '&';
    }
    if (end == query.size()) {
      return;
    }
    before = query[end];
    query.remove_prefix(end + 1);
  }
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/request_target.h"

#include <algorithm>
#include <simdjson.h>

#include "services/edge/http/network_address.h"

namespace sallyport::edge {
namespace {

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

bool ArePlainSegments(std::string_view path) {
  for (size_t start = 1; start <= path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string_view segment = path.substr(start, end - start);
    const std::string_view name = segment.substr(0, segment.find(';'));
    if ((segment.empty() && end != path.size()) || name == "." || name == "..") {
      return false;
    }
    start = end + 1;
  }
  return true;
}

bool IsPort(std::string_view port) {
  return !port.empty() && port.size() <= 5 &&
         std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

int HexDigit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

std::string_view DecodePath(char* path, size_t size) {
  if (size == 0 || path[0] != '/') {
    return {};
  }
  size_t out = 0;
  bool decoded = false;
  for (size_t in = 0; in < size; ++in, ++out) {
    char c = path[in];
    if (c == '%') {
      const int high = in + 2 < size ? HexDigit(path[in + 1]) : -1;
      const int low = in + 2 < size ? HexDigit(path[in + 2]) : -1;
      if (high < 0 || low < 0) {
        return {};
      }
      c = static_cast<char>(high * 16 + low);
      in += 2;
      decoded = true;
      if (c == '/') {
        return {};
      }
    }
    if (c == '\\' || IsControl(c)) {
      return {};
    }
    path[out] = c;
  }
  const std::string_view result(path, out);
  // Not IsValidUtf8 of common/text/utf8.h, which does the same: the engine does without that library.
  return ArePlainSegments(result) && (!decoded || simdjson::validate_utf8(result)) ? result : std::string_view();
}

bool IsAuthority(std::string_view authority) {
  std::string_view host = authority;
  std::string_view port;
  if (!host.empty() && host.front() == '[') {
    const size_t end = host.find(']');
    if (end == std::string_view::npos || host.find(':') > end) {
      return false;
    }
    port = host.substr(end + 1);
    const auto address = NetworkAddress::Parse(host.substr(1, end - 1));
    return address.has_value() && (port.empty() || (port[0] == ':' && IsPort(port.substr(1))));
  }
  if (const size_t colon = host.find(':'); colon != std::string_view::npos) {
    if (!IsPort(host.substr(colon + 1))) {
      return false;
    }
    host = host.substr(0, colon);
  }
  return !host.empty() && host.size() <= 255 && std::all_of(host.begin(), host.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_';
  });
}

}  // namespace sallyport::edge

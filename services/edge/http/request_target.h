// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

namespace sallyport::edge {

// Decodes and validates a path once, in place, so that routing and authorization see the same string as everybody after
// them. Refused (empty result): not beginning with '/', '%' without two hex digits, an encoded slash, backslash, NUL or
// other control byte, a raw backslash, an empty segment but the last, a "." or ".." segment (also before ';'), invalid
// UTF-8.
std::string_view DecodePath(char* path, size_t size);

// "name", "name:port", "192.0.2.1", "[2001:db8::1]:443": letters, digits, '-', '.', '_'; no userinfo, no list.
bool IsAuthority(std::string_view authority);

// -1 if not a hexadecimal digit.
int HexDigit(char c);

}  // namespace sallyport::edge

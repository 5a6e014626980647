// SPDX-License-Identifier: Apache-2.0
#include "common/text/base64url.h"

#include "absl/strings/escaping.h"
#include "absl/strings/strip.h"

namespace sallyport {
namespace {

// Abseil's decoders skip whitespace and padding, and ignore trailing bits. Only text of which every character counted
// has as many bytes as its length says; only the one encoding of the last, incomplete group equals what stands there.
absl::StatusOr<std::string> Decode(absl::string_view text, bool (*decode)(absl::string_view, std::string*),
                                   std::string (*encode)(absl::string_view)) {
  if (text.size() % 4 == 1) return absl::InvalidArgumentError("base64: impossible length");
  std::string bytes;
  if (!decode(text, &bytes) || bytes.size() != text.size() * 3 / 4) {
    return absl::InvalidArgumentError("base64: character outside the alphabet");
  }
  const absl::string_view last = absl::string_view(bytes).substr(bytes.size() - bytes.size() % 3);
  if (encode(last) != text.substr(text.size() - text.size() % 4)) {
    return absl::InvalidArgumentError("base64: trailing bits are not zero");
  }
  return bytes;
}

}  // namespace

// Abseil's URL-safe form has no padding.
std::string Base64UrlEncode(absl::string_view bytes) { return absl::WebSafeBase64Escape(bytes); }
absl::StatusOr<std::string> Base64UrlDecode(absl::string_view text) {
  return Decode(text, absl::WebSafeBase64Unescape, Base64UrlEncode);
}

std::string Base64EncodeUnpadded(absl::string_view bytes) {
  std::string text = absl::Base64Escape(bytes);
  text.erase(text.find_last_not_of('=') + 1);
  return text;
}
absl::StatusOr<std::string> Base64DecodeUnpadded(absl::string_view text) {
  return Decode(text, absl::Base64Unescape, Base64EncodeUnpadded);
}

std::string Base64Encode(absl::string_view bytes) { return absl::Base64Escape(bytes); }
absl::StatusOr<std::string> Base64Decode(absl::string_view text) {
  if (text.size() % 4 != 0) return absl::InvalidArgumentError("base64: padding is missing");
  if (absl::ConsumeSuffix(&text, "=")) absl::ConsumeSuffix(&text, "=");
  return Base64DecodeUnpadded(text);
}

}  // namespace sallyport

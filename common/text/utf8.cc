// SPDX-License-Identifier: Apache-2.0
#include "common/text/utf8.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <simdjson.h>

namespace sallyport {
namespace {

// Length of the sequence a byte begins; 0 for a byte that begins none.
size_t LengthOf(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 0;
}

struct Range {
  uint32_t first;
  uint32_t last;
};
// C0 and C1 controls; soft hyphen; marks, embeddings, overrides and isolates of bidirectional text; line and paragraph
// separators; zero-width space, word joiner and invisible operators; byte order mark; annotations; tags. Not the
// zero-width joiners, which Persian and Indic names are written with.
constexpr Range kNotPlain[] = {{0x0, 0x1f},      {0x7f, 0x9f},     {0xad, 0xad},     {0x61c, 0x61c},
                               {0x180e, 0x180e}, {0x200b, 0x200b}, {0x200e, 0x200f}, {0x2028, 0x202e},
                               {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f}};
constexpr char kReplacement[] = "\xEF\xBF\xBD";
constexpr char kEllipsis[] = "\xE2\x80\xA6";

bool IsPlain(absl::string_view character) {
  const auto lead = static_cast<unsigned char>(character[0]);
  uint32_t code = character.size() == 1 ? lead : lead & (0x7fU >> character.size());
  for (const char byte : character.substr(1)) code = code << 6 | (static_cast<unsigned char>(byte) & 0x3fU);
  return std::none_of(std::begin(kNotPlain), std::end(kNotPlain),
                      [code](const Range& range) { return code >= range.first && code <= range.last; });
}

}  // namespace

bool IsValidUtf8(absl::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

size_t Utf8CharacterSize(absl::string_view text) {
  const size_t length = text.empty() ? 0 : LengthOf(static_cast<unsigned char>(text[0]));
  return length < 2 || (length <= text.size() && IsValidUtf8(text.substr(0, length))) ? length : 0;
}

absl::string_view Utf8Prefix(absl::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  while (max_bytes > 0 && (static_cast<unsigned char>(text[max_bytes]) & 0xc0) == 0x80) --max_bytes;
  return text.substr(0, max_bytes);
}

std::string PlainText(absl::string_view text, size_t max_bytes) {
  std::string plain;
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8CharacterSize(text.substr(i));
    absl::string_view character = text.substr(i, length);
    i += std::max<size_t>(length, 1);
    if (length == 0 || !IsPlain(character)) character = kReplacement;
    if (plain.size() + character.size() > max_bytes) {
      constexpr size_t kRoom = sizeof(kEllipsis) - 1;
      plain.resize(max_bytes < kRoom ? 0 : Utf8Prefix(plain, max_bytes - kRoom).size());
      return max_bytes < kRoom ? plain : plain + kEllipsis;
    }
    plain.append(character.data(), character.size());
  }
  return plain;
}

}  // namespace sallyport

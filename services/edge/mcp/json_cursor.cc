// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/json_cursor.h"

namespace sallyport::edge {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

void AppendUtf8(uint32_t code, std::string& out) {
  const auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | (code >> 6));
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3f));
    put(0x80 | ((code >> 6) & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

char LowerCase(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

// Takes the next character off `text`, folded. Two beyond ASCII fold to a letter of it; of others it is one byte, which
// is none of ASCII.
char TakeFolded(std::string_view& text) {
  constexpr std::string_view kLongS = "\xc5\xbf";       // U+017F
  constexpr std::string_view kKelvin = "\xe2\x84\xaa";  // U+212A
  const bool long_s = text.starts_with(kLongS);
  if (long_s || text.starts_with(kKelvin)) {
    text.remove_prefix(long_s ? kLongS.size() : kKelvin.size());
    return long_s ? 's' : 'k';
  }
  const char c = text.front();
  text.remove_prefix(1);
  return LowerCase(c);
}

}  // namespace

bool EqualFolded(std::string_view a, std::string_view b) {
  if (a.size() < b.size()) return false;  // Folding makes nothing longer.
  for (const char c : b) {
    if (a.empty() || TakeFolded(a) != LowerCase(c)) return false;
  }
  return a.empty();
}

void JsonCursor::SkipString() {
  ++at_;  // The opening quote.
  while (at_ < body_.size()) {
    const auto c = static_cast<unsigned char>(body_[at_]);
    if (c == '"') {
      ++at_;
      return;
    }
    if (c < 0x20) return Fail(ScanError::kParse);
    if (c == '\\') {
      ++at_;
      const char escaped = Peek();
      if (escaped == 'u') {
        if (body_.size() - at_ < 5) return Fail(ScanError::kParse);
        for (size_t i = 1; i <= 4; ++i) {
          if (HexValue(body_[at_ + i]) < 0) return Fail(ScanError::kParse);
        }
        at_ += 4;
      } else if (std::string_view("\"\\/bfnrt").find(escaped) == std::string_view::npos || escaped == '\0') {
        return Fail(ScanError::kParse);
      }
    }
    ++at_;
  }
  Fail(ScanError::kParse);
}

std::string_view JsonCursor::ReadString() {
  const size_t begin = at_ + 1;
  SkipString();
  if (!ok()) return {};
  const std::string_view raw = body_.substr(begin, at_ - begin - 1);
  return raw.find('\\') == std::string_view::npos ? raw : Unescape(raw);
}

bool JsonCursor::UnescapeUnicode(std::string_view raw, size_t& i, std::string& out) {
  const auto unit = [&raw](size_t from) {
    uint32_t value = 0;
    for (size_t k = 0; k < 4; ++k) value = value * 16 + static_cast<uint32_t>(HexValue(raw[from + k]));
    return value;
  };
  uint32_t code = unit(i + 1);
  i += 4;
  if (code >= 0xd800 && code < 0xdc00) {
    if (raw.size() - i < 7 || raw[i + 1] != '\\' || raw[i + 2] != 'u') return false;
    const uint32_t low = unit(i + 3);
    if (low < 0xdc00 || low > 0xdfff) return false;
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    i += 6;
  } else if (code >= 0xdc00 && code < 0xe000) {
    return false;
  }
  AppendUtf8(code, out);
  return true;
}

std::string_view JsonCursor::Unescape(std::string_view raw) {
  std::string out;
  out.reserve(raw.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\') {
      out.push_back(raw[i]);
      continue;
    }
    ++i;
    switch (raw[i]) {
      case 'b':
        out.push_back('\b');
        break;
      case 'f':
        out.push_back('\f');
        break;
      case 'n':
        out.push_back('\n');
        break;
      case 'r':
        out.push_back('\r');
        break;
      case 't':
        out.push_back('\t');
        break;
      case 'u':
        // A lone surrogate has no UTF-8: what the upstream would make of it cannot be known.
        if (!UnescapeUnicode(raw, i, out)) Fail(ScanError::kInvalidRequest);
        break;
      default:
        out.push_back(raw[i]);
    }
    if (!ok()) return {};
  }
  scratch_.push_back(std::move(out));
  return scratch_.back();
}

void JsonCursor::SkipNumber() {
  Take('-');
  if (!Take('0')) {
    if (!IsDigit(Peek())) return Fail(ScanError::kParse);
    while (IsDigit(Peek())) ++at_;
  }
  if (Take('.')) {
    if (!IsDigit(Peek())) return Fail(ScanError::kParse);
    while (IsDigit(Peek())) ++at_;
  }
  if (Peek() == 'e' || Peek() == 'E') {
    ++at_;
    if (Peek() == '+' || Peek() == '-') ++at_;
    if (!IsDigit(Peek())) return Fail(ScanError::kParse);
    while (IsDigit(Peek())) ++at_;
  }
}

void JsonCursor::SkipLiteral(std::string_view literal) {
  if (body_.substr(at_, literal.size()) != literal) return Fail(ScanError::kParse);
  at_ += literal.size();
}

void JsonCursor::SkipValue(int depth) {
  if (depth > kMaxDepth) return Fail(ScanError::kParse);
  switch (Peek()) {
    case '"':
      return SkipString();
    case '{':
      return SkipObject(depth);
    case '[':
      return SkipArray(depth);
    case 't':
      return SkipLiteral("true");
    case 'f':
      return SkipLiteral("false");
    case 'n':
      return SkipLiteral("null");
    default:
      return SkipNumber();
  }
}

void JsonCursor::SkipArray(int depth) {
  ++at_;
  SkipSpace();
  if (Take(']')) return;
  while (ok()) {
    SkipValue(depth + 1);
    SkipSpace();
    if (Take(']')) return;
    if (!Take(',')) return Fail(ScanError::kParse);
    SkipSpace();
  }
}

void JsonCursor::SkipObject(int depth) {
  ++at_;
  SkipSpace();
  if (Take('}')) return;
  while (ok()) {
    if (Peek() != '"') return Fail(ScanError::kParse);
    CountKey();
    SkipString();
    SkipSpace();
    if (!ok() || !Take(':')) return Fail(ScanError::kParse);
    SkipSpace();
    SkipValue(depth + 1);
    SkipSpace();
    if (Take('}')) return;
    if (!Take(',')) return Fail(ScanError::kParse);
    SkipSpace();
  }
}

std::string_view JsonCursor::RawValue(int depth) {
  const size_t begin = at_;
  SkipValue(depth);
  return body_.substr(begin, at_ - begin);
}

}  // namespace sallyport::edge

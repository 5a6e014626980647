// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "services/edge/mcp/jsonrpc_scan.h"

namespace sallyport::edge {

inline bool IsJsonSpace(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// Are `a` and `b` (UTF-8) one after Unicode simple case folding (CaseFolding.txt, status C and S), where `b` is ASCII?
bool EqualFolded(std::string_view a, std::string_view b);

// A cursor over a JSON text (RFC 8259) that is valid UTF-8; every Skip/Read leaves it behind what it took. The first
// error stays, and nothing read after it means anything.
class JsonCursor {
 public:
  static constexpr int kMaxDepth = 64;
  static constexpr uint32_t kMaxKeys = 10'000;  // Of all objects together.

  // `scratch` keeps the strings that had to be unescaped.
  JsonCursor(std::string_view body, std::deque<std::string>& scratch) : body_(body), scratch_(scratch) {}

  bool ok() const { return error_ == ScanError::kNone; }
  ScanError error() const { return error_; }
  void Fail(ScanError error) {
    if (ok()) error_ = error;
  }

  size_t at() const { return at_; }
  bool AtEnd() const { return at_ == body_.size(); }
  std::string_view Since(size_t begin) const { return body_.substr(begin, at_ - begin); }

  // '\0' at the end.
  char Peek() const { return at_ < body_.size() ? body_[at_] : '\0'; }
  void SkipSpace() {
    while (at_ < body_.size() && IsJsonSpace(body_[at_])) ++at_;
  }
  bool Take(char c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }

  // The string at the cursor without quotes, unescaped (into scratch if need be).
  std::string_view ReadString();
  // As it stands there.
  std::string_view RawValue(int depth);
  void SkipValue(int depth);
  // Calls member(key, begin) with the cursor at each value of the object; begin is the offset of the key's quote.
  template <typename Member>
  void Object(int depth, Member member);

 private:
  void CountKey() {
    if (++keys_ > kMaxKeys) Fail(ScanError::kTooManyKeys);
  }
  void SkipString();
  void SkipNumber();
  void SkipLiteral(std::string_view literal);
  void SkipArray(int depth);
  void SkipObject(int depth);
  std::string_view Unescape(std::string_view raw);
  bool UnescapeUnicode(std::string_view raw, size_t& i, std::string& out);

  std::string_view body_;
  std::deque<std::string>& scratch_;
  size_t at_ = 0;
  uint32_t keys_ = 0;
  ScanError error_ = ScanError::kNone;
};

template <typename Member>
void JsonCursor::Object(int depth, Member member) {
  if (depth > kMaxDepth || !Take('{')) return Fail(ScanError::kParse);
  SkipSpace();
  if (Take('}')) return;
  while (ok()) {
    if (Peek() != '"') return Fail(ScanError::kParse);
    const size_t begin = at_;
    CountKey();
    const std::string_view key = ReadString();
    SkipSpace();
    if (!ok() || !Take(':')) return Fail(ScanError::kParse);
    SkipSpace();
    member(key, begin);
    SkipSpace();
    if (Take('}')) return;
    if (!Take(',')) return Fail(ScanError::kParse);
    SkipSpace();
  }
}

}  // namespace sallyport::edge

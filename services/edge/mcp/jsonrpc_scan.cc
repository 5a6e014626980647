// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/jsonrpc_scan.h"

#include <algorithm>
#include <simdjson.h>

namespace sallyport::edge {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::string_view kProtocolVersionKey = "io.modelcontextprotocol/protocolVersion";
constexpr std::string_view kCapabilitiesKey = "io.modelcontextprotocol/clientCapabilities";

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
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

// A cursor over the body; every Skip/Read leaves it behind what it took. Errors are sticky.
class Scanner {
 public:
  Scanner(std::string_view body, RpcMessage& message) : body_(body), message_(message) {}

  ScanError Run();

 private:
  bool ok() const { return error_ == ScanError::kNone; }
  void Fail(ScanError error) {
    if (ok()) error_ = error;
  }
  char Peek() const { return at_ < body_.size() ? body_[at_] : '\0'; }
  void SkipSpace() {
    while (at_ < body_.size() && IsSpace(body_[at_])) ++at_;
  }
  bool Take(char c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }

  // The string at the cursor without quotes, unescaped (into scratch if need be).
  std::string_view ReadString();
  void SkipString();
  void SkipNumber();
  void SkipLiteral(std::string_view literal);
  void SkipValue(int depth);
  void SkipObject(int depth);
  std::string_view RawValue(int depth);
  std::string_view Unescape(std::string_view raw);
  bool UnescapeUnicode(std::string_view raw, size_t& i, std::string& out);

  // Calls member(key, begin) with the cursor at each value; begin is the offset of the key's quote.
  template <typename Member>
  void Object(int depth, Member member);
  void Once(uint32_t bit, uint32_t& seen) {
    if ((seen & bit) != 0) Fail(ScanError::kInvalidRequest);
    seen |= bit;
  }
  std::string_view StringMember() {
    if (Peek() != '"') {
      Fail(ScanError::kInvalidRequest);
      return {};
    }
    return ReadString();
  }

  void TopLevel();
  void Params();
  void Meta();
  // True if it names elicitation.url.
  bool Capabilities(int depth);
  void Batch();
  void InputResponses(int depth);

  std::string_view body_;
  RpcMessage& message_;
  size_t at_ = 0;
  ScanError error_ = ScanError::kNone;
  bool has_result_ = false;
  bool has_method_ = false;
  bool params_elicitation_ = false;  // params.capabilities
  bool meta_elicitation_ = false;    // params._meta
  std::string_view uri_;
};

void Scanner::SkipString() {
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

std::string_view Scanner::ReadString() {
  const size_t begin = at_ + 1;
  SkipString();
  if (!ok()) return {};
  const std::string_view raw = body_.substr(begin, at_ - begin - 1);
  return raw.find('\\') == std::string_view::npos ? raw : Unescape(raw);
}

bool Scanner::UnescapeUnicode(std::string_view raw, size_t& i, std::string& out) {
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

std::string_view Scanner::Unescape(std::string_view raw) {
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
  message_.scratch.push_back(std::move(out));
  return message_.scratch.back();
}

void Scanner::SkipNumber() {
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

void Scanner::SkipLiteral(std::string_view literal) {
  if (body_.substr(at_, literal.size()) != literal) return Fail(ScanError::kParse);
  at_ += literal.size();
}

void Scanner::SkipValue(int depth) {
  if (depth > kMaxDepth) return Fail(ScanError::kParse);
  switch (Peek()) {
    case '"':
      return SkipString();
    case '{':
      return SkipObject(depth);
    case '[': {
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
      return;
    }
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

void Scanner::SkipObject(int depth) {
  ++at_;
  SkipSpace();
  if (Take('}')) return;
  while (ok()) {
    if (Peek() != '"') return Fail(ScanError::kParse);
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

std::string_view Scanner::RawValue(int depth) {
  const size_t begin = at_;
  SkipValue(depth);
  return body_.substr(begin, at_ - begin);
}

template <typename Member>
void Scanner::Object(int depth, Member member) {
  if (depth > kMaxDepth || !Take('{')) return Fail(ScanError::kParse);
  SkipSpace();
  if (Take('}')) return;
  while (ok()) {
    if (Peek() != '"') return Fail(ScanError::kParse);
    const size_t begin = at_;
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

void Scanner::InputResponses(int depth) {
  if (Peek() != '{') return SkipValue(depth);
  Object(depth, [&](std::string_view key, size_t begin) {
    RpcMessage::InputResponse response;
    response.key = key;
    if (Peek() == '{') {
      uint32_t seen = 0;
      Object(depth + 1, [&](std::string_view member, size_t /*begin*/) {
        if (member == "action") Once(1, seen);
        if (member == "action" && Peek() == '"') {
          response.action = ReadString();
        } else {
          SkipValue(depth + 2);
        }
      });
    } else {
      SkipValue(depth + 1);
    }
    response.range = {begin, at_};
    if (message_.input_responses.size() >= RpcMessage::kMaxInputResponses) return Fail(ScanError::kInvalidRequest);
    for (const auto& other : message_.input_responses) {
      if (other.key == key) return Fail(ScanError::kInvalidRequest);
    }
    message_.input_responses.push_back(response);
  });
}

bool Scanner::Capabilities(int depth) {
  bool url = false;
  if (Peek() != '{') {
    SkipValue(depth);
    return url;
  }
  uint32_t seen = 0;
  Object(depth, [&](std::string_view key, size_t /*begin*/) {
    if (key == "elicitation") Once(1, seen);
    if (key != "elicitation" || Peek() != '{') return SkipValue(depth + 1);
    Object(depth + 1, [&](std::string_view mode, size_t /*begin*/) {
      if (mode == "url") {
        Once(2, seen);
        url = Peek() == '{';
      }
      SkipValue(depth + 2);
    });
  });
  return url;
}

void Scanner::Meta() {
  constexpr int kDepth = 2;
  if (Peek() != '{') return SkipValue(kDepth);
  uint32_t seen = 0;
  Object(kDepth, [&](std::string_view key, size_t /*begin*/) {
    if (key == kProtocolVersionKey) {
      Once(1, seen);
      message_.modern = true;
      message_.protocol_version = StringMember();
    } else if (key == kCapabilitiesKey) {
      Once(2, seen);
      meta_elicitation_ = Capabilities(kDepth + 1);
    } else {
      SkipValue(kDepth + 1);
    }
  });
}

void Scanner::Params() {
  const size_t params_begin = at_;
  uint32_t seen = 0;
  Object(1, [&](std::string_view key, size_t begin) {
    const auto range = [&] { return RpcMessage::Range{begin, at_}; };
    if (key == "name") {
      Once(1, seen);
      if (Peek() == '"')
        message_.name = ReadString();
      else
        SkipValue(2);
    } else if (key == "uri") {
      Once(2, seen);
      if (Peek() == '"')
        uri_ = ReadString();
      else
        SkipValue(2);
    } else if (key == "arguments") {
      Once(4, seen);
      message_.arguments = RawValue(2);
    } else if (key == "_meta") {
      Once(8, seen);
      Meta();
    } else if (key == "capabilities") {
      Once(16, seen);
      params_elicitation_ = Capabilities(2);
    } else if (key == "requestState") {
      Once(32, seen);
      if (Peek() == '"')
        message_.request_state = ReadString();
      else
        SkipValue(2);
      message_.request_state_range = range();
    } else if (key == "inputResponses") {
      Once(64, seen);
      InputResponses(2);
      message_.input_responses_range = range();
    } else {
      SkipValue(2);
    }
  });
  if (!ok()) return;
  message_.params = body_.substr(params_begin, at_ - params_begin);
}

void Scanner::TopLevel() {
  uint32_t seen = 0;
  Object(0, [&](std::string_view key, size_t /*begin*/) {
    if (key == "method") {
      Once(1, seen);
      message_.method = StringMember();
      has_method_ = true;
    } else if (key == "id") {
      Once(2, seen);
      const char first = Peek();
      message_.id = RawValue(1);
      if (first == '{' || first == '[' || first == 't' || first == 'f') Fail(ScanError::kInvalidRequest);
    } else if (key == "params") {
      Once(4, seen);
      if (Peek() == '{')
        Params();
      else
        SkipValue(1);
    } else if (key == "result" || key == "error") {
      Once(key == "result" ? 8 : 16, seen);
      SkipValue(1);
      has_result_ = true;
    } else if (key == "jsonrpc") {
      Once(32, seen);
      SkipValue(1);
    } else {
      SkipValue(1);
    }
  });
}

// The gateway does not act on single elements of a batch, but none may say something that two readers understand
// differently, and the modern era has no batches.
void Scanner::Batch() {
  ++at_;
  SkipSpace();
  bool refused = Peek() == ']';
  if (Take(']')) return Fail(ScanError::kInvalidRequest);
  while (ok()) {
    if (Peek() == '{') {
      has_method_ = has_result_ = false;
      TopLevel();
      refused = refused || message_.modern || has_method_ == has_result_;
      message_.Clear();
    } else {
      SkipValue(1);
      refused = true;
    }
    SkipSpace();
    if (Take(']')) break;
    if (!Take(',')) return Fail(ScanError::kParse);
    SkipSpace();
  }
  message_.kind = RpcMessage::Kind::kBatch;
  if (refused) Fail(ScanError::kInvalidRequest);
}

ScanError Scanner::Run() {
  SkipSpace();
  const char first = Peek();
  if (first == '[') {
    Batch();
  } else if (first == '{') {
    TopLevel();
  } else {
    SkipValue(0);
  }
  SkipSpace();
  if (ok() && at_ != body_.size()) Fail(ScanError::kParse);
  if (ok() && first != '[' && first != '{') Fail(ScanError::kInvalidRequest);
  if (!ok() || first == '[') return error_;
  if (has_method_ == has_result_) Fail(ScanError::kInvalidRequest);
  message_.kind = has_result_           ? RpcMessage::Kind::kResponse
                  : message_.id.empty() ? RpcMessage::Kind::kNotification
                                        : RpcMessage::Kind::kRequest;
  if (message_.method == "resources/read") message_.name = uri_;
  message_.elicitation_url =
      message_.modern ? meta_elicitation_ : message_.method == "initialize" && params_elicitation_;
  return error_;
}

}  // namespace

void RpcMessage::Clear() {
  kind = Kind::kRequest;
  modern = false;
  elicitation_url = false;
  protocol_version = id = method = name = arguments = request_state = params = {};
  request_state_range = input_responses_range = {};
  input_responses.clear();
  scratch.clear();
}

std::vector<RpcMessage::Range> WidenToMembers(std::string_view body, std::vector<RpcMessage::Range> members) {
  std::sort(members.begin(), members.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  std::vector<RpcMessage::Range> merged;
  for (const RpcMessage::Range& member : members) {
    size_t between = merged.empty() ? 0 : merged.back().end;
    while (between < member.begin && (IsSpace(body[between]) || body[between] == ',')) ++between;
    if (!merged.empty() && between == member.begin) {
      merged.back().end = member.end;
    } else {
      merged.push_back(member);
    }
  }
  for (RpcMessage::Range& range : merged) {
    size_t after = range.end;
    while (after < body.size() && IsSpace(body[after])) ++after;
    size_t before = range.begin;
    while (before > 0 && IsSpace(body[before - 1])) --before;
    if (after < body.size() && body[after] == ',') {
      range.end = after + 1;
    } else if (before > 0 && body[before - 1] == ',') {
      range.begin = before - 1;
    }
  }
  return merged;
}

ScanError ScanRpcMessage(std::string_view body, RpcMessage& message) {
  message.Clear();
  // RFC 8259 section 8.1. What is no UTF-8 would be read differently by others, and no audit event can hold it.
  if (!simdjson::validate_utf8(body.data(), body.size())) return ScanError::kParse;
  return Scanner(body, message).Run();
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/jsonrpc_scan.h"

#include <algorithm>
#include <span>

#include "absl/strings/str_cat.h"

#include "common/text/string_view.h"
#include "common/text/utf8.h"
#include "services/edge/mcp/json_cursor.h"

namespace sallyport::edge {
namespace {

constexpr std::string_view kProtocolVersionKey = "io.modelcontextprotocol/protocolVersion";
constexpr std::string_view kCapabilitiesKey = "io.modelcontextprotocol/clientCapabilities";

// What is read of each object.
constexpr std::string_view kMessageKeys[] = {"method", "id", "params", "result", "error", "jsonrpc"};
constexpr std::string_view kParamsKeys[] = {"name",         "uri",          "arguments",     "_meta",
                                            "capabilities", "requestState", "inputResponses"};
constexpr std::string_view kMetaKeys[] = {kProtocolVersionKey, kCapabilitiesKey};
constexpr std::string_view kCapabilityKeys[] = {"elicitation"};
constexpr std::string_view kElicitationKeys[] = {"url"};
constexpr std::string_view kResponseKeys[] = {"action"};

// Reads what the gateway wants to know of one message.
class Scanner : private JsonCursor {
 public:
  Scanner(std::string_view body, RpcMessage& message) : JsonCursor(body, message.scratch), message_(message) {}

  ScanError Run();

 private:
  void Once(uint32_t bit, uint32_t& seen) {
    if ((seen & bit) != 0) Fail(ScanError::kInvalidRequest);
    seen |= bit;
  }
  // The value of a key that is not one of `known`.
  void SkipOther(std::string_view key, std::span<const std::string_view> known, int depth) {
    for (std::string_view name : known) {
      if (!EqualFolded(key, name)) continue;
      message_.ambiguous_key = name;
      return Fail(ScanError::kAmbiguousKey);
    }
    SkipValue(depth);
  }
  std::string_view StringMember() {
    if (Peek() != '"') {
      Fail(ScanError::kInvalidRequest);
      return {};
    }
    return ReadString();
  }
  // Into `out` if it is a string.
  void ReadIfString(std::string_view& out) {
    if (Peek() == '"') {
      out = ReadString();
    } else {
      SkipValue(2);
    }
  }

  void TopLevel();
  void Params();
  void Meta();
  // True if it names elicitation.url.
  bool Capabilities(int depth);
  void Batch();
  void List(std::string_view element, std::string& list) const;
  void InputResponses(int depth);

  RpcMessage& message_;
  bool has_result_ = false;
  bool has_method_ = false;
  bool params_elicitation_ = false;  // params.capabilities
  bool meta_elicitation_ = false;    // params._meta
  std::string_view uri_;
};

void Scanner::InputResponses(int depth) {
  if (Peek() != '{') return SkipValue(depth);
  Object(depth, [&](std::string_view key, size_t begin) {
    RpcMessage::InputResponse response;
    response.key = key;
    if (Peek() == '{') {
      uint32_t seen = 0;
      Object(depth + 1, [&](std::string_view member, size_t /*begin*/) {
        if (member != "action") return SkipOther(member, kResponseKeys, depth + 2);
        Once(1, seen);
        if (Peek() == '"') {
          response.action = ReadString();
        } else {
          SkipValue(depth + 2);
        }
      });
    } else {
      SkipValue(depth + 1);
    }
    response.range = {begin, at()};
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
    if (key != "elicitation") return SkipOther(key, kCapabilityKeys, depth + 1);
    Once(1, seen);
    if (Peek() != '{') return SkipValue(depth + 1);
    Object(depth + 1, [&](std::string_view mode, size_t /*begin*/) {
      if (mode != "url") return SkipOther(mode, kElicitationKeys, depth + 2);
      Once(2, seen);
      url = Peek() == '{';
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
      SkipOther(key, kMetaKeys, kDepth + 1);
    }
  });
}

void Scanner::Params() {
  const size_t params_begin = at();
  uint32_t seen = 0;
  Object(1, [&](std::string_view key, size_t begin) {
    const auto range = [&] { return RpcMessage::Range{begin, at()}; };
    if (key == "name") {
      Once(1, seen);
      ReadIfString(message_.name);
    } else if (key == "uri") {
      Once(2, seen);
      ReadIfString(uri_);
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
      ReadIfString(message_.request_state);
      message_.request_state_range = range();
    } else if (key == "inputResponses") {
      Once(64, seen);
      InputResponses(2);
      message_.input_responses_range = range();
    } else {
      SkipOther(key, kParamsKeys, 2);
    }
  });
  if (!ok()) return;
  message_.params = Since(params_begin);
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
      if (Peek() == '{') {
        Params();
      } else {
        SkipValue(1);
      }
    } else if (key == "result" || key == "error") {
      Once(key == "result" ? 8 : 16, seen);
      SkipValue(1);
      has_result_ = true;
    } else if (key == "jsonrpc") {
      Once(32, seen);
      SkipValue(1);
    } else {
      SkipOther(key, kMessageKeys, 1);
    }
  });
}

// The gateway does not act on single elements of a batch, but none may say something that two readers understand
// differently, and the modern era has no batches.
void Scanner::Batch() {
  std::string methods;
  std::string names;
  size_t elements = 0;
  Take('[');
  SkipSpace();
  bool refused = Peek() == ']';
  if (Take(']')) return Fail(ScanError::kInvalidRequest);
  while (ok()) {
    if (Peek() == '{') {
      has_method_ = has_result_ = false;
      TopLevel();
      if (!ok()) return;
      refused = refused || message_.modern || has_method_ == has_result_;
      if (++elements <= RpcMessage::kMaxBatchListed) {
        List(has_method_ ? message_.method : std::string_view("response"), methods);
        List(message_.method == "resources/read" ? uri_ : message_.name, names);
      }
      uri_ = {};
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
  const bool more = elements > RpcMessage::kMaxBatchListed;
  message_.batch_methods = absl::StrCat("batch of ", elements, ": ", methods, more ? ", ..." : "");
  message_.batch_names = std::move(names);
  if (refused) Fail(ScanError::kInvalidRequest);
}

void Scanner::List(std::string_view element, std::string& list) const {
  if (!list.empty()) list += ", ";
  if (element.empty()) element = "-";
  for (char c : Utf8Prefix(ToAbsl(element), RpcMessage::kMaxBatchElement)) list += c == ',' ? ';' : c;
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
  if (ok() && !AtEnd()) Fail(ScanError::kParse);
  if (ok() && first != '[' && first != '{') Fail(ScanError::kInvalidRequest);
  if (!ok() || first == '[') return error();
  if (has_method_ == has_result_) Fail(ScanError::kInvalidRequest);
  message_.kind = has_result_           ? RpcMessage::Kind::kResponse
                  : message_.id.empty() ? RpcMessage::Kind::kNotification
                                        : RpcMessage::Kind::kRequest;
  if (message_.method == "resources/read") message_.name = uri_;
  message_.elicitation_url =
      message_.modern ? meta_elicitation_ : message_.method == "initialize" && params_elicitation_;
  return error();
}

}  // namespace

void RpcMessage::Clear() {
  kind = Kind::kRequest;
  modern = false;
  elicitation_url = false;
  protocol_version = id = method = name = arguments = request_state = params = ambiguous_key = {};
  request_state_range = input_responses_range = {};
  input_responses.clear();
  batch_methods.clear();
  batch_names.clear();
  scratch.clear();
}

std::vector<RpcMessage::Range> WidenToMembers(std::string_view body, std::vector<RpcMessage::Range> members) {
  std::sort(members.begin(), members.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  std::vector<RpcMessage::Range> merged;
  for (const RpcMessage::Range& member : members) {
    size_t between = merged.empty() ? 0 : merged.back().end;
    while (between < member.begin && (IsJsonSpace(body[between]) || body[between] == ',')) ++between;
    if (!merged.empty() && between == member.begin) {
      merged.back().end = member.end;
    } else {
      merged.push_back(member);
    }
  }
  for (RpcMessage::Range& range : merged) {
    size_t after = range.end;
    while (after < body.size() && IsJsonSpace(body[after])) ++after;
    size_t before = range.begin;
    while (before > 0 && IsJsonSpace(body[before - 1])) --before;
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
  if (!IsValidUtf8(ToAbsl(body))) return ScanError::kParse;
  return Scanner(body, message).Run();
}

}  // namespace sallyport::edge

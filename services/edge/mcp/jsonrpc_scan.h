// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace sallyport::edge {

// What the gateway reads of a JSON-RPC message: views into the body, which is forwarded as it came. One pass, no
// allocation unless a string the gateway compares holds an escape. Keys compare case-sensitively after unescaping; one
// of the keys below occurring twice in its object is an error, so that no two readers of the body can see different
// requests. So is a key that equals one of them only after Unicode simple case folding ("METHOD", "paramſ"): some JSON
// libraries compare keys so.
struct RpcMessage {
  enum class Kind {
    kRequest,       // method and id
    kNotification,  // method, no id
    kResponse,      // result or error
    kBatch,         // an array; nothing else is filled but the two lists
  };
  Kind kind = Kind::kRequest;
  // params._meta["io.modelcontextprotocol/protocolVersion"] is there (2026-07-28 and later).
  bool modern = false;
  std::string_view protocol_version;
  std::string_view id;             // Raw JSON: 7 or "abc"; empty if absent.
  std::string_view method;         // Unescaped.
  std::string_view name;           // params.name, or params.uri for resources/read; unescaped.
  std::string_view arguments;      // Raw bytes of params.arguments.
  std::string_view request_state;  // params.requestState, unescaped.
  // Client's elicitation.url: params.capabilities on initialize, params._meta["…/clientCapabilities"] on modern
  // requests.
  bool elicitation_url = false;
  // With kAmbiguousKey: the key it is taken for.
  std::string_view ambiguous_key;
  // Raw params (object), for initialize.
  std::string_view params;

  // Byte ranges of members of params, from the key's quote to the value's end.
  struct Range {
    size_t begin = 0;
    size_t end = 0;
    bool empty() const { return begin == end; }
  };
  Range request_state_range;
  Range input_responses_range;
  // Members of params.inputResponses: key (unescaped) and range, in order.
  struct InputResponse {
    std::string_view key;
    std::string_view action;
    Range range;
  };
  static constexpr size_t kMaxInputResponses = 16;
  std::vector<InputResponse> input_responses;

  // For the audit: "batch of 20: tools/call, ping, ..." and as many names "search, -, ...", of the first elements only.
  // What would break the list in an element is replaced.
  static constexpr size_t kMaxBatchListed = 16;
  static constexpr size_t kMaxBatchElement = 64;
  static constexpr size_t kMaxBatchList = 32 + kMaxBatchListed * (kMaxBatchElement + 2);
  std::string batch_methods;
  std::string batch_names;

  // Holds what had to be unescaped.
  std::deque<std::string> scratch;
  void Clear();
};

// Why a body was refused: goes into the JSON-RPC error.
enum class ScanError {
  kNone,
  kParse,           // -32700: not JSON, not UTF-8, deeper than 64, bytes after the value
  kInvalidRequest,  // -32600: not an object or array, no method, a key twice, a wrong type, an empty or modern batch
  kAmbiguousKey,    // -32600: a key that some readers take for one that the gateway reads (RpcMessage::ambiguous_key)
  kTooManyKeys,     // -32600: more than JsonCursor::kMaxKeys in all
};

ScanError ScanRpcMessage(std::string_view body, RpcMessage& message);

// Members of objects in `body`, as ranges that can be cut out leaving valid JSON: each with the comma that belongs to
// it, neighbours as one. Ascending.
std::vector<RpcMessage::Range> WidenToMembers(std::string_view body, std::vector<RpcMessage::Range> members);

}  // namespace sallyport::edge

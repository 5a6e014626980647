// SPDX-License-Identifier: Apache-2.0
// What the caller sent: the body, the headers that repeat it, and the session it names.
#include "absl/strings/str_cat.h"

#include "common/text/base64url.h"
#include "common/text/string_view.h"
#include "services/edge/mcp/mcp_handler.h"

namespace sallyport::edge {

bool McpHandler::Scan(Exchange& exchange, McpCall& call) {
  if (exchange.head().method != "POST") return true;
  const ScanError error = ScanRpcMessage(exchange.body(), call.message);
  if (error == ScanError::kNone) {
    call.scanned = true;
    return true;
  }
  const bool parse = error == ScanError::kParse;
  if (error == ScanError::kAmbiguousKey) {
    const std::string message =
        absl::StrCat("some servers would read a member of the body as \"", ToAbsl(call.message.ambiguous_key),
                     "\", which it is not: spell members exactly as the specification does");
    Refuse(exchange, call, {.status = 400, .rpc_code = -32600, .reason = "ambiguous_member", .message = message});
    return false;
  }
  if (error == ScanError::kTooManyKeys) {
    Refuse(exchange, call,
           {.status = 400,
            .rpc_code = -32600,
            .reason = "too_many_keys",
            .message = "the body has more than 10000 object keys"});
    return false;
  }
  Refuse(exchange, call,
         {.status = 400,
          .rpc_code = parse ? -32700 : -32600,
          .reason = parse ? std::string_view("not_json") : std::string_view("not_json_rpc"),
          .message = parse ? std::string_view("the body is not JSON")
                           : std::string_view("the body is not one JSON-RPC message, or names a member twice")});
  return false;
}

// Headers that say something else than the body would make upstream and gateway see different requests.
bool McpHandler::CheckModernHeaders(Exchange& exchange, McpCall& call) {
  if (!call.scanned || !call.message.modern) return true;
  const auto disagrees = [&](HeaderId id, std::string_view body_value) {
    const HeaderField* field = exchange.head().Find(id);
    if (field == nullptr) return false;
    if (body_value.empty()) return !field->value.empty();
    constexpr std::string_view kBase64 = "=?base64?";
    if (field->value.starts_with(kBase64) && field->value.ends_with("?=") && field->value.size() > kBase64.size() + 2) {
      const auto decoded =
          Base64Decode(ToAbsl(field->value.substr(kBase64.size(), field->value.size() - kBase64.size() - 2)));
      return !decoded.ok() || *decoded != body_value;
    }
    return field->value != body_value;
  };
  const RpcMessage& message = call.message;
  const bool named =
      message.method == "tools/call" || message.method == "prompts/get" || message.method == "resources/read";
  if (disagrees(HeaderId::kMcpProtocolVersion, message.protocol_version) ||
      (!message.method.empty() && disagrees(HeaderId::kMcpMethod, message.method)) ||
      (named && disagrees(HeaderId::kMcpName, message.name))) {
    Refuse(exchange, call,
           {.status = 400,
            .rpc_code = -32020,
            .reason = "header_mismatch",
            .message = "Header mismatch: MCP-Protocol-Version, Mcp-Method or Mcp-Name differs from the body"});
    return false;
  }
  return true;
}

bool McpHandler::CheckSession(Exchange& exchange, McpCall& call) {
  const HeaderField* field = exchange.head().Find(HeaderId::kMcpSessionId);
  if (field == nullptr || call.principal == nullptr || (call.scanned && call.message.modern)) return true;
  call.has_session = true;
  call.client_session.assign(field->value);
  // Of one account: under another one's token the upstream would take it for that one's.
  const std::string_view account = call.chosen_account();
  if (call.memo_session_principal == call.principal && call.memo_session == field->value &&
      call.memo_session_account == account) {
    call.upstream_session.assign(call.memo_upstream_session);
    call.capabilities = call.memo_capabilities;
  } else {
    const auto tagger = doors_.tagger();
    if (tagger == nullptr) {
      RefuseStatus(exchange, call, absl::UnavailableError("no session keys yet"));
      return false;
    }
    const auto verified = tagger->Verify(call.principal->subject, call.entry->uid, field->value, account);
    if (!verified) {
      RefuseSession(exchange, call);
      return false;
    }
    call.upstream_session.assign(verified->upstream_id);
    call.capabilities = verified->capabilities;
    call.memo_session.assign(field->value);
    call.memo_session_account.assign(account);
    call.memo_upstream_session.assign(call.upstream_session);
    call.memo_capabilities = call.capabilities;
    call.memo_session_principal = call.principal;
  }
  call.synthetic = SyntheticSessions::IsSynthetic(call.upstream_session);
  return true;
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "services/edge/mcp/jsonrpc_scan.h"

namespace sallyport::edge {

// JSON-RPC bodies the gateway writes itself. `id` is raw JSON.

std::string RpcError(std::string_view id, int code, std::string_view message, std::string_view data_json = {});

// What an unlinked user gets, in the form their client can show (MCP 2026-07-28 elicitation, 2025-11-25 URL
// elicitation, or plain text).
struct LinkSignal {
  std::string url;
  std::string elicitation_id;
  std::string request_state;
  std::string message;   // "Connect your GitHub account to continue."
  std::string app_slug;  // Names the input request: "link_<slug>".
};
enum class LinkForm { kInputRequired, kUrlElicitation, kText };

// Which form fits: the modern one needs elicitation.url in this request and no upstream requestState; the legacy one
// needs it in the session's capabilities.
LinkForm ChooseLinkForm(const RpcMessage& message, bool session_elicitation_url);
inline constexpr std::string_view kInputKeyPrefix = "sallyport_link_";

// `http_status` is set (400 for the modern MissingRequiredClientCapability, else 200).
std::string LinkReply(const RpcMessage& message, LinkForm form, const LinkSignal& signal, int* http_status);
// A tools/call result (or an error for other methods) that ends the attempt: the user declined.
// `what`: "GitHub account".
std::string DeclinedReply(const RpcMessage& message, std::string_view what);

// Synthetic answers for a user who has not linked the account yet: one tool, connect_account. Empty if the method has
// none.
inline constexpr std::string_view kConnectTool = "connect_account";
// `app_name`: "GitHub"; `what`: "GitHub account", or a credential's name for both.
std::string SyntheticReply(const RpcMessage& message, std::string_view server_name, std::string_view app_name,
                           std::string_view what);

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/link_replies.h"

#include <nlohmann/json.hpp>

namespace sallyport::edge {
namespace {

using nlohmann::json;

constexpr int kUrlElicitationRequired = -32042;   // 2025-11-25
constexpr int kMissingClientCapability = -32021;  // 2026-07-28
constexpr int kLinkRequired = -32001;             // Outside the reserved range; message carries the link.
constexpr std::string_view kLegacyVersions[] = {"2025-11-25", "2025-06-18", "2025-03-26"};
constexpr std::string_view kModernVersion = "2026-07-28";

std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

// The id is raw JSON already checked by the scanner; it is spliced in as it came.
std::string Wrap(std::string_view id, std::string_view member, const json& value) {
  std::string out = "{\"jsonrpc\":\"2.0\",\"id\":";
  out.append(id.empty() ? std::string_view("null") : id);
  out.append(",\"").append(member).append("\":").append(Dump(value)).append("}");
  return out;
}

json ConnectToolDefinition(std::string_view app_name, std::string_view what) {
  return {{"name", kConnectTool},
          {"title", "Connect " + std::string(app_name)},
          {"description", "Connects your " + std::string(what) +
                              ", once. Call it to get the link; the server's own tools appear afterwards."},
          {"inputSchema", {{"type", "object"}, {"properties", json::object()}, {"additionalProperties", false}}}};
}

json TextResult(const RpcMessage& message, const std::string& text, bool is_error) {
  json result = {{"content", json::array({{{"type", "text"}, {"text", text}}})}, {"isError", is_error}};
  if (message.modern) result["resultType"] = "complete";
  return result;
}

std::string NegotiatedVersion(const RpcMessage& message) {
  const json params = json::parse(message.params.begin(), message.params.end(), nullptr, false);
  std::string asked = params.is_object() && params.contains("protocolVersion") && params["protocolVersion"].is_string()
                          ? params["protocolVersion"].get<std::string>()
                          : "";
  for (std::string_view version : kLegacyVersions) {
    if (asked == version) return asked;
  }
  return std::string(kLegacyVersions[0]);
}

}  // namespace

std::string RpcError(std::string_view id, int code, std::string_view message, std::string_view data_json) {
  json error = {{"code", code}, {"message", message}};
  if (!data_json.empty()) error["data"] = json::parse(data_json.begin(), data_json.end(), nullptr, false);
  return Wrap(id, "error", error);
}

LinkForm ChooseLinkForm(const RpcMessage& message, bool session_elicitation_url) {
  const bool answerable =
      message.method == "tools/call" || message.method == "prompts/get" || message.method == "resources/read";
  if (message.modern) {
    // A retry that carries the upstream's own state cannot also carry ours.
    const bool upstream_state = !message.request_state.empty() && message.request_state.substr(0, 4) != "sp1.";
    return answerable && message.elicitation_url && !upstream_state ? LinkForm::kInputRequired : LinkForm::kText;
  }
  return session_elicitation_url ? LinkForm::kUrlElicitation : LinkForm::kText;
}

std::string LinkReply(const RpcMessage& message, LinkForm form, const LinkSignal& signal, int* http_status) {
  *http_status = 200;
  switch (form) {
    case LinkForm::kInputRequired: {
      const json elicitation = {{"method", "elicitation/create"},
                                {"params", {{"mode", "url"}, {"url", signal.url}, {"message", signal.message}}}};
      return Wrap(message.id, "result",
                  {{"resultType", "input_required"},
                   {"inputRequests", {{std::string(kInputKeyPrefix) + signal.app_slug, elicitation}}},
                   {"requestState", signal.request_state}});
    }
    case LinkForm::kUrlElicitation: {
      const json elicitation = {
          {"mode", "url"}, {"elicitationId", signal.elicitation_id}, {"url", signal.url}, {"message", signal.message}};
      return Wrap(message.id, "error",
                  {{"code", kUrlElicitationRequired},
                   {"message", "This request requires more information."},
                   {"data", {{"elicitations", json::array({elicitation})}}}});
    }
    case LinkForm::kText:
      break;
  }
  const std::string text = signal.message + " Open " + signal.url + " in your browser, then try again.";
  if (message.method == "tools/call") return Wrap(message.id, "result", TextResult(message, text, true));
  if (message.modern && (message.method == "prompts/get" || message.method == "resources/read")) {
    *http_status = 400;
    return Wrap(message.id, "error",
                {{"code", kMissingClientCapability},
                 {"message", text},
                 {"data", {{"requiredCapabilities", {{"elicitation", {{"url", json::object()}}}}}}}});
  }
  return Wrap(message.id, "error", {{"code", kLinkRequired}, {"message", text}});
}

std::string DeclinedReply(const RpcMessage& message, std::string_view what) {
  const std::string text = "The " + std::string(what) + " was not connected, so this cannot be done.";
  if (message.method == "tools/call") return Wrap(message.id, "result", TextResult(message, text, true));
  return Wrap(message.id, "error", {{"code", kLinkRequired}, {"message", text}});
}

std::string SyntheticReply(const RpcMessage& message, std::string_view server_name, std::string_view app_name,
                           std::string_view what) {
  const json server_info = {{"name", server_name}, {"version", "0"}};
  const std::string instructions =
      "Connect your " + std::string(what) + " with the tool " + std::string(kConnectTool) + " to use this server.";
  if (message.method == "initialize") {
    return Wrap(message.id, "result",
                {{"protocolVersion", NegotiatedVersion(message)},
                 {"capabilities", {{"tools", {{"listChanged", true}}}}},
                 {"serverInfo", server_info},
                 {"instructions", instructions}});
  }
  if (message.method == "server/discover") {
    return Wrap(message.id, "result",
                {{"resultType", "complete"},
                 {"supportedVersions", json::array({kModernVersion})},
                 {"capabilities", {{"tools", json::object()}}},
                 {"serverInfo", server_info},
                 {"instructions", instructions},
                 {"ttlMs", 0},
                 {"cacheScope", "private"}});
  }
  if (message.method == "ping") return Wrap(message.id, "result", json::object());
  if (message.method == "tools/list") {
    json result = {{"tools", json::array({ConnectToolDefinition(app_name, what)})}};
    if (message.modern) {
      result["resultType"] = "complete";
      result["ttlMs"] = 0;
      result["cacheScope"] = "private";
    }
    return Wrap(message.id, "result", result);
  }
  return "";
}

}  // namespace sallyport::edge

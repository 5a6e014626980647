// SPDX-License-Identifier: Apache-2.0
// The gateway's own answers.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/text/string_view.h"
#include "services/edge/mcp/mcp_handler.h"

namespace sallyport::edge {

void McpHandler::RespondJson(Exchange& exchange, McpCall& call, int status, const std::string& body,
                             std::span<const Field> more) {
  if (exchange.streaming()) {
    exchange.WriteEvent(absl::StrCat("event: message\ndata: ", body, "\n\n"));
    return exchange.EndStream();
  }
  std::vector<Field> fields = {{"Content-Type", "application/json"}};
  fields.insert(fields.end(), more.begin(), more.end());
  if (!call.origin.empty()) {
    fields.push_back({"Access-Control-Allow-Origin", call.origin});
    fields.push_back({"Access-Control-Expose-Headers", kCorsExposeHeaders});
    fields.push_back({"Vary", "Origin"});
  }
  exchange.Respond(status, fields, body);
}

void McpHandler::RespondEmpty(Exchange& exchange, McpCall& call, int status) {
  if (exchange.streaming()) return exchange.EndStream();
  if (call.origin.empty()) return exchange.Respond(status, {}, "");
  exchange.Respond(status, {{"Access-Control-Allow-Origin", call.origin}, {"Vary", "Origin"}}, "");
}

void McpHandler::Refuse(Exchange& exchange, McpCall& call, const Reply& reply) {
  if (!reply.rule.empty()) {
    call.rule = reply.rule;
  } else if (call.rule.empty() || reply.status == 401 || reply.status == 403) {
    call.rule = reply.reason;
  }
  call.decision = reply.status == 401 || reply.status == 403 ? audit::v1::DECISION_DENIED : audit::v1::DECISION_FAILED;
  const std::string_view id = call.scanned ? call.message.id : std::string_view();
  const std::string body =
      RpcError(id, reply.rpc_code, reply.message, absl::StrCat("{\"reason\":\"", ToAbsl(reply.reason), "\"}"));
  const std::string retry_after = absl::StrCat(reply.retry_after);
  Field fields[3];
  size_t count = 0;
  if (!reply.challenge.empty()) fields[count++] = {"WWW-Authenticate", reply.challenge};
  if (reply.status == 405) fields[count++] = {"Allow", kAllowedMethods};
  if (reply.retry_after > 0) fields[count++] = {"Retry-After", retry_after};
  RespondJson(exchange, call, reply.status, body, std::span<const Field>(fields, count));
}

void McpHandler::RefuseUpstream(Exchange& exchange, McpCall& call, UpstreamError error) {
  const std::string message =
      absl::StrCat(IsProxyError(error) ? "the egress proxy opened no connection to the upstream: "
                                       : "the upstream did not answer properly: ",
                   std::string(UpstreamErrorName(error)));
  Refuse(exchange, call,
         {.status = UpstreamErrorStatus(error), .reason = UpstreamErrorName(error), .message = message});
}

// A client that is told so initializes anew.
void McpHandler::RefuseSession(Exchange& exchange, McpCall& call) {
  Refuse(exchange, call,
         {.status = 404, .rpc_code = -32001, .reason = "session_not_found", .message = "Session not found"});
}

// The broker has told authn, so the client's refresh token is worth nothing either: it signs in again, at the provider.
void McpHandler::RefuseEndedSignIn(Exchange& exchange, McpCall& call) {
  // Until the invalidation arrives; authn knows better from now on.
  if (call.principal != nullptr) call.principal->dead.store(true, std::memory_order_release);
  Refuse(exchange, call,
         {.status = 401,
          .rule = "sign_in_ended",
          .reason = "invalid_token",
          .message = "your sign-in has ended at the identity provider; sign in again",
          .challenge = call.entry->challenge_invalid});
}

void McpHandler::RefuseStatus(Exchange& exchange, McpCall& call, const absl::Status& status) {
  const ErrorDetail detail = DetailOf(status);
  const auto seconds =
      static_cast<int>(std::max<int64_t>(1, absl::ToInt64Seconds(absl::Ceil(detail.retry_after, absl::Seconds(1)))));
  if (const std::string_view trouble = ProviderTroubleOf(status); !trouble.empty()) {
    const std::string message(status.message());
    call.rule = trouble;
    // Where it would not help, nobody is asked to try again.
    const bool passes = absl::IsUnavailable(status);
    return Refuse(
        exchange, call,
        {.status = passes ? 503 : 502, .reason = trouble, .message = message, .retry_after = passes ? seconds : 0});
  }
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
      // Which check failed is for the audit; whoever sends tokens of others is told nothing.
      call.rule_text = detail.reason.empty() ? "invalid_token" : detail.reason;
      return Refuse(exchange, call,
                    {.status = 401,
                     .rule = call.rule_text,
                     .reason = "invalid_token",
                     .message = "sign in again",
                     .challenge = call.entry->challenge_invalid});
    case absl::StatusCode::kPermissionDenied:
      if (detail.reason == "origin_not_allowed") {
        return Refuse(exchange, call,
                      {.status = 502,
                       .rule = "origin_not_allowed",
                       .reason = "origin_not_allowed",
                       .message = "the configured credential may not be sent to this server's origin"});
      }
      if (detail.reason == "groups_overage") {
        return Refuse(exchange, call,
                      {.status = 403,
                       .reason = "groups_overage",
                       .message = "you may not use this server: it goes by groups, and your identity provider sent "
                                  "none because there are too many; its administrator can have it send fewer"});
      }
      return Refuse(exchange, call, {.status = 403, .reason = "not_allowed", .message = "you may not use this server"});
    case absl::StatusCode::kAborted:
      // Another service is ahead of our configuration: ours arrives any moment.
      return Retry(exchange, call);
    case absl::StatusCode::kFailedPrecondition: {
      if (detail.reason == "sign_in_ended") return RefuseEndedSignIn(exchange, call);
      if (detail.reason == "no_caller_token") {
        return Refuse(
            exchange, call,
            {.status = 502,
             .rule = "no_caller_token",
             .reason = "no_caller_token",
             .message = "this server forwards the token of your sign-in, and your way to sign in gives none"});
      }
      call.rule_text = detail.reason.empty() ? "credential_unavailable" : detail.reason;
      return Refuse(exchange, call,
                    {.status = 502,
                     .rule = call.rule_text,
                     .reason = call.rule_text,
                     .message = "the credential this server needs is not there; its administrator can add it"});
    }
    case absl::StatusCode::kInternal:
      if (detail.reason == "credential_unencodable") {
        return Refuse(exchange, call,
                      {.status = 500,
                       .rule = "credential_unencodable",
                       .reason = "credential_unencodable",
                       .message = "a credential cannot be sent as it is stored"});
      }
      Log(LogLevel::kError, "call_failed_inside", {{"server", call.entry->slug}, {"status", status}});
      return Refuse(exchange, call,
                    {.status = 500,
                     .rule = "internal_error",
                     .reason = "internal_error",
                     .message = "the gateway failed; its log says why"});
    default:
      if (detail.reason == "unknown_key") {
        return Refuse(exchange, call,
                      {.status = 503,
                       .rule = "unknown_key",
                       .reason = "try_again",
                       .message = "the key that signed your token is not known yet; try again",
                       .retry_after = seconds});
      }
      return Refuse(exchange, call,
                    {.status = 503,
                     .rule = "try_again",
                     .reason = "try_again",
                     .message = "a part of the gateway does not answer; try again",
                     .retry_after = seconds});
  }
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
// Which credential goes out, and the request that carries it.
#include "common/error.h"
#include "services/edge/mcp/mcp_handler.h"

namespace sallyport::edge {

void McpHandler::DoorTwo(Exchange& exchange, McpCall& call) {
  if (!NeedOf(*call.entry, call.principal).asked) return Forward(exchange, call);
  call.credentials = doors_.Credentials(*call.entry, call.principal, clock_.Now(), call.account);
  if (call.credentials != nullptr) return Forward(exchange, call);
  doors_.Resolve(
      *call.entry, call.principal,
      [this, ref = exchange.Defer()](const absl::StatusOr<Resolution>& resolution) {
        ref.Post([this, resolution](Exchange& live) { Resolved(live, CallOf(live), resolution); });
      },
      call.account);
}

void McpHandler::Resolved(Exchange& exchange, McpCall& call, const absl::StatusOr<Resolution>& resolution) {
  if (!resolution.ok()) return RefuseStatus(exchange, call, resolution.status());
  if (resolution->credentials == nullptr) return NeedsLink(exchange, call, resolution->link);
  call.credentials = resolution->credentials;
  Forward(exchange, call);
}

// Pieces that exist for this request only; nothing of them is kept.
McpHandler::Rendered McpHandler::RenderRequestScoped(Exchange& exchange, McpCall& call, std::string& head) {
  const ServerEntry& entry = *call.entry;
  if (entry.app_passthrough) {
    const HeaderField* field =
        exchange.head().Find(entry.interactive ? HeaderId::kSallyportAuthorization : HeaderId::kAuthorization);
    if (field != nullptr && !AppendField("Authorization", "", field->value, head)) return Rendered::kUnencodable;
  }
  if (call.principal != nullptr) return Rendered::kReady;  // With the principal.
  for (const ServerEntry::OwnHeader& header : entry.own_headers) {
    if (call.token.empty()) {
      Refuse(exchange, call,
             {.status = 401,
              .reason = "no_caller_token",
              .message = "this server forwards the caller's token: send one as Authorization: Bearer",
              .challenge = entry.challenge});
      return Rendered::kAnswered;
    }
    if (!AppendField(header.name, header.prefix, call.token, head)) return Rendered::kUnencodable;
  }
  return Rendered::kReady;
}

McpHandler::Rendered McpHandler::RenderRequest(Exchange& exchange, McpCall& call, std::string_view method,
                                               std::string_view session, size_t body_size) {
  const ServerEntry& entry = *call.entry;
  const RequestHead& request = exchange.head();
  std::string& head = exchange.upstream_head();
  head.clear();
  AppendRequestLine(method, *call.target(), request.query, entry.api_key_query,
                    call.credentials != nullptr ? std::string_view(call.credentials->query_value) : std::string_view(),
                    head);
  // A verified caller's session id is rewritten; an unverified one's goes on as it came.
  // What goes on in a stream of ours must be readable for us.
  entry.rules.AppendFields(request, call.principal != nullptr ? HeaderId::kMcpSessionId : HeaderId::kOther, head,
                           exchange.streaming() ? HeaderId::kAcceptEncoding : HeaderId::kOther);
  if (!session.empty() && !AppendField("Mcp-Session-Id", "", session, head)) return Rendered::kUnencodable;
  if (call.principal != nullptr) head.append(call.principal->header_lines);
  if (call.credentials != nullptr) head.append(call.credentials->header_lines);
  if (const Rendered rendered = RenderRequestScoped(exchange, call, head); rendered != Rendered::kReady)
    return rendered;
  FinishRequestHead(method, body_size, head);
  return Rendered::kReady;
}

void McpHandler::Forward(Exchange& exchange, McpCall& call) {
  if (call.target() == nullptr) {
    return RefuseStatus(exchange, call,
                        WithReason(absl::FailedPreconditionError("the target is not resolved"), "credential_missing"));
  }
  if (ReplayIfNeeded(exchange, call)) return;
  switch (RenderRequest(exchange, call, exchange.head().method, call.upstream_session, exchange.body().size())) {
    case Rendered::kReady:
      break;
    case Rendered::kAnswered:
      return;
    case Rendered::kUnencodable:
      return Refuse(exchange, call,
                    {.status = 500,
                     .rule = "credential_unencodable",
                     .reason = "credential_unencodable",
                     .message = "a credential of this request cannot be a header value"});
  }
  exchange.Forward(*call.target());
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
// Sessions the edge opened itself because the account was not linked: the first call after linking makes them the
// upstream's, and the others wait for it.
#include "absl/strings/str_cat.h"

#include "services/edge/mcp/mcp_handler.h"
#include "services/edge/mcp/upstream_answer.h"

namespace sallyport::edge {
namespace {

constexpr char kInitialized[] = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}";

SessionIdentity IdentityOf(const McpCall& call) {
  SessionIdentity identity = {call.entry->uid, call.principal->subject, ""};
  if (call.credentials != nullptr) {
    for (const CredentialSet::Connection& connection : call.credentials->connections) {
      absl::StrAppend(&identity.connections, connection.key, " ", connection.generation, "\n");
    }
  }
  return identity;
}

}  // namespace

// True if the call does not go upstream now: the upstream must hear the client's initialize first (from us or from a
// call that is at it), or the session is not ours any more.
bool McpHandler::ReplayIfNeeded(Exchange& exchange, McpCall& call) {
  if (!call.synthetic || call.principal == nullptr) {
    LeaveSession(exchange, call);  // Entered before the server changed.
    return false;
  }
  if (call.replay == McpCall::Replay::kDone) return false;
  using Kind = SyntheticSessions::Step::Kind;
  SyntheticSessions::Step step =
      synthetic_.Enter(call.upstream_session, IdentityOf(call), &exchange,
                       [this, ref = exchange.Defer()](const SyntheticSessions::Step& next) {
                         ref.Post([this, next](Exchange& live) { OnReplayStep(live, CallOf(live), next); });
                       });
  switch (step.kind) {
    case Kind::kReady:
      call.upstream_session = std::move(step.upstream_id);
      call.replay = McpCall::Replay::kDone;
      return false;
    case Kind::kReplay:
      call.entered_session = call.upstream_session;
      call.replay = McpCall::Replay::kInitialize;
      call.replay_body =
          absl::StrCat("{\"jsonrpc\":\"2.0\",\"id\":\"sallyport-replay\",\"method\":\"initialize\",\"params\":",
                       step.initialize_params, "}");
      SendReplay(exchange, call);
      return true;
    case Kind::kWait:
      call.entered_session = call.upstream_session;
      AwaitReplay(exchange, call);
      return true;
    default:
      RefuseSession(exchange, call);
      return true;
  }
}

// As long as this call would have been given had it asked the upstream itself.
void McpHandler::AwaitReplay(Exchange& exchange, McpCall& call) {
  call.replay = McpCall::Replay::kWaiting;
  exchange.Wake(call.entry->target.first_byte_timeout, [this](Exchange& live) {
    McpCall& waiting = CallOf(live);
    if (waiting.replay != McpCall::Replay::kWaiting) return;
    waiting.replay = McpCall::Replay::kDone;
    LeaveSession(live, waiting);
    RefuseUpstream(live, waiting, UpstreamError::kFirstByteTimeout);
  });
}

void McpHandler::OnReplayStep(Exchange& exchange, McpCall& call, const SyntheticSessions::Step& step) {
  using Kind = SyntheticSessions::Step::Kind;
  if (call.replay != McpCall::Replay::kWaiting) return;  // Its time was up.
  switch (step.kind) {
    case Kind::kReady:
    case Kind::kReplay:
      // Through both doors again: the caller may have lost their admission or account while they waited.
      return StartAnew(exchange, call);
    case Kind::kFailed:
      call.replay = McpCall::Replay::kDone;
      return step.error.has_value() ? RefuseUpstream(exchange, call, *step.error) : RefuseSession(exchange, call);
    default:
      call.replay = McpCall::Replay::kDone;
      return RefuseSession(exchange, call);
  }
}

void McpHandler::LeaveSession(Exchange& exchange, McpCall& call) {
  if (call.entered_session.empty()) return;
  synthetic_.Leave(call.entered_session, &exchange);
  call.entered_session.clear();
}

void McpHandler::SendReplay(Exchange& exchange, McpCall& call) {
  std::string& head = exchange.upstream_head();
  head.clear();
  AppendRequestLine("POST", *call.target(), {}, call.entry->api_key_query,
                    call.credentials != nullptr ? std::string_view(call.credentials->query_value) : std::string_view(),
                    head);
  const bool rendered = AppendField("Content-Type", "", "application/json", head) &&
                        AppendField("Accept", "", "application/json, text/event-stream", head) &&
                        (call.replay_session.empty() || AppendField("Mcp-Session-Id", "", call.replay_session, head));
  head.append(call.principal->header_lines);
  if (call.credentials != nullptr) head.append(call.credentials->header_lines);
  if (!rendered) return RefuseStatus(exchange, call, absl::InternalError("session id cannot be sent"));
  FinishRequestHead("POST", call.replay_body.size(), head);
  exchange.Forward(*call.target(), call.replay_body);
}

void McpHandler::OnReplayAnswer(Exchange& exchange, McpCall& call, const ResponseHead& head, std::string_view body) {
  if (!call.entry->credential_uid.empty() && CredentialRefused(call, head)) {
    // It was the caller's own: they are asked for another one, and the session they know goes on meanwhile.
    LeaveSession(exchange, call);
    call.replay = McpCall::Replay::kNone;
    return AfterRefusal(exchange, call);
  }
  const AnswerKind kind = KindOf(head);
  if (head.status < 400 && (kind == AnswerKind::kRedirect || (kind == AnswerKind::kBodiless && !body.empty()))) {
    call.replay = McpCall::Replay::kDone;
    synthetic_.Failed(call.entered_session, &exchange, UpstreamError::kBadResponse);
    return RefuseAnswer(exchange, call, head);
  }
  if (head.status < 200 || head.status > 299) {
    call.replay = McpCall::Replay::kDone;
    synthetic_.Failed(call.entered_session, &exchange, std::nullopt);
    return RefuseSession(exchange, call);
  }
  if (call.replay == McpCall::Replay::kInitialize) {
    const HeaderField* session = head.Find(HeaderId::kMcpSessionId);
    call.replay_session = session == nullptr ? "" : std::string(session->value);
    call.replay = McpCall::Replay::kInitialized;
    call.replay_body = kInitialized;
    return SendReplay(exchange, call);
  }
  call.replay = McpCall::Replay::kDone;
  synthetic_.Replayed(call.entered_session, &exchange, call.replay_session);
  call.upstream_session = call.replay_session;
  Forward(exchange, call);
}

}  // namespace sallyport::edge

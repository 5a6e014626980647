// SPDX-License-Identifier: Apache-2.0
// What comes back from an upstream, and what of it the client may see.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/json_log.h"
#include "services/edge/edge_state.h"
#include "services/edge/mcp/connection_name.h"
#include "services/edge/mcp/mcp_handler.h"
#include "services/edge/mcp/upstream_answer.h"

namespace sallyport::edge {
namespace {

// The broker forces no two renewals of one connection in less.
constexpr int kSecondsBetweenRenewals = 30;

}  // namespace

// We hold a credential, or forbid the client's own: then an upstream's 401 must not reach the client, who would sign in
// with us again for nothing.
bool McpHandler::CredentialRefused(const McpCall& call, const ResponseHead& head) const {
  if (head.status != 401) return false;
  const bool callers_own = !call.entry->interactive && call.entry->app_passthrough;
  return !callers_own;
}

Verdict McpHandler::OnUpstreamHead(Exchange& exchange, McpCall& call, const ResponseHead& head, RelayHead& relay) {
  if (call.replaying()) return Verdict::kCollect;
  if (CredentialRefused(call, head)) return Verdict::kDiscard;
  const AnswerKind kind = KindOf(head);
  if (kind == AnswerKind::kRedirect) return Verdict::kDiscard;
  if (kind == AnswerKind::kRelayed) {
    // Into a stream of ours goes plain text only.
    if (exchange.streaming() && head.content_encoded) return Verdict::kDiscard;
    if (head.event_stream && !exchange.streaming() && !streams_.Opened(exchange, call)) return Verdict::kRelay;
  }
  ResponseRules rules = RulesFor(call);
  rules.without_body = kind != AnswerKind::kRelayed || head.framing == BodyFraming::kNone;
  std::string tagged;
  if (const HeaderField* session = head.Find(HeaderId::kMcpSessionId);
      session != nullptr && call.principal != nullptr) {
    if (call.synthetic || session->value == call.upstream_session) {
      rules.session_id = call.client_session;  // The client goes on under the id it knows.
    } else if (const auto tagger = doors_.tagger(); tagger != nullptr) {
      const uint8_t capabilities =
          call.scanned && call.message.elicitation_url ? kCapabilityElicitationUrl : uint8_t{0};
      tagged =
          tagger->Tag(call.principal->subject, call.entry->uid, session->value, capabilities, call.chosen_account());
      rules.session_id = tagged;
    } else {
      rules.drop_session_id = true;  // An untagged id must not get out; without one the client works sessionless.
    }
  }
  AppendResponseFields(head, rules, relay.fields);
  if (kind == AnswerKind::kRelayed) return Verdict::kRelay;
  return kind == AnswerKind::kAccepted ? Verdict::kRelayHead : Verdict::kRelayIfEmpty;
}

ResponseRules McpHandler::RulesFor(const McpCall& call) {
  ResponseRules rules;
  rules.allowed_origin = call.origin;
  rules.keep_challenge = !call.entry->interactive && call.entry->app_passthrough;
  if (rules.keep_challenge && call.entry->target.secret) {
    // It may name the address: resource_metadata (RFC 9728 section 5.1) is made of it.
    rules.keep_challenge = false;
    rules.own_challenge = call.entry->challenge;
  }
  return rules;
}

void McpHandler::OnUpstreamBody(Exchange& exchange, McpCall& call, const ResponseHead& head, std::string_view body) {
  if (call.replaying()) return OnReplayAnswer(exchange, call, head, body);
  if (CredentialRefused(call, head)) return AfterRefusal(exchange, call);
  if (KindOf(head) != AnswerKind::kRelayed) {
    return head.status >= 400 ? RelayError(exchange, call, head) : RefuseAnswer(exchange, call, head);
  }
  Refuse(exchange, call,
         {.status = 502,
          .reason = "upstream_encoded",
          .message = "the upstream compressed an answer that was asked for uncompressed"});
}

// The upstream's status counts (404: the session is over; 405: no GET stream), in words of ours. The caller was served:
// this is no refusal, for the audit.
void McpHandler::RelayError(Exchange& exchange, McpCall& call, const ResponseHead& head) {
  const std::string message =
      absl::StrCat("the upstream answered HTTP ", head.status, "; its body (", DescribeType(head), ") is not relayed");
  const std::string body =
      RpcError(call.scanned ? call.message.id : std::string_view(), -32000, message, R"({"reason":"upstream_error"})");
  std::vector<Field> fields;
  const ResponseRules rules = RulesFor(call);
  for (const HeaderField& field : head.fields()) {
    const bool kept = field.id == HeaderId::kWwwAuthenticate || EqualNames(field.name, "Retry-After") ||
                      (head.status == 405 && EqualNames(field.name, "Allow"));
    if (kept && MayReachClient(head, rules, field)) fields.push_back({field.name, field.value});
  }
  if (head.status == 401 && !rules.own_challenge.empty()) fields.push_back({"WWW-Authenticate", rules.own_challenge});
  RespondJson(exchange, call, head.status, body, fields);
}

// An answer that an MCP endpoint does not give: the configured URL leads elsewhere.
void McpHandler::RefuseAnswer(Exchange& exchange, McpCall& call, const ResponseHead& head) {
  const bool redirect = KindOf(head) == AnswerKind::kRedirect;
  const std::string message =
      redirect ? DescribeRedirect(head, *call.target())
               : absl::StrCat("the upstream answered HTTP ", head.status, " with ", DescribeType(head),
                              "; only application/json and text/event-stream are relayed: set ",
                              call.entry->target.secret ? "secretUpstreamUrl" : "upstreamUrl",
                              " to the address of its MCP endpoint");
  // The audit has it in place of the rule that admitted the caller: there an administrator finds it.
  call.rule = redirect ? "upstream_redirect" : "upstream_body_type";
  Refuse(exchange, call, {.status = 502, .reason = call.rule, .message = message});
}

// What the agent supplied itself is refused first, where there is both.
bool McpHandler::AgentSupplied(const Exchange& exchange, const McpCall& call) {
  return call.entry->app_passthrough && exchange.head().Find(HeaderId::kSallyportAuthorization) != nullptr;
}

// The token of the sign-in behind our own is kept and renewed for the user, like an app's.
bool McpHandler::ForwardsSignInToken(const McpCall& call) {
  return call.entry->app_uid.empty() && call.principal != nullptr && call.credentials != nullptr &&
         std::any_of(call.credentials->connections.begin(), call.credentials->connections.end(),
                     [](const auto& connection) { return IsSignIn(connection.key); });
}

void McpHandler::AfterRefusal(Exchange& exchange, McpCall& call) {
  call.entry->metrics->credential_refused->Increment();
  const bool per_user = !call.entry->app_uid.empty() && call.principal != nullptr && call.credentials != nullptr;
  const bool agents_first = AgentSupplied(exchange, call);
  const bool sign_in = !agents_first && ForwardsSignInToken(call);
  const bool renewable = !agents_first && call.credentials != nullptr && !call.credentials->renewables.empty();
  const auto own = agents_first ? std::nullopt : doors_.OwnCredentialOf(*call.entry);
  // Of an account the broker is told a second time: it knows whether another link would help, or only waiting. Beside a
  // credential of the caller's own that is what is left to be wrong.
  if ((per_user || renewable) && (!call.refreshed || (per_user && !call.asked_again && !own.has_value()))) {
    call.asked_again = call.refreshed;
    call.refreshed = true;
    doors_.Refresh(
        *call.entry, call.principal, *call.credentials,
        [this, sign_in, ref = exchange.Defer()](const absl::StatusOr<Resolution>& resolution) {
          ref.Post([this, sign_in, resolution](Exchange& live) {
            McpCall& waiting = CallOf(live);
            // Not to be had newer: what the upstream said stands.
            const std::string reason = ReasonOf(resolution.status());
            if (reason == "credential_refused" || (sign_in && reason == "no_caller_token"))
              return AfterRefusal(live, waiting);
            if (resolution.ok() && resolution->credentials == nullptr && resolution->link.credential()) {
              Log(LogLevel::kInfo, "own_credential_refused_by_upstream", {{"server", waiting.entry->slug}});
            }
            Resolved(live, waiting, resolution);
          });
        },
        call.account);
    return;
  }
  if (own.has_value()) {
    Log(LogLevel::kInfo, "own_credential_refused_by_upstream", {{"server", call.entry->slug}});
    return NeedsLink(exchange, call, *own);
  }
  if (per_user) {
    const std::string message = absl::StrCat("the server refuses each token that ", doors_.AppName(*call.entry),
                                             " renews; your account is still connected, try again");
    return Refuse(exchange, call,
                  {.status = 503,
                   .rule = kRenewedTokenRefused,
                   .reason = kRenewedTokenRefused,
                   .message = message,
                   .retry_after = kSecondsBetweenRenewals});
  }
  // The audit has it in place of the rule that admitted the caller: there an administrator finds it.
  // Of a server that the agent brings nothing for, what the gateway added is what was refused.
  const bool ours = call.credentials != nullptr && !agents_first;
  const bool agents = call.entry->app_passthrough && !ours;
  call.rule = agents ? "agent_credential_refused" : "credential_refused";
  if (agents) {
    return Refuse(exchange, call,
                  {.status = 502,
                   .reason = "agent_credential_refused",
                   .message = "the upstream refused the credential the agent supplied (X-Sallyport-Authorization)"});
  }
  Log(LogLevel::kWarning, "credential_refused_by_upstream", {{"server", call.entry->slug}});
  Refuse(exchange, call,
         {.status = 502,
          .reason = "credential_refused",
          .message = sign_in ? "the upstream refused the configured credential or the token of your sign-in; sign in "
                               "again, or ask the server's administrator"
                             : "the upstream refused the configured credential; its administrator must renew it"});
}

void McpHandler::OnUpstreamError(Exchange& exchange, McpCall& call, UpstreamError error) {
  if (call.replaying()) {
    call.replay = McpCall::Replay::kDone;
    synthetic_.Failed(call.entered_session, &exchange, error);
  }
  if (error == UpstreamError::kTls) call.entry->metrics->upstream_tls_failed->Increment();
  RefuseUpstream(exchange, call, error);
}

}  // namespace sallyport::edge

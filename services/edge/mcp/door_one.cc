// SPDX-License-Identifier: Apache-2.0
// Who may come in: the token, and what authn says of it.
#include "common/text/label.h"
#include "common/text/string_view.h"
#include "services/edge/edge_state.h"
#include "services/edge/mcp/mcp_handler.h"
#include "services/edge/mcp/own_token.h"
#include "services/edge/request_credentials.h"

namespace sallyport::edge {

// Each at most once, and of a scheme that goes with the request.
bool McpHandler::CheckCredentialFields(Exchange& exchange, McpCall& call) {
  const RequestHead& head = exchange.head();
  if (head.Count(HeaderId::kAuthorization) > 1 || head.Count(HeaderId::kSallyportAuthorization) > 1) {
    Refuse(exchange, call,
           {.status = 400,
            .rpc_code = -32600,
            .reason = "authorization_twice",
            .message = "Authorization stands in the request twice"});
    return false;
  }
  for (const HeaderId id : {HeaderId::kAuthorization, HeaderId::kSallyportAuthorization}) {
    const HeaderField* field = head.Find(id);
    if (field == nullptr || !NamesConnectionAuthentication(field->value)) continue;
    Refuse(exchange, call,
           {.status = 400,
            .rpc_code = -32600,
            .reason = "connection_authentication",
            .message = "NTLM and Negotiate authenticate a connection, and callers share connections to the upstream: "
                       "use a credential that goes with each request, such as Bearer or Basic"});
    return false;
  }
  return true;
}

bool McpHandler::ReadToken(Exchange& exchange, McpCall& call) {
  if (!CheckCredentialFields(exchange, call)) return false;
  const RequestHead& head = exchange.head();
  const ServerEntry& entry = *call.entry;
  call.token = BearerOf(head);
  const auto holds_ours = [&](HeaderId id) {
    const HeaderField* field = head.Find(id);
    return field != nullptr && HoldsOurToken(field->value, site_.public_url);
  };
  if (entry.interactive && entry.app_passthrough && holds_ours(HeaderId::kSallyportAuthorization)) {
    Refuse(exchange, call,
           {.status = 400,
            .rpc_code = -32600,
            .reason = "own_token",
            .message = "X-Sallyport-Authorization is for the upstream's credential; a token of this gateway never "
                       "leaves"});
    return false;
  }
  if (!entry.interactive && holds_ours(HeaderId::kAuthorization)) {
    Refuse(exchange, call,
           {.status = 401,
            .reason = "own_token",
            .message = "a token of this gateway is not for this server and never leaves",
            .challenge = entry.challenge_invalid});
    return false;
  }
  if (entry.authenticates() && call.token.empty()) {
    Refuse(exchange, call,
           {.status = 401, .reason = "no_token", .message = "sign in first", .challenge = entry.challenge});
    return false;
  }
  return true;
}

// Which of several accounts the caller means. It chooses a credential, so that it is never taken for something else and
// never goes unheard.
bool McpHandler::ReadAccount(Exchange& exchange, McpCall& call) {
  const RequestHead& head = exchange.head();
  const HeaderField* field = head.Find(HeaderId::kSallyportAccount);
  if (field == nullptr) return true;
  const ServerEntry& entry = *call.entry;
  // With Passthrough in both directions nothing is chosen here, and nothing is asked: it is dropped as any of ours.
  if (entry.app_uid.empty() && entry.app_passthrough && !entry.interactive) return true;
  if (entry.app_uid.empty()) {
    Refuse(exchange, call,
           {.status = 400,
            .rpc_code = -32600,
            .reason = "account_not_used",
            .message = "X-Sallyport-Account: this server uses no account of yours; send the request without it"});
    return false;
  }
  if (head.Count(HeaderId::kSallyportAccount) > 1 || !IsLabel(ToAbsl(field->value))) {
    Refuse(exchange, call,
           {.status = 400,
            .rpc_code = -32600,
            .reason = "account_malformed",
            .message = "X-Sallyport-Account: must be one label of 1 to 64 letters, digits or ._@+-"});
    return false;
  }
  if (field->value != entry.account) call.account = field->value;
  return true;
}

void McpHandler::DoorOne(Exchange& exchange, McpCall& call) {
  OpenStreams::Began(exchange, call);
  const absl::Time now = clock_.Now();  // Not call.started: the body may have taken its time.
  // The same token on the same connection: no hash, no lookup.
  if (call.memo_serial == call.entry->serial && call.memo_token == call.token &&
      doors_.Usable(call.memo_principal, *call.entry, call.token, now)) {
    call.principal = call.memo_principal;
    return Admitted(exchange, call);
  }
  WorkerData& data = DataOf(exchange);
  const PrincipalKey key = {data.token_hash.Of(call.token), call.entry->serial};
  const auto own = data.principals.find(key);
  if (own != data.principals.end() && doors_.Usable(own->second, *call.entry, call.token, now)) {
    call.principal = own->second;
  } else if (PrincipalPtr shared = doors_.Find(key); doors_.Usable(shared, *call.entry, call.token, now)) {
    if (data.principals.size() >= WorkerData::kMaxPrincipals) data.principals.clear();
    data.principals[key] = shared;
    call.principal = std::move(shared);
  }
  if (call.principal != nullptr) {
    call.memo_serial = call.entry->serial;
    call.memo_token.assign(call.token);
    call.memo_principal = call.principal;
    return Admitted(exchange, call);
  }
  // Not before: what is remembered was verified, and reading every token of every call would be felt.
  if (!IsBearerToken(call.token)) {
    return Refuse(exchange, call,
                  {.status = 401,
                   .rule = "malformed_token",
                   .reason = "invalid_token",
                   .message = "sign in again: the Authorization header holds no bearer token",
                   .challenge = call.entry->challenge_invalid});
  }
  doors_.Authenticate(key, *call.entry, call.token,
                      [this, ref = exchange.Defer()](const absl::StatusOr<PrincipalPtr>& result) {
                        ref.Post([this, result](Exchange& live) {
                          McpCall& waiting = CallOf(live);
                          if (!result.ok()) return RefuseStatus(live, waiting, result.status());
                          waiting.principal = *result;
                          Admitted(live, waiting);
                        });
                      });
}

void McpHandler::Admitted(Exchange& exchange, McpCall& call) {
  call.decision = audit::v1::DECISION_ALLOWED;
  if (call.principal == nullptr) {
    call.rule = "passthrough";
  } else if (!call.principal->rule.empty()) {
    call.rule = call.principal->rule;
  } else {
    call.rule = call.entry->interactive ? "interactive" : "passthrough.jwt";
  }
  if (call.principal != nullptr && call.principal->claim_refusal.status != 0) {
    const Principal::ClaimRefusal& refusal = call.principal->claim_refusal;
    return Refuse(exchange, call, {.status = refusal.status, .reason = refusal.reason, .message = refusal.message});
  }
  if (call.principal != nullptr && call.principal->wrong_token_kind) {
    return Refuse(exchange, call,
                  {.status = 502,
                   .reason = "no_caller_token",
                   .message = "this server forwards the other kind of token (access or ID) than the one you sent"});
  }
  if (!Scan(exchange, call) || !CheckModernHeaders(exchange, call) || !CheckSession(exchange, call)) return;
  if (ResumeIfAsked(exchange, call)) return;
  DoorTwo(exchange, call);
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/mcp_handler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "common/base64url.h"
#include "common/error.h"
#include "common/json.h"
#include "common/openssl.h"
#include "common/string_view.h"
#include "services/edge/edge_state.h"

namespace sallyport::edge {
namespace {

constexpr std::string_view kPrefix = "/mcp/";
constexpr int kMaxSkewRetries = 20;
constexpr auto kSkewDelay = std::chrono::milliseconds(50);

WorkerData& DataOf(Exchange& exchange) { return *static_cast<WorkerData*>(exchange.worker().context); }

std::string_view TrimBlanks(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  return text;
}

// A token of ours on a Passthrough server would travel upstream: its issuer, read without verification, gives it away.
bool IsOurToken(std::string_view token, const std::string& issuer) {
  if (token.starts_with("spr_") || token.starts_with("spa_")) return true;
  const size_t first = token.find('.');
  const size_t second = first == std::string_view::npos ? first : token.find('.', first + 1);
  if (second == std::string_view::npos) return false;
  const auto payload = Base64UrlDecode(ToAbsl(token.substr(first + 1, second - first - 1)));
  if (!payload.ok()) return false;
  const auto claims = ParseJson(*payload);
  return claims.ok() && claims->is_object() && claims->contains("iss") && (*claims)["iss"] == issuer;
}

// In whatever scheme and behind whatever separator: an upstream might find it there.
bool HoldsOurToken(std::string_view credentials, const std::string& issuer) {
  constexpr std::string_view kSeparators = " \t,;=\"";
  while (!credentials.empty()) {
    const size_t end = std::min(credentials.find_first_of(kSeparators), credentials.size());
    if (end > 0 && IsOurToken(credentials.substr(0, end), issuer)) return true;
    credentials.remove_prefix(std::min(end + 1, credentials.size()));
  }
  return false;
}

// W3C Trace Context: the trace id of traceparent, or nothing.
std::string_view TraceId(const RequestHead& head) {
  const std::string_view parent = head.ValueOf("traceparent");
  if (parent.size() < 55 || parent[2] != '-' || parent[35] != '-') return {};
  const std::string_view id = parent.substr(3, 32);
  // Anything else than what the format has must not get into an audit event, which holds UTF-8 only.
  const bool hex =
      std::all_of(id.begin(), id.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  return hex ? id : std::string_view();
}

}  // namespace

McpCall& CallOf(Exchange& exchange) { return static_cast<EdgeState*>(exchange.state())->mcp; }

McpCall::~McpCall() { OPENSSL_cleanse(memo_token.data(), memo_token.size()); }

void McpCall::Clear() {
  entry.reset();
  token = origin = {};
  principal.reset();
  credentials.reset();
  scanned = false;
  message.Clear();
  upstream_session.clear();
  client_session.clear();
  capabilities = 0;
  has_session = synthetic = resumed = held = refreshed = false;
  replay = Replay::kNone;
  replay_body.clear();
  replay_session.clear();
  waiting_for.clear();
  skew_retries = 0;
  rule = {};
  decision = audit::v1::DECISION_ALLOWED;
}

McpHandler::McpHandler(const SiteOptions& site, Routes& routes, Doors& doors, CallAudit& audit, const Clock& clock)
    : site_(site), routes_(routes), doors_(doors), audit_(audit), clock_(clock) {
  doors_.SetConnectionListener([this](const std::string& key) { OnConnection(key); });
}

// --- answers of our own ---

void McpHandler::RespondJson(Exchange& exchange, McpCall& call, int status, const std::string& body,
                             std::string_view session) {
  std::string cors;
  Field fields[8];
  size_t count = 0;
  fields[count++] = {"Content-Type", "application/json"};
  fields[count++] = {"Cache-Control", "no-store"};
  if (!session.empty()) fields[count++] = {"Mcp-Session-Id", session};
  if (!call.origin.empty()) {
    fields[count++] = {"Access-Control-Allow-Origin", call.origin};
    fields[count++] = {"Access-Control-Expose-Headers", kCorsExposeHeaders};
    fields[count++] = {"Vary", "Origin"};
  }
  if (exchange.streaming()) {
    exchange.WriteEvent(absl::StrCat("event: message\ndata: ", body, "\n\n"));
    return exchange.EndStream();
  }
  exchange.Respond(status, std::span<const Field>(fields, count), body);
}

void McpHandler::RespondEmpty(Exchange& exchange, McpCall& call, int status) {
  if (exchange.streaming()) return exchange.EndStream();
  if (call.origin.empty()) return exchange.Respond(status, {}, "");
  exchange.Respond(status, {{"Access-Control-Allow-Origin", call.origin}, {"Vary", "Origin"}}, "");
}

void McpHandler::Refuse(Exchange& exchange, McpCall& call, const Reply& reply) {
  if (call.rule.empty() || reply.status == 401 || reply.status == 403) call.rule = reply.reason;
  call.decision = reply.status == 401 || reply.status == 403 ? audit::v1::DECISION_DENIED : audit::v1::DECISION_FAILED;
  const std::string_view id = call.scanned ? call.message.id : std::string_view();
  const std::string body =
      RpcError(id, reply.rpc_code, reply.message, absl::StrCat("{\"reason\":\"", ToAbsl(reply.reason), "\"}"));
  if (exchange.streaming()) return RespondJson(exchange, call, reply.status, body);
  const std::string retry_after = absl::StrCat(reply.retry_after);
  Field fields[8];
  size_t count = 0;
  fields[count++] = {"Content-Type", "application/json"};
  fields[count++] = {"Cache-Control", "no-store"};
  if (!reply.challenge.empty()) fields[count++] = {"WWW-Authenticate", reply.challenge};
  if (reply.status == 405) fields[count++] = {"Allow", kCorsAllowMethods};
  if (reply.retry_after > 0) fields[count++] = {"Retry-After", retry_after};
  if (!call.origin.empty()) {
    fields[count++] = {"Access-Control-Allow-Origin", call.origin};
    fields[count++] = {"Access-Control-Expose-Headers", kCorsExposeHeaders};
    fields[count++] = {"Vary", "Origin"};
  }
  exchange.Respond(reply.status, std::span<const Field>(fields, count), body);
}

// --- the way in ---

uint64_t McpHandler::OnHead(Exchange& exchange, McpCall& call) {
  call.started = clock_.Now();
  if (const HeaderField* origin = exchange.head().Find(HeaderId::kOrigin); origin != nullptr)
    call.origin = origin->value;
  if (!FindRoute(exchange, call) || !CheckMethod(exchange, call) || !ReadToken(exchange, call)) return 0;
  return call.entry->body_limit;
}

bool McpHandler::FindRoute(Exchange& exchange, McpCall& call) {
  WorkerData& data = DataOf(exchange);
  if (const uint64_t generation = routes_.generation(); data.routes_generation != generation) {
    data.routes = routes_.table();
    data.routes_generation = generation;
  }
  const std::string_view slug = exchange.head().path.substr(kPrefix.size());
  if (!data.routes->loaded) {
    Refuse(exchange, call,
           {.status = 503,
            .reason = "starting",
            .message = "the configuration has not arrived yet; try again",
            .retry_after = 1});
    return false;
  }
  const auto found = data.routes->by_slug.find(ToAbsl(slug));
  if (found == data.routes->by_slug.end() || (found->second != nullptr && !found->second->enabled)) {
    Refuse(exchange, call,
           {.status = 404, .reason = "no_such_server", .message = "there is no MCP server at this address"});
    return false;
  }
  if (found->second == nullptr) {
    Refuse(exchange, call,
           {.status = 503,
            .reason = "server_not_executable",
            .message = "this server's configuration cannot be executed by this version",
            .retry_after = 30});
    return false;
  }
  call.entry = found->second;
  const auto& networks = call.entry->allowed_client_networks;
  if (!networks.empty() &&
      !ContainsAddress(networks, ToIpAddress(ClientAddress(site_, exchange.client(), exchange.head())))) {
    Refuse(exchange, call,
           {.status = 403, .reason = "client_network", .message = "this address may not use this server"});
    return false;
  }
  return true;
}

bool McpHandler::CheckMethod(Exchange& exchange, McpCall& call) {
  const std::string_view method = exchange.head().method;
  if (method == "OPTIONS") {
    call.rule = "preflight";  // Before the answer: its end may come at once.
    const std::string allow_headers = CorsAllowHeaders(exchange.head().ValueOf("access-control-request-headers"));
    exchange.Respond(
        204,
        {{"Access-Control-Allow-Origin", call.origin.empty() ? std::string_view(site_.public_url) : call.origin},
         {"Access-Control-Allow-Methods", kCorsAllowMethods},
         {"Access-Control-Allow-Headers", allow_headers},
         {"Access-Control-Max-Age", "600"},
         {"Vary", "Origin"}},
        "");
    return false;
  }
  if (method != "POST" && method != "GET" && method != "DELETE") {
    Refuse(exchange, call, {.status = 405, .reason = "method_not_allowed", .message = "use POST, GET or DELETE"});
    return false;
  }
  if (call.entry->audit_required && !audit_.writable()) {
    Refuse(exchange, call,
           {.status = 503,
            .reason = "audit_unavailable",
            .message = "this server demands an audit record and none can be written",
            .retry_after = 5});
    return false;
  }
  return true;
}

bool McpHandler::ReadToken(Exchange& exchange, McpCall& call) {
  const RequestHead& head = exchange.head();
  const ServerEntry& entry = *call.entry;
  if (head.Count(HeaderId::kAuthorization) > 1 || head.Count(HeaderId::kSallyportAuthorization) > 1) {
    Refuse(exchange, call,
           {.status = 400,
            .rpc_code = -32600,
            .reason = "authorization_twice",
            .message = "Authorization stands in the request twice"});
    return false;
  }
  if (const HeaderField* field = head.Find(HeaderId::kAuthorization); field != nullptr) {
    const size_t space = field->value.find(' ');
    if (space != std::string_view::npos && EqualIgnoreCase(field->value.substr(0, space), "bearer")) {
      call.token = TrimBlanks(field->value.substr(space + 1));
    }
  }
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

void McpHandler::OnRequest(Exchange& exchange, McpCall& call) {
  if (!call.entry->authenticates()) {
    call.rule = "passthrough";
    return Admitted(exchange, call);
  }
  DoorOne(exchange, call);
}

PrincipalKey McpHandler::KeyOf(const McpCall& call) const {
  PrincipalKey key;
  unsigned int size = 0;
  EVP_Digest(call.token.data(), call.token.size(), key.digest.data(), &size, GetAlgorithms().sha256, nullptr);
  key.server_serial = call.entry->serial;
  return key;
}

void McpHandler::DoorOne(Exchange& exchange, McpCall& call) {
  call.rule = call.entry->interactive ? "interactive" : "passthrough.jwt";
  const absl::Time now = clock_.Now();  // Not call.started: the body may have taken its time.
  // The same token on the same connection: no hash, no lookup.
  if (call.memo_serial == call.entry->serial && call.memo_token == call.token &&
      doors_.Usable(call.memo_principal, *call.entry, call.token, now)) {
    call.principal = call.memo_principal;
    return Admitted(exchange, call);
  }
  const PrincipalKey key = KeyOf(call);
  WorkerData& data = DataOf(exchange);
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

void McpHandler::RefuseStatus(Exchange& exchange, McpCall& call, const absl::Status& status) {
  const ErrorDetail detail = DetailOf(status);
  const auto seconds =
      static_cast<int>(std::max<int64_t>(1, absl::ToInt64Seconds(absl::Ceil(detail.retry_after, absl::Seconds(1)))));
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
      return Refuse(exchange, call,
                    {.status = 401,
                     .reason = "invalid_token",
                     .message = "sign in again",
                     .challenge = call.entry->challenge_invalid});
    case absl::StatusCode::kPermissionDenied:
      if (detail.reason == "origin_not_allowed") {
        return Refuse(exchange, call,
                      {.status = 502,
                       .reason = "origin_not_allowed",
                       .message = "the configured credential may not be sent to this server's origin"});
      }
      return Refuse(exchange, call, {.status = 403, .reason = "not_allowed", .message = "you may not use this server"});
    case absl::StatusCode::kAborted:
      // Another service is ahead of our configuration: ours arrives any moment.
      return Retry(exchange, call);
    case absl::StatusCode::kFailedPrecondition: {
      // `reason` lives as long as the exchange's answer is made.
      const std::string reason = detail.reason.empty() ? "credential_unavailable" : detail.reason;
      call.rule = "credential_unavailable";
      return Refuse(exchange, call,
                    {.status = 502,
                     .reason = reason,
                     .message = "the credential this server needs is not there; its administrator can add it"});
    }
    case absl::StatusCode::kInternal:
      return Refuse(exchange, call,
                    {.status = 500,
                     .reason = "credential_unencodable",
                     .message = "a credential cannot be sent as it is stored"});
    default:
      return Refuse(exchange, call,
                    {.status = 503,
                     .reason = "try_again",
                     .message = "a part of the gateway does not answer; try again",
                     .retry_after = seconds});
  }
}

void McpHandler::Retry(Exchange& exchange, McpCall& call) {
  if (++call.skew_retries > kMaxSkewRetries) {
    return Refuse(exchange, call,
                  {.status = 503,
                   .reason = "config_changing",
                   .message = "this server's configuration is changing; try again",
                   .retry_after = 1});
  }
  ExchangeRef ref = exchange.Defer();
  exchange.worker().After(kSkewDelay, [this, ref] {
    ref.Post([this](Exchange& live) {
      McpCall& waiting = CallOf(live);
      waiting.rule = {};  // May be the principal's.
      waiting.principal.reset();
      if (FindRoute(live, waiting) && ReadToken(live, waiting)) OnRequest(live, waiting);
    });
  });
}

void McpHandler::Admitted(Exchange& exchange, McpCall& call) {
  if (call.principal != nullptr && !call.principal->rule.empty()) {
    call.rule = call.principal->rule;
  }
  if (call.principal != nullptr && call.principal->unencodable) {
    return Refuse(exchange, call,
                  {.status = 500,
                   .reason = "identity_unencodable",
                   .message = "your token lacks a claim this server forwards, or it cannot be a header value"});
  }
  if (!Scan(exchange, call) || !CheckModernHeaders(exchange, call) || !CheckSession(exchange, call)) return;
  if (ResumeIfAsked(exchange, call)) return;
  DoorTwo(exchange, call);
}

bool McpHandler::Scan(Exchange& exchange, McpCall& call) {
  if (exchange.head().method != "POST") return true;
  const ScanError error = ScanRpcMessage(exchange.body(), call.message);
  if (error == ScanError::kNone) {
    call.scanned = true;
    return true;
  }
  const bool parse = error == ScanError::kParse;
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
    if (field == nullptr || body_value.empty()) return false;
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
      disagrees(HeaderId::kMcpMethod, message.method) || (named && disagrees(HeaderId::kMcpName, message.name))) {
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
  if (call.memo_session_principal == call.principal && call.memo_session == field->value) {
    call.upstream_session.assign(call.memo_upstream_session);
    call.capabilities = call.memo_capabilities;
  } else {
    const auto tagger = doors_.tagger();
    if (tagger == nullptr) {
      RefuseStatus(exchange, call, absl::UnavailableError("no session keys yet"));
      return false;
    }
    const auto verified = tagger->Verify(call.principal->subject, call.entry->uid, field->value);
    if (!verified) {
      Refuse(exchange, call,
             {.status = 404, .rpc_code = -32001, .reason = "session_not_found", .message = "Session not found"});
      return false;
    }
    call.upstream_session.assign(verified->upstream_id);
    call.capabilities = verified->capabilities;
    call.memo_session.assign(field->value);
    call.memo_upstream_session.assign(call.upstream_session);
    call.memo_capabilities = call.capabilities;
    call.memo_session_principal = call.principal;
  }
  call.synthetic = SyntheticSessions::IsSynthetic(call.upstream_session);
  return true;
}

// --- the way out ---

void McpHandler::DoorTwo(Exchange& exchange, McpCall& call) {
  if (!NeedsBroker(*call.entry, call.principal)) return Forward(exchange, call);
  call.credentials = doors_.Credentials(*call.entry, call.principal, clock_.Now());
  if (call.credentials != nullptr) return Forward(exchange, call);
  doors_.Resolve(*call.entry, call.principal,
                 [this, ref = exchange.Defer()](const absl::StatusOr<Resolution>& resolution) {
                   ref.Post([this, resolution](Exchange& live) { Resolved(live, CallOf(live), resolution); });
                 });
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
  AppendRequestLine(method, entry.target, request.query, entry.api_key_query,
                    call.credentials != nullptr ? std::string_view(call.credentials->query_value) : std::string_view(),
                    head);
  // A verified caller's session id is rewritten; an unverified one's goes on as it came.
  entry.rules.AppendFields(request, call.principal != nullptr ? HeaderId::kMcpSessionId : HeaderId::kOther, head);
  if (!session.empty() && !AppendField("Mcp-Session-Id", "", session, head)) return Rendered::kUnencodable;
  if (call.principal != nullptr) head.append(call.principal->header_lines);
  if (call.credentials != nullptr) head.append(call.credentials->header_lines);
  if (const Rendered rendered = RenderRequestScoped(exchange, call, head); rendered != Rendered::kReady)
    return rendered;
  FinishRequestHead(method, body_size, head);
  return Rendered::kReady;
}

void McpHandler::Forward(Exchange& exchange, McpCall& call) {
  if (ReplayIfNeeded(exchange, call)) return;
  switch (RenderRequest(exchange, call, exchange.head().method, call.upstream_session, exchange.body().size())) {
    case Rendered::kReady:
      break;
    case Rendered::kAnswered:
      return;
    case Rendered::kUnencodable:
      return Refuse(exchange, call,
                    {.status = 500,
                     .reason = "credential_unencodable",
                     .message = "a credential of this request cannot be a header value"});
  }
  call.entry->metrics->in_flight->Increment();
  exchange.Forward(call.entry->target);
}

// --- the end ---

void McpHandler::OnDone(Exchange& exchange, McpCall& call) {
  StopWaiting(call, &exchange);
  const ExchangeStats& stats = exchange.stats();
  if (call.entry != nullptr && call.rule != "preflight") {
    const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
    ServerMetrics& metrics = *call.entry->metrics;
    metrics.CountStatus(stats.status);
    metrics.duration->Observe(seconds(stats.started, stats.done));
    if (stats.forwards > 0) {
      metrics.in_flight->Decrement(static_cast<double>(stats.forwards));
      if (stats.upstream_status != 0)
        metrics.upstream_duration->Observe(seconds(stats.upstream_sent, stats.upstream_first));
    }
    CallRecord record;
    record.at = call.started;
    record.decision = call.decision;
    record.type = call.decision == audit::v1::DECISION_DENIED ? "mcp.denied" : "mcp.call";
    record.rule = call.rule;
    if (call.principal != nullptr) record.principal_fields = call.principal->audit_fields;
    record.server_fields = call.entry->audit_fields;
    if (call.credentials != nullptr) record.credential_fields = call.credentials->audit_fields;
    const std::string address = ClientAddress(site_, exchange.client(), exchange.head()).ToString();
    record.client_address = address;
    if (call.scanned) {
      record.mcp_method = call.message.method;
      record.mcp_name = call.message.name;
    } else {
      record.mcp_method = exchange.head().method;
    }
    record.trace_id = TraceId(exchange.head());
    record.status = stats.status;
    record.latency_us = std::chrono::duration_cast<std::chrono::microseconds>(stats.done - stats.started).count();
    audit_.Record(exchange.worker().index(), record);
  }
  call.Clear();
}

}  // namespace sallyport::edge

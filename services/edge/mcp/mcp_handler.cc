// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/mcp_handler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/text/string_view.h"
#include "services/edge/edge_state.h"

namespace sallyport::edge {
namespace {

constexpr std::string_view kPrefix = "/mcp/";
constexpr int kMaxSkewRetries = 20;
constexpr auto kSkewDelay = std::chrono::milliseconds(50);

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

// What stands for a rule where the call had an end before anything was decided: the engine refused the request (too
// large, too slow), or one side is gone.
std::string WhyUndecided(const ExchangeStats& stats) {
  if (stats.status != 0) return absl::StrCat("refused.", stats.status);
  return stats.outcome == Outcome::kAborted ? "gateway_stopped" : "client_gone";
}

}  // namespace

McpHandler::McpHandler(const SiteOptions& site, Routes& routes, Doors& doors, CallAudit& audit, const Clock& clock)
    : site_(site), routes_(routes), doors_(doors), audit_(audit), clock_(clock), streams_(clock) {
  doors_.SetConnectionListener([this](const std::string& key) { OnConnection(key); });
}

// --- the way in ---

uint64_t McpHandler::OnHead(Exchange& exchange, McpCall& call) {
  call.started = clock_.Now();
  if (const HeaderField* origin = exchange.head().Find(HeaderId::kOrigin); origin != nullptr)
    call.origin = origin->value;
  if (!FindRoute(exchange, call) || !CheckMethod(exchange, call) || !ReadToken(exchange, call) ||
      !ReadAccount(exchange, call)) {
    return 0;
  }
  // From here on a crash must not lose the call unseen.
  audit_.Begin(exchange.worker().index());
  call.audit_begun = true;
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
  const OriginRule rule = call.entry->authenticates() ? OriginRule::kBearer : OriginRule::kOwn;
  if (!call.origin.empty() && !OriginAllowed(site_, call.origin, rule)) {
    const std::string message = ForeignOriginMessage(call.origin, rule);
    call.origin = {};  // Nor may its pages read the refusal.
    Refuse(exchange, call, {.status = 403, .reason = "foreign_origin", .message = message});
    return false;
  }
  if (!call.in_flight) {  // Once, though the way may be gone anew.
    call.in_flight = true;
    call.entry->metrics->in_flight->Increment();
  }
  return CheckNetwork(exchange, call);
}

bool McpHandler::CheckNetwork(Exchange& exchange, McpCall& call) {
  const auto& networks = call.entry->allowed_client_networks;
  if (networks.empty()) return true;
  const std::optional<NetworkAddress> client = ClientAddress(site_, exchange.client(), exchange.head());
  if (client && ContainsAddress(networks, ToIpAddress(*client))) return true;
  Refuse(exchange, call,
         {.status = 403,
          .reason = "client_network",
          .message = client ? "this address may not use this server"
                            : "your address is unknown (the proxy's X-Forwarded-For holds none), and this server is "
                              "for named networks only"});
  return false;
}

bool McpHandler::CheckMethod(Exchange& exchange, McpCall& call) {
  const std::string_view method = exchange.head().method;
  if (!BodyAllowed(exchange.head())) {
    exchange.CloseAfter();
    Refuse(exchange, call,
           {.status = 400,
            .rpc_code = -32600,
            .reason = "unexpected_body",
            .message = "only POST may have a body: send this request without"});
    return false;
  }
  if (method == "OPTIONS") {
    call.rule = "preflight";  // Before the answer: its end may come at once.
    const std::string allow_headers = CorsAllowHeaders(exchange.head().ValueOf("access-control-request-headers"));
    exchange.Respond(
        204,
        {{"Allow", kAllowedMethods},
         {"Access-Control-Allow-Origin", call.origin.empty() ? std::string_view(site_.public_url) : call.origin},
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

void McpHandler::OnRequest(Exchange& exchange, McpCall& call) {
  if (!call.entry->authenticates()) return Admitted(exchange, call);
  DoorOne(exchange, call);
}

void McpHandler::Retry(Exchange& exchange, McpCall& call) {
  if (++call.skew_retries > kMaxSkewRetries) {
    return Refuse(exchange, call,
                  {.status = 503,
                   .reason = "config_changing",
                   .message = "this server's configuration is changing; try again",
                   .retry_after = 1});
  }
  exchange.Wake(kSkewDelay, [this](Exchange& live) { StartAnew(live, CallOf(live)); });
}

void McpHandler::StartAnew(Exchange& exchange, McpCall& call) {
  call.rule = {};  // May be the principal's.
  call.decision = audit::v1::DECISION_FAILED;
  call.token = call.account = {};
  call.principal.reset();
  call.credentials.reset();
  call.replay = McpCall::Replay::kNone;
  // The server may have become one that verifies nobody: then no session is ours any more.
  call.ClearSession();
  if (FindRoute(exchange, call) && ReadToken(exchange, call) && ReadAccount(exchange, call)) OnRequest(exchange, call);
}

// --- the end ---

void McpHandler::OnDone(Exchange& exchange, McpCall& call) {
  StopWaiting(call, &exchange);
  LeaveSession(exchange, call);
  streams_.Closed(call);
  const ExchangeStats& stats = exchange.stats();
  if (call.in_flight) call.entry->metrics->in_flight->Decrement();
  if (call.entry != nullptr && call.rule != "preflight") {
    const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
    ServerMetrics& metrics = *call.entry->metrics;
    metrics.CountStatus(stats.status);
    metrics.duration->Observe(seconds(stats.started, stats.done));
    if (stats.upstream_status != 0)
      metrics.upstream_duration->Observe(seconds(stats.upstream_sent, stats.upstream_first));
    CallRecord record;
    record.at = call.started;
    record.decision = call.decision;
    record.type = call.decision == audit::v1::DECISION_DENIED ? "mcp.denied" : "mcp.call";
    const std::string undecided = call.rule.empty() ? WhyUndecided(stats) : std::string();
    record.rule = call.rule.empty() ? std::string_view(undecided) : call.rule;
    if (call.principal != nullptr) record.principal_fields = call.principal->audit_fields;
    record.server_fields = call.entry->audit_fields;
    if (call.credentials != nullptr) record.credential_fields = call.credentials->audit_fields;
    const std::string address = ClientAddressText(site_, exchange.client(), exchange.head());
    record.client_address = address;
    if (call.scanned) {
      const bool batch = call.message.kind == RpcMessage::Kind::kBatch;
      record.mcp_method = batch ? call.message.batch_methods : call.message.method;
      record.batch = batch;
      record.mcp_name = batch ? call.message.batch_names : call.message.name;
    } else {
      record.mcp_method = exchange.head().method;
    }
    record.trace_id = TraceId(exchange.head());
    record.status = stats.status;
    record.latency_us = std::chrono::duration_cast<std::chrono::microseconds>(stats.done - stats.started).count();
    if (!call.audit_begun) audit_.Begin(exchange.worker().index());
    audit_.Record(exchange.worker().index(), record);
  }
  call.Clear();
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_gateway.h"

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/http/egress_proxy.h"
#include "common/http/url.h"
#include "common/metrics.h"
#include "services/edge/edge_state.h"
#include "services/edge/http/response_rules.h"
#include "services/edge/http_errors.h"
#include "services/edge/mcp/client_page.h"

namespace sallyport::edge {
namespace {

EdgeState& StateOf(Exchange& exchange) { return *static_cast<EdgeState*>(exchange.state()); }

constexpr CounterInfo kRejected = {
    .name = "sallyport_http_rejected_total",
    .help = "Requests refused before they reached a route",
    .unit = "requests",
    .labels = {{"reason",
                "foreign_host, foreign_origin, navigation, unexpected_body, head_timeout, body_too_large, "
                "request_line, field, memory_limit, body_memory, ... (what the HTTP parser refused, or which "
                "limit was reached)"}},
    .rise =
        "foreign_host: a wrong `publicUrl` or `extraHosts`. foreign_origin: a page of an origin that is not allowed. "
        "navigation: people open the address of a server in a browser. memory_limit and body_memory: memory is "
        "short. The others: broken or hostile clients",
    .action =
        "Correct `publicUrl` or `extraHosts` for foreign_host; for the memory reasons add memory or replicas; "
        "otherwise look at who connects, in the log of the proxy in front",
};

prometheus::Counter& RejectedCounter(const std::string& why) { return MetricCounter(kRejected, {{"reason", why}}); }

}  // namespace

EdgeGateway::EdgeGateway(const SiteOptions& site, McpHandler& mcp, PageHandler& pages, ApiHandler& api)
    : site_(site),
      mcp_(mcp),
      pages_(pages),
      api_(api),
      foreign_host_(RejectedCounter("foreign_host")),
      foreign_origin_(RejectedCounter("foreign_origin")),
      navigation_(RejectedCounter("navigation")),
      unexpected_body_(RejectedCounter("unexpected_body")) {}

void EdgeGateway::OnWorkerStart(Worker& worker) {
  worker.context = new WorkerData();
  mcp_.OnWorkerStart(worker);
}
void EdgeGateway::OnWorkerStop(Worker& worker) {
  mcp_.OnWorkerStop(worker);
  delete static_cast<WorkerData*>(worker.context);
  worker.context = nullptr;
}
std::unique_ptr<ExchangeState> EdgeGateway::NewState(Worker& /*worker*/) { return std::make_unique<EdgeState>(); }

bool EdgeGateway::CheckSite(Exchange& exchange, OriginRule rule) {
  const RequestHead& head = exchange.head();
  if (!HostAllowed(site_, head)) {
    foreign_host_.Increment();
    RespondError(exchange, 403, "foreign_host", "unknown Host: publicUrl and extraHosts are served");
    return false;
  }
  const HeaderField* origin = head.Find(HeaderId::kOrigin);
  if (origin != nullptr && !OriginAllowed(site_, origin->value, rule)) {
    foreign_origin_.Increment();
    RespondError(exchange, 403, "foreign_origin", ForeignOriginMessage(origin->value, rule));
    return false;
  }
  return true;
}

bool EdgeGateway::CheckBody(Exchange& exchange) {
  if (BodyAllowed(exchange.head())) return true;
  unexpected_body_.Increment();
  exchange.CloseAfter();
  RespondError(exchange, 400, "unexpected_body", "only POST may have a body: send this request without");
  return false;
}

uint64_t EdgeGateway::OnHead(Exchange& exchange) {
  EdgeState& state = StateOf(exchange);
  state.kind = EdgeState::Kind::kNone;
  const std::string_view path = exchange.head().path;
  const bool mcp = path.starts_with("/mcp/");
  if (mcp) exchange.SetCommonFields(kNoPageFields);
  // Whether the server demands a token is known with its route: the handler looks again.
  if (!CheckSite(exchange, mcp ? OriginRule::kBearer : PageHandler::OriginRuleOf(path))) return 0;
  if (mcp) {
    if (IsNavigation(exchange.head())) {
      navigation_.Increment();
      RespondClientPage(exchange, site_);
      return 0;
    }
    state.kind = EdgeState::Kind::kMcp;
    return mcp_.OnHead(exchange, state.mcp);
  }
  if (!CheckBody(exchange)) return 0;
  if (path == "*") {  // RFC 9110 section 9.3.7: OPTIONS of the server as a whole.
    exchange.Respond(204, {{"Allow", kAllowedMethods}}, "");
    return 0;
  }
  if (PageHandler::Owns(path) || PageHandler::IsHome(exchange.head())) {
    state.kind = EdgeState::Kind::kPage;
    return PageHandler::kBodyLimit;
  }
  if (path.starts_with("/api/")) {
    state.kind = EdgeState::Kind::kApi;
    return ApiHandler::kBodyLimit;
  }
  RespondError(exchange, 404, "not_found", "not found");
  return 0;
}

void EdgeGateway::OnRequest(Exchange& exchange) {
  EdgeState& state = StateOf(exchange);
  switch (state.kind) {
    case EdgeState::Kind::kMcp:
      return mcp_.OnRequest(exchange, state.mcp);
    case EdgeState::Kind::kPage:
      return pages_.OnRequest(exchange);
    case EdgeState::Kind::kApi:
      return api_.OnRequest(exchange);
    case EdgeState::Kind::kNone:
      return exchange.Abort();
  }
}

Verdict EdgeGateway::OnUpstreamHead(Exchange& exchange, const ResponseHead& head, RelayHead& relay) {
  return mcp_.OnUpstreamHead(exchange, StateOf(exchange).mcp, head, relay);
}
void EdgeGateway::OnUpstreamBody(Exchange& exchange, const ResponseHead& head, std::string_view body) {
  mcp_.OnUpstreamBody(exchange, StateOf(exchange).mcp, head, body);
}
void EdgeGateway::OnUpstreamError(Exchange& exchange, UpstreamError error) {
  mcp_.OnUpstreamError(exchange, StateOf(exchange).mcp, error);
}
void EdgeGateway::OnDone(Exchange& exchange) {
  EdgeState& state = StateOf(exchange);
  if (state.kind == EdgeState::Kind::kMcp) mcp_.OnDone(exchange, state.mcp);
  state.kind = EdgeState::Kind::kNone;
}
bool EdgeGateway::AllowAddress(const UpstreamTarget& target, const NetworkAddress& address) {
  return site_.upstream_policy.MayDial(ToIpAddress(address), target.tls);
}
bool EdgeGateway::AllowProxyAddress(const NetworkAddress& address) { return !IsNeverDialled(ToIpAddress(address)); }
UpstreamRoute EdgeGateway::RouteTo(const UpstreamTarget& target) {
  // By the strict parser: a host in which the proxy could see another one than these rules do goes nowhere.
  const absl::StatusOr<Url> url =
      Url::Parse(absl::StrCat(target.tls ? "https://" : "http://", ConnectAuthority(target.host, target.port)));
  if (!url.ok()) return UpstreamRoute::kRefused;
  if (site_.upstream_policy.ProxyFor(url->host()) == nullptr) return UpstreamRoute::kDirect;
  return site_.upstream_policy.CheckUrl(*url).ok() ? UpstreamRoute::kProxy : UpstreamRoute::kRefused;
}
void EdgeGateway::OnRejected(Worker& /*worker*/, const NetworkAddress& /*client*/, int /*status*/,
                             std::string_view reason) {
  RejectedCounter(std::string(reason)).Increment();  // One of the engine's few words.
}

}  // namespace sallyport::edge

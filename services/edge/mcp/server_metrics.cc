// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/server_metrics.h"

#include "common/metrics.h"

namespace sallyport::edge {

namespace {

constexpr CounterInfo kRequests = {
    .name = "sallyport_mcp_requests_total",
    .help = "Requests to MCP servers that were answered",
    .unit = "requests",
    .labels = {{"server", "slug of the MCP server"},
               {"code", "1xx, 2xx, 3xx, 4xx, 5xx, 401, 403, none (the client left first)"}},
    .rise =
        "Load. 5xx: the upstream server or a service of the gateway fails. 401: callers are not signed in. 403: they "
        "may not use the server",
    .action =
        "The audit and the log event of the call name the rule that refused it; compare with "
        "`sallyport_mcp_upstream_duration_seconds` and `sallyport_rpc_requests_total`",
};
constexpr CounterInfo kCredentialRefused = {
    .name = "sallyport_mcp_credential_refused_total",
    .help = "Times an upstream server refused the credential the gateway sent",
    .unit = "requests",
    .labels = {{"server", "slug of the MCP server"}},
    .rise = "The configured credential has expired or was revoked at the upstream server",
    .action = "Enter a new one; the audit has the calls, with rule `credential_refused`",
};
constexpr CounterInfo kUpstreamTlsFailed = {
    .name = "sallyport_mcp_upstream_tls_failures_total",
    .help = "Calls that failed because TLS with the upstream server did: handshake, certificate or alert",
    .unit = "requests",
    .labels = {{"server", "slug of the MCP server"}},
    .rise = "Its certificate has expired, does not chain to the authorities or names another host, or it refuses ours",
    .action = "Look at the upstream server's certificate, and at `policy.tls` of the server",
};
constexpr HistogramInfo kDuration = {
    .name = "sallyport_mcp_request_duration_seconds",
    .help = "From the request's head to the answer's end, event streams included",
    .unit = "seconds",
    .labels = {{"server", "slug of the MCP server"}},
    .rise = "Calls take longer, or streams are held longer",
    .action = "Compare with `sallyport_mcp_upstream_duration_seconds`: what is in both is the upstream server's",
};
constexpr HistogramInfo kUpstreamDuration = {
    .name = "sallyport_mcp_upstream_duration_seconds",
    .help = "From forwarding to the upstream server's response head",
    .unit = "seconds",
    .labels = {{"server", "slug of the MCP server"}},
    .rise = "The upstream server, or the network to it, has become slow",
    .action = "Tell whoever runs the upstream server",
};
constexpr GaugeInfo kInFlight = {
    .name = "sallyport_mcp_in_flight",
    .help = "Requests being served, open event streams among them",
    .unit = "requests",
    .labels = {{"server", "slug of the MCP server"}},
    .rise = "More callers, or an upstream server that does not answer",
    .action = "Compare with `sallyport_mcp_upstream_duration_seconds`; `policy` of the server can limit it",
};

}  // namespace

ServerMetrics::ServerMetrics(const std::string& slug) {
  const auto counter = [&](const std::string& code) {
    return &MetricCounter(kRequests, {{"server", slug}, {"code", code}});
  };
  by_class = {counter("none"), counter("1xx"), counter("2xx"), counter("3xx"), counter("4xx"), counter("5xx")};
  unauthorized = counter("401");
  forbidden = counter("403");
  credential_refused = &MetricCounter(kCredentialRefused, {{"server", slug}});
  upstream_tls_failed = &MetricCounter(kUpstreamTlsFailed, {{"server", slug}});
  duration = &MetricHistogram(kDuration, {{"server", slug}});
  upstream_duration = &MetricHistogram(kUpstreamDuration, {{"server", slug}});
  in_flight = &MetricGauge(kInFlight, {{"server", slug}});
}

void ServerMetrics::CountStatus(int status) {
  if (status == 401) return unauthorized->Increment();
  if (status == 403) return forbidden->Increment();
  const int status_class = status / 100;
  by_class[static_cast<size_t>(status_class >= 1 && status_class <= 5 ? status_class : 0)]->Increment();
}

}  // namespace sallyport::edge

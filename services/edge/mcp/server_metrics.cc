// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/server_metrics.h"

#include "common/metrics.h"

namespace sallyport::edge {

ServerMetrics::ServerMetrics(const std::string& slug) {
  const auto counter = [&](const std::string& code) {
    return &MetricCounter("sallyport_mcp_requests_total", "Requests answered, by MCP server and status",
                          {{"server", slug}, {"code", code}});
  };
  by_class = {counter("none"), counter("1xx"), counter("2xx"), counter("3xx"), counter("4xx"), counter("5xx")};
  unauthorized = counter("401");
  forbidden = counter("403");
  credential_refused = &MetricCounter("sallyport_mcp_credential_refused_total",
                                      "Times an upstream refused the credential the gateway sent", {{"server", slug}});
  upstream_tls_failed = &MetricCounter(
      "sallyport_mcp_upstream_tls_failures_total",
      "Calls that failed because TLS with the upstream did: handshake, certificate or alert", {{"server", slug}});
  duration = &MetricHistogram("sallyport_mcp_request_duration_seconds", "From the request's head to the answer's end",
                              {{"server", slug}}, LatencyBuckets());
  upstream_duration =
      &MetricHistogram("sallyport_mcp_upstream_duration_seconds", "From forwarding to the upstream's response head",
                       {{"server", slug}}, LatencyBuckets());
  in_flight = &MetricGauge("sallyport_mcp_in_flight", "Requests being served", {{"server", slug}});
}

void ServerMetrics::CountStatus(int status) {
  if (status == 401) return unauthorized->Increment();
  if (status == 403) return forbidden->Increment();
  const int status_class = status / 100;
  by_class[static_cast<size_t>(status_class >= 1 && status_class <= 5 ? status_class : 0)]->Increment();
}

}  // namespace sallyport::edge

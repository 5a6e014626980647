// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

namespace sallyport::edge {

// Series of one MCP server, resolved once. The label is the slug, which comes from configuration.
//   sallyport_mcp_requests_total{server,code}     code: 2xx, 4xx, 401, 403, 5xx, …
//   sallyport_mcp_request_duration_seconds{server} first byte in to last byte out
//   sallyport_mcp_upstream_duration_seconds{server} sent to first byte back
//   sallyport_mcp_in_flight{server}
//   sallyport_mcp_credential_refused_total{server} the upstream refused what the gateway sent
//   sallyport_mcp_upstream_tls_failures_total{server} no TLS with the upstream
struct ServerMetrics {
  explicit ServerMetrics(const std::string& slug);
  void CountStatus(int status);

  std::array<prometheus::Counter*, 6> by_class{};  // 0: nothing was answered; 1xx..5xx
  prometheus::Counter* unauthorized = nullptr;
  prometheus::Counter* forbidden = nullptr;
  prometheus::Counter* credential_refused = nullptr;
  prometheus::Counter* upstream_tls_failed = nullptr;
  prometheus::Histogram* duration = nullptr;
  prometheus::Histogram* upstream_duration = nullptr;
  prometheus::Gauge* in_flight = nullptr;
};

}  // namespace sallyport::edge

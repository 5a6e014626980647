// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/container/flat_hash_map.h"
#include <prometheus/counter.h>

#include "services/edge/api/api_handler.h"
#include "services/edge/api/page_handler.h"
#include "services/edge/edge_options.h"
#include "services/edge/http/gateway.h"
#include "services/edge/mcp/mcp_handler.h"

namespace sallyport::edge {

// Step 0 of every request (Host, Origin), then to its handler by path:
//   /mcp/<server> · /login*, /logout, /signed-out, /oauth/*, /authorize, /token, /register, /.well-known/*, /connect/*,
//   /callback/<app> · /api/* · /console/* (404)
class EdgeGateway final : public Gateway {
 public:
  EdgeGateway(const SiteOptions& site, McpHandler& mcp, PageHandler& pages, ApiHandler& api);

  void OnWorkerStart(Worker& worker) override;
  void OnWorkerStop(Worker& worker) override;
  std::unique_ptr<ExchangeState> NewState(Worker& worker) override;
  uint64_t OnHead(Exchange& exchange) override;
  void OnRequest(Exchange& exchange) override;
  Verdict OnUpstreamHead(Exchange& exchange, const ResponseHead& head, RelayHead& relay) override;
  void OnUpstreamBody(Exchange& exchange, const ResponseHead& head, std::string_view body) override;
  void OnUpstreamError(Exchange& exchange, UpstreamError error) override;
  void OnDone(Exchange& exchange) override;
  bool AllowAddress(const UpstreamTarget& target, const NetworkAddress& address) override;
  bool AllowProxyAddress(const NetworkAddress& address) override;
  UpstreamRoute RouteTo(const UpstreamTarget& target) override;
  void OnRejected(Worker& worker, const NetworkAddress& client, int status, std::string_view reason) override;

 private:
  bool CheckSite(Exchange& exchange, OriginRule rule);
  // Of paths other than /mcp/, which has its own way to refuse.
  bool CheckBody(Exchange& exchange);

  const SiteOptions& site_;
  McpHandler& mcp_;
  PageHandler& pages_;
  ApiHandler& api_;
  prometheus::Counter& foreign_host_;
  prometheus::Counter& foreign_origin_;
  prometheus::Counter& navigation_;
  prometheus::Counter& unexpected_body_;
};

}  // namespace sallyport::edge

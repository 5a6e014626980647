// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/gateway.h"

#include <string>

namespace sallyport::edge {

std::string_view UpstreamErrorName(UpstreamError error) {
  switch (error) {
    case UpstreamError::kResolve:
      return "upstream_unresolved";
    case UpstreamError::kRefusedAddress:
      return "upstream_address_refused";
    case UpstreamError::kConnect:
      return "upstream_unreachable";
    case UpstreamError::kConnectTimeout:
      return "upstream_connect_timeout";
    case UpstreamError::kTls:
      return "upstream_tls";
    case UpstreamError::kClosed:
      return "upstream_closed";
    case UpstreamError::kFirstByteTimeout:
      return "upstream_timeout";
    case UpstreamError::kBadResponse:
      return "upstream_bad_response";
    case UpstreamError::kTooLarge:
      return "upstream_response_too_large";
    case UpstreamError::kProxyUnreachable:
      return "proxy_unreachable";
    case UpstreamError::kProxyTimeout:
      return "proxy_timeout";
    case UpstreamError::kProxyUnauthorized:
      return "proxy_unauthorized";
    case UpstreamError::kProxyRefused:
      return "proxy_refused";
    case UpstreamError::kProxyBadResponse:
      return "proxy_bad_response";
  }
  return "upstream_error";
}

int UpstreamErrorStatus(UpstreamError error) {
  const bool timeout = error == UpstreamError::kConnectTimeout || error == UpstreamError::kFirstByteTimeout ||
                       error == UpstreamError::kProxyTimeout;
  return timeout ? 504 : 502;
}

void Gateway::OnUpstreamBody(Exchange& exchange, const ResponseHead& /*head*/, std::string_view /*body*/) {
  exchange.Respond(502, {}, {});
}

void Gateway::OnUpstreamError(Exchange& exchange, UpstreamError error) {
  if (exchange.streaming()) {
    exchange.EndStream();
    return;
  }
  const std::string body = "{\"error\":\"" + std::string(UpstreamErrorName(error)) + "\"}";
  exchange.Respond(UpstreamErrorStatus(error), {{"Content-Type", "application/json"}}, body);
}

}  // namespace sallyport::edge

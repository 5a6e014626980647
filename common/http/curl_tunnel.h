// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include <curl/curl.h>

#include "common/http/egress_proxy.h"

namespace sallyport {

// The way of one libcurl transfer through the egress proxy, or past every proxy if there is none for it. Must stay
// where it is while the transfer lasts.
struct CurlTunnel {
  const EgressProxy* proxy = nullptr;  // Null: the connection is direct.
  // The request has begun to leave: the connection, and in it the tunnel and TLS, were ready for it.
  bool opened = false;

  // `proxy_headers` go to the proxy only, and stay the caller's. False if libcurl refuses an option.
  bool Configure(CURL* easy, curl_slist* proxy_headers);
  // Why no tunnel was opened; nothing if one was, or none was needed.
  std::optional<ProxyFailure> FailureOf(CURL* easy, CURLcode code, bool https) const;
  // UNAVAILABLE or DEADLINE_EXCEEDED; names the proxy and `host`.
  absl::Status StatusOf(CURL* easy, ProxyFailure failure, const std::string& host) const;
};

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <prometheus/counter.h>

#include "common/http/networks.h"
#include "common/secret.h"

namespace sallyport {

// The HTTP proxy of outgoing connections: where it is, what it is shown, and which hosts are reached without it. It
// opens tunnels (CONNECT, RFC 9110 section 9.3.6) and resolves names itself. Immutable and thread-safe.
class EgressProxy {
 public:
  struct Options {
    std::string url;  // "http://proxy.example:3128"
    // Host names, suffixes (".example.com": every name below it), addresses, CIDR blocks.
    std::vector<std::string> no_proxy;
    std::string username;  // Empty: no Proxy-Authorization.
    Secret password;
  };
  // INVALID_ARGUMENT with a violation for each wrong entry, named `field`.url, `field`.noProxy[1], `field`.username.
  static absl::StatusOr<std::shared_ptr<const EgressProxy>> Create(const Options& options, absl::string_view field);

  const std::string& host() const { return host_; }  // Name or address, without brackets.
  uint16_t port() const { return port_; }
  const std::string& url() const { return url_; }
  // Is this host (as Url::host gives it) reached through the proxy? Never loopback: it is this machine, not the
  // proxy's.
  bool Covers(absl::string_view host) const;
  // Value of Proxy-Authorization; empty if there is none.
  const Secret& authorization() const { return authorization_; }

 private:
  EgressProxy() = default;
  absl::Status SetUrl(const std::string& url, absl::string_view field);
  absl::Status AddNoProxy(const std::string& entry, absl::string_view field);
  absl::Status SetCredentials(const Options& options, absl::string_view field);

  std::string url_;
  std::string host_;
  uint16_t port_ = 0;
  Secret authorization_;
  absl::flat_hash_set<std::string> names_;
  std::vector<std::string> suffixes_;  // With their dot.
  std::vector<Network> networks_;
};

// "name:443", "[2001:db8::1]:443": the target of CONNECT.
std::string ConnectAuthority(absl::string_view host, uint16_t port);

// Why a tunnel was not opened.
enum class ProxyFailure : uint8_t {
  kUnreachable,   // The proxy's name does not resolve, or its port is closed.
  kTimeout,       // No tunnel in the time for connecting.
  kUnauthorized,  // 407
  kRefused,       // Any other status.
  kBadResponse,   // No HTTP, too long, or closed before the answer was complete.
};
inline constexpr std::array kProxyFailures = {ProxyFailure::kUnreachable, ProxyFailure::kTimeout,
                                              ProxyFailure::kUnauthorized, ProxyFailure::kRefused,
                                              ProxyFailure::kBadResponse};
// "unreachable", "timeout", ...
absl::string_view ProxyFailureName(ProxyFailure failure);
// sallyport_egress_proxy_failures_total{reason}
prometheus::Counter& ProxyFailureCounter(ProxyFailure failure);

}  // namespace sallyport

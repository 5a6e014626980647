// SPDX-License-Identifier: Apache-2.0
#include "common/http/egress_proxy.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/crypto/openssl.h"
#include "common/error.h"
#include "common/http/url.h"
#include "common/metrics.h"
#include "common/text/base64url.h"

namespace sallyport {
namespace {

constexpr CounterInfo kProxyFailuresInfo = {
    .name = "sallyport_egress_proxy_failures_total",
    .help = "Connections that the egress proxy did not open",
    .unit = "connections",
    .labels = {{"reason", "unreachable, timeout, unauthorized, refused, bad_response"}},
    .rise =
        "Calls and fetches through the proxy fail. unauthorized: its user name or password is wrong; refused: it "
        "does not allow the destination",
    .action =
        "Check `deployment.egress.proxy` and the proxy's own log; the log event `http_engine` of the edge names "
        "the connection",
};

constexpr size_t kMaxUsername = 255;
constexpr size_t kMaxPassword = 1024;

// The host of an entry without port and path, in lower case; empty if it is none.
std::string HostOf(absl::string_view text) {
  const absl::StatusOr<Url> url = Url::Parse(absl::StrCat("https://", text));
  return url.ok() && url->host() == absl::AsciiStrToLower(text) ? url->host() : "";
}

// Names that /etc/hosts of common systems gives a loopback address. The proxy must not be asked for its own.
bool NamesLoopback(absl::string_view host) {
  for (const char* name : {"localhost.localdomain", "localhost4", "localhost4.localdomain4", "localhost6",
                           "localhost6.localdomain6", "ip6-localhost", "ip6-loopback"}) {
    if (host == name) return true;
  }
  return IsLocalhostName(host);
}

// RFC 7617 section 2: no control characters.
bool HasControl(absl::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); });
}

}  // namespace

absl::StatusOr<std::shared_ptr<const EgressProxy>> EgressProxy::Create(const Options& options,
                                                                       absl::string_view field) {
  std::shared_ptr<EgressProxy> proxy(new EgressProxy());
  std::vector<ErrorDetail::Violation> violations;
  const auto check = [&](const absl::Status& status) {
    for (const ErrorDetail::Violation& violation : DetailOf(status).violations) violations.push_back(violation);
  };
  check(proxy->SetUrl(options.url, absl::StrCat(field, ".url")));
  for (size_t i = 0; i < options.no_proxy.size(); ++i) {
    check(proxy->AddNoProxy(options.no_proxy[i], absl::StrCat(field, ".noProxy[", i, "]")));
  }
  check(proxy->SetCredentials(options, field));
  if (!violations.empty()) return InvalidFields(violations);
  return proxy;
}

absl::Status EgressProxy::SetUrl(const std::string& url, absl::string_view field) {
  constexpr absl::string_view kForm = "must be http://host:port, such as http://proxy.example:3128";
  if (url.empty()) return InvalidField(field, "is required: the proxy's address, such as http://proxy.example:3128");
  if (absl::StrContains(url, '@')) {
    return InvalidField(field, "must not have a user name or password: use username and passwordFile");
  }
  if (absl::StartsWithIgnoreCase(url, "https://")) {
    return InvalidField(field, absl::StrCat(kForm, "; TLS to the proxy itself is not supported"));
  }
  const absl::StatusOr<Url> parsed = Url::Parse(url);
  // The port is part of it: programs differ in which one they take when it is absent.
  if (!parsed.ok() ||
      absl::AsciiStrToLower(url) != absl::StrCat("http://", ConnectAuthority(parsed->host(), parsed->port()))) {
    return InvalidField(field, kForm);
  }
  if (const auto address = IpAddress::Parse(parsed->host()); address.ok() && IsNeverDialled(*address)) {
    return InvalidField(field, "must not be a link-local, multicast or metadata address");
  }
  url_ = absl::AsciiStrToLower(url);
  host_ = parsed->host();
  port_ = parsed->port();
  return absl::OkStatus();
}

absl::Status EgressProxy::AddNoProxy(const std::string& entry, absl::string_view field) {
  if (absl::StrContains(entry, '/') || IpAddress::Parse(entry).ok()) {
    const absl::StatusOr<Network> network = Network::Parse(entry);
    if (!network.ok()) return InvalidField(field, network.status().message());
    networks_.push_back(*network);
    return absl::OkStatus();
  }
  absl::string_view name = entry;
  const bool suffix = absl::ConsumePrefix(&name, ".");
  const std::string host = HostOf(name);
  if (host.empty() || IpAddress::Parse(host).ok()) {
    return InvalidField(field,
                        "must be a host name, a suffix such as .example.com, an IP address or a CIDR block, without "
                        "port and wildcard");
  }
  if (suffix) {
    suffixes_.push_back(absl::StrCat(".", host));
  } else {
    names_.insert(host);
  }
  return absl::OkStatus();
}

absl::Status EgressProxy::SetCredentials(const Options& options, absl::string_view field) {
  if (options.username.empty()) return absl::OkStatus();
  if (absl::StrContains(options.username, ':') || HasControl(options.username) ||
      options.username.size() > kMaxUsername) {
    return InvalidField(absl::StrCat(field, ".username"),
                        "must have no colon, no control character and at most 255 "
                        "bytes (RFC 7617)");
  }
  const absl::string_view password = options.password.Expose();
  if (HasControl(password) || password.size() > kMaxPassword) {
    return InvalidField(absl::StrCat(field, ".passwordFile"),
                        "must hold one line without control characters, at most 1024 bytes");
  }
  std::string pair = absl::StrCat(options.username, ":", password);
  std::string encoded = Base64Encode(pair);
  authorization_ = Secret(absl::StrCat("Basic ", encoded));
  OPENSSL_cleanse(pair.data(), pair.size());
  OPENSSL_cleanse(encoded.data(), encoded.size());
  return absl::OkStatus();
}

bool EgressProxy::Covers(absl::string_view host) const {
  if (const absl::StatusOr<IpAddress> address = IpAddress::Parse(host); address.ok()) {
    return !address->is_loopback() && !ContainsAddress(networks_, *address);
  }
  if (NamesLoopback(host) || names_.contains(host)) return false;
  return std::none_of(suffixes_.begin(), suffixes_.end(),
                      [host](const std::string& suffix) { return absl::EndsWith(host, suffix); });
}

std::string ConnectAuthority(absl::string_view host, uint16_t port) {
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

absl::string_view ProxyFailureName(ProxyFailure failure) {
  switch (failure) {
    case ProxyFailure::kUnreachable:
      return "unreachable";
    case ProxyFailure::kTimeout:
      return "timeout";
    case ProxyFailure::kUnauthorized:
      return "unauthorized";
    case ProxyFailure::kRefused:
      return "refused";
    case ProxyFailure::kBadResponse:
      return "bad_response";
  }
  return "other";
}

prometheus::Counter& ProxyFailureCounter(ProxyFailure failure) {
  return MetricCounter(kProxyFailuresInfo, {{"reason", std::string(ProxyFailureName(failure))}});
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "services/registry/urls.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "common/http/networks.h"
#include "common/jose/jwk.h"

namespace sallyport::registry {
namespace {

EgressPolicy PolicyFor(const std::vector<std::string>& networks, EgressPolicy::PlainHttp plain_http) {
  // The deployment's own lists were checked when the service started.
  auto parsed = ParseNetworks(networks, "networks");
  return EgressPolicy(parsed.ok() ? *std::move(parsed) : std::vector<Network>(), plain_http);
}

}  // namespace

Origins MakeOrigins(std::vector<std::string> origins) {
  std::sort(origins.begin(), origins.end());
  origins.erase(std::unique(origins.begin(), origins.end()), origins.end());
  if (!origins.empty() && origins.front().empty()) origins.erase(origins.begin());
  return origins;
}

std::string JoinOrigins(const Origins& origins) { return absl::StrJoin(origins, " "); }
Origins SplitOrigins(const std::string& text) { return MakeOrigins(absl::StrSplit(text, ' ')); }

ResourceUrls::ResourceUrls(const v1::McpServer& server) {
  Add("upstreamUrl", server.upstream_url());
  if (server.has_secret_upstream_url()) {
    upstream_field_ = "secretUpstreamUrl";
    const common::v1::Secret& secret = server.secret_upstream_url();
    Add(upstream_field_, secret.has_value() ? secret.value() : server.upstream_origin());
  }
  Add("appAuth.clientCredentials.tokenUrl", server.app_auth().client_credentials().token_url());
  for (int i = 0; i < server.outbound_headers_size(); ++i) {
    const v1::OutboundHeader& header = server.outbound_headers(i);
    const std::string field = absl::StrCat("outboundHeaders[", i, "]");
    Add(field + ".oauth2ServiceToken.tokenUrl", header.oauth2_service_token().token_url());
    Add(field + ".onBehalfOf.exchangeUrl", header.on_behalf_of().exchange_url());
  }
}
ResourceUrls::ResourceUrls(const v1::App& app) {
  Add("issuer", app.issuer());
  Add("authorizationUrl", app.authorization_url());
  Add("tokenUrl", app.token_url());
  Add("revocationUrl", app.revocation_url());
  Add("accountIdentity.userinfoUrl", app.account_identity().userinfo_url());
}
ResourceUrls::ResourceUrls(const v1::Credential& /*credential*/) {}

void ResourceUrls::Add(const std::string& field, const std::string& url) {
  if (!url.empty()) urls_.emplace(field, Url::Parse(url));
}

const absl::StatusOr<Url>* ResourceUrls::Find(const std::string& field) const {
  const auto found = urls_.find(field);
  return found == urls_.end() ? nullptr : &found->second;
}

std::string ResourceUrls::Origin(const std::string& field) const {
  const auto* url = Find(field);
  return url != nullptr && url->ok() ? (*url)->origin() : "";
}

void ValidateUpstreamUrl(const v1::McpServer& server, const ResourceUrls& urls,
                         const std::vector<std::string>& networks, Findings& findings) {
  const std::string& field = urls.upstream_field();
  const bool secret = server.has_secret_upstream_url();
  if (secret && !server.upstream_url().empty()) {
    return findings.Refuse(field, "and upstreamUrl exclude each other: leave one of the two out");
  }
  const absl::StatusOr<Url>* found = urls.Upstream();
  if (found == nullptr) {
    // A secret one that is nowhere is refused with the other secrets (draft.h).
    if (!secret) {
      findings.Refuse(field, "is required: the URL of a streamable HTTP endpoint, here or in secretUpstreamUrl");
    }
    return;
  }
  const std::string& url = secret ? server.secret_upstream_url().value() : server.upstream_url();
  if (!url.empty() && !absl::StartsWithIgnoreCase(url, "http://") && !absl::StartsWithIgnoreCase(url, "https://")) {
    return findings.Refuse(field,
                           "must begin with https:// or http://: stdio servers are not supported, run them behind a "
                           "streamable HTTP endpoint");
  }
  const absl::StatusOr<Url>& parsed = *found;
  if (!parsed.ok()) return findings.Refuse(field, std::string(parsed.status().message()));
  const absl::Status allowed = PolicyFor(networks, EgressPolicy::PlainHttp::kPrivateNetworks).CheckUrl(*parsed);
  if (!allowed.ok()) return findings.Refuse(field, std::string(allowed.message()));
  if (!parsed->query().empty() && !secret) {
    findings.Warn(field,
                  "has a query, which every auditor can read: a secret in it belongs in appAuth.apiKey with location "
                  "QUERY, or the whole address in secretUpstreamUrl");
  }
  if (absl::EndsWith(parsed->path(), "/sse")) {
    findings.Warn(field,
                  "looks like the HTTP+SSE transport of 2024-11-05, which is not supported: use the streamable HTTP "
                  "endpoint");
  }
  if (!parsed->is_https()) {
    findings.Warn(field,
                  "is plain http: credentials travel unencrypted, which is fine only inside one machine or a trusted "
                  "network");
  }
}

void ValidateUpstreamRoute(const ResourceUrls& urls, const EgressProxy* proxy, Findings& findings) {
  const absl::StatusOr<Url>* url = urls.Upstream();
  if (proxy == nullptr || url == nullptr || !url->ok() || (*url)->is_https()) return;
  if (!IpAddress::Parse((*url)->host()).ok() && proxy->Covers((*url)->host())) {
    findings.Refuse(
        urls.upstream_field(),
        "plain http is not allowed to a name that the egress proxy resolves; use https, or name the host in "
        "deployment.egress.proxy.noProxy");
  }
}

void ValidateOAuthUrl(const absl::StatusOr<Url>& parsed, const std::string& field,
                      const std::vector<std::string>& networks, Findings& findings) {
  if (!parsed.ok()) return findings.Refuse(field, std::string(parsed.status().message()));
  const absl::Status allowed = PolicyFor(networks, EgressPolicy::PlainHttp::kLoopback).CheckUrl(*parsed);
  if (!allowed.ok()) findings.Refuse(field, std::string(allowed.message()));
}

void ValidateIssuer(const std::string& url, const absl::StatusOr<Url>& parsed, const std::vector<std::string>& networks,
                    Findings& findings) {
  const std::string field = "issuer";
  // Also an empty query: an issuer is compared byte for byte.
  if (url.find_first_of("?#") != std::string::npos) {
    return findings.Refuse(field, "must have no query and no fragment (RFC 8414 section 2)");
  }
  ValidateOAuthUrl(parsed, field, networks, findings);
}

void ValidateCidr(const std::string& text, const std::string& field, Findings& findings) {
  if (const auto network = Network::Parse(text); !network.ok()) {
    findings.Refuse(field, absl::StrCat(std::string(network.status().message()), ": write 10.0.0.0/8 or 192.0.2.7"));
  }
}

absl::Status CheckJwks(const std::string& json) { return JwkSet::Parse(json).status(); }

}  // namespace sallyport::registry

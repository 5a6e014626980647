// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/provider_binding.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/http/url.h"

namespace sallyport::token_broker {
namespace {

// Empty if there is none.
std::string OriginOf(const std::string& url) {
  const absl::StatusOr<Url> parsed = Url::Parse(url);
  return parsed.ok() ? parsed->origin() : "";
}

struct Origins {
  std::string token;
  std::string revocation;
};

Origins Bound(const std::string& label) {
  const size_t space = label.find(' ');
  return space == std::string::npos ? Origins{label, ""} : Origins{label.substr(0, space), label.substr(space + 1)};
}

}  // namespace

std::string BoundTo(const Provider& provider) {
  return absl::StrCat(OriginOf(provider.token_url), " ", OriginOf(provider.revocation_url));
}

bool IsBoundTo(const std::string& label, const std::string& token_url) {
  const std::string origin = OriginOf(token_url);
  return !origin.empty() && origin == Bound(label).token;
}

bool MayRefreshAt(const Labels& labels, const Provider& provider) {
  const auto label = labels.find(kBoundTo);
  if (label == labels.end()) {
    return absl::StartsWith(provider.connection, "sso:");
  }
  return IsBoundTo(label->second, provider.token_url);
}

bool MayRevokeAt(const Labels& labels, const Provider& provider) {
  const std::string origin = OriginOf(provider.revocation_url);
  const auto label = labels.find(kBoundTo);
  if (origin.empty() || label == labels.end()) {
    return !origin.empty() && absl::StartsWith(provider.connection, "sso:");
  }
  const Origins bound = Bound(label->second);
  // The token endpoint's origin has seen the token anyway.
  return origin == bound.revocation || origin == bound.token;
}

}  // namespace sallyport::token_broker

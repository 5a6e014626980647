// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/provider_binding.h"

#include "absl/strings/str_cat.h"

#include "common/http/url.h"
#include "services/token_broker/connection_name.h"

namespace sallyport::token_broker {
namespace {

bool IsSignIn(const Provenance& provenance, const Provider& provider) {
  return provenance.token_origin().empty() && KindOf(provider.connection) == ConnectionKind::kSignIn;
}

}  // namespace

std::string OriginOf(const std::string& url) {
  const absl::StatusOr<Url> parsed = Url::Parse(url);
  return parsed.ok() ? parsed->origin() : "";
}

std::string BoundTo(const Provider& provider) {
  return absl::StrCat(OriginOf(provider.token_url), " ", OriginOf(provider.revocation_url));
}

Provenance MadeAt(const Provider& provider, const std::string& binding) {
  Provenance provenance;
  provenance.set_token_origin(OriginOf(provider.token_url));
  provenance.set_revocation_origin(OriginOf(provider.revocation_url));
  provenance.set_binding(binding);
  return provenance;
}

Provenance ProvenanceOf(const Labels& labels) {
  Provenance provenance;
  const auto label = labels.find(kBoundTo);
  if (label == labels.end()) {
    return provenance;
  }
  const size_t space = label->second.find(' ');
  provenance.set_token_origin(label->second.substr(0, space));
  if (space != std::string::npos) {
    provenance.set_revocation_origin(label->second.substr(space + 1));
  }
  return provenance;
}

Provenance ProvenanceOf(const v1::TokenSet& tokens, const Labels& labels) {
  return tokens.has_provenance() ? tokens.provenance() : ProvenanceOf(labels);
}

bool IsBoundTo(const std::string& token_origin, const std::string& token_url) {
  const std::string origin = OriginOf(token_url);
  return !origin.empty() && origin == token_origin;
}

bool MayRefreshAt(const Provenance& provenance, const Provider& provider) {
  return IsSignIn(provenance, provider) || IsBoundTo(provenance.token_origin(), provider.token_url);
}

bool MayRevokeAt(const Provenance& provenance, const Provider& provider) {
  const std::string origin = OriginOf(provider.revocation_url);
  if (origin.empty()) {
    return false;
  }
  // The token endpoint's origin has seen the token anyway.
  return IsSignIn(provenance, provider) || origin == provenance.revocation_origin() ||
         origin == provenance.token_origin();
}

}  // namespace sallyport::token_broker

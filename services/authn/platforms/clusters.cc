// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/clusters.h"

#include <algorithm>

#include "common/error.h"
#include "common/files.h"
#include "common/status_macros.h"
#include "services/authn/authenticator.h"
#include "services/authn/errors.h"

namespace sallyport::authn::platforms {
namespace {

absl::StatusOr<JwtValidator> MakeValidator(const config::v1::KubernetesCluster& cluster) {
  // Kubernetes writes no `typ`, or "JWT": tokens of other kinds say so.
  return JwtValidator::Builder()
      .ExpectIssuer(cluster.issuer())
      .ExpectAudience(cluster.audience())
      .ExpectType("")
      .ExpectType("jwt")
      .RequireSubject()
      .Build();
}

// What is asked of the claims beyond the validator: no leeway for the end, and no token bound to a key or an event.
absl::Status CheckClaims(const Jwt& jwt, absl::Time now) {
  if (now >= jwt.expires_at()) {
    return InvalidToken("expired");
  }
  return jwt.Has("cnf") || jwt.Has("events") ? InvalidToken("wrong_type") : absl::OkStatus();
}

absl::StatusOr<Jwt> ReadUnverified(absl::string_view token) {
  if (token.size() > kMaxTokenBytes) {
    return InvalidToken("token_too_long");
  }
  absl::StatusOr<Jws> jws = ParseJws(token, kMaxTokenBytes);
  if (!jws.ok()) {
    return TokenError(jws.status());
  }
  absl::StatusOr<Jwt> jwt = Jwt::FromJws(*std::move(jws));
  return jwt.ok() ? jwt : TokenError(jwt.status());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Clusters>> Clusters::Create(
    const google::protobuf::RepeatedPtrField<config::v1::KubernetesCluster>& config, const Options& options) {
  auto clusters = std::unique_ptr<Clusters>(new Clusters());
  for (const config::v1::KubernetesCluster& entry : config) {
    ASSIGN_OR_RETURN(JwtValidator validator, MakeValidator(entry));
    auto cluster = std::make_unique<Cluster>(entry, std::move(validator));
    if (entry.has_jwks_file()) {
      ASSIGN_OR_RETURN(const std::string text, ReadFile(entry.jwks_file()));
      ASSIGN_OR_RETURN(cluster->keys, JwkSet::Parse(text));
    } else {
      ASSIGN_OR_RETURN(cluster->http, ClusterHttp::Create({.policy = options.policy,
                                                           .ca_bundle = entry.ca_bundle().empty() ? options.ca_bundle
                                                                                                  : entry.ca_bundle(),
                                                           .token_file = entry.token_file(),
                                                           .timeout = options.timeout}));
      if (entry.has_jwks_url()) {
        cluster->jwks = std::make_unique<JwksCache>(*cluster->http);
      } else {
        cluster->reviews =
            std::make_unique<TokenReviews>(*cluster->http, entry.id(), entry.token_review_url(), entry.audience());
      }
    }
    clusters->clusters_.push_back(std::move(cluster));
  }
  return clusters;
}

// Clusters may share an issuer, as those of one installer do, but then not an audience (ValidateClusters). What the
// token says only chooses who is asked.
absl::StatusOr<Clusters::Cluster*> Clusters::Of(const Jwt& unverified) const {
  const std::vector<std::string> audiences = unverified.audiences();
  Cluster* found = nullptr;
  bool issuer_known = false;
  for (const auto& cluster : clusters_) {
    if (cluster->config.issuer() != unverified.issuer()) {
      continue;
    }
    issuer_known = true;
    if (std::find(audiences.begin(), audiences.end(), cluster->config.audience()) == audiences.end()) {
      continue;
    }
    if (found != nullptr) {
      return InvalidToken("wrong_audience");  // For two of our clusters: whose keys decide would be a guess.
    }
    found = cluster.get();
  }
  if (found == nullptr) {
    return InvalidToken(issuer_known ? "wrong_audience" : "wrong_issuer");
  }
  return found;
}

absl::StatusOr<VerifiedAccount> Clusters::Review(Cluster& cluster, absl::string_view token, const Jwt& unverified,
                                                 const Known& known, absl::Time now) {
  if (const absl::Status valid = cluster.validator.Validate(unverified, now); !valid.ok()) {
    return TokenError(valid);
  }
  RETURN_IF_ERROR(CheckClaims(unverified, now));
  ASSIGN_OR_RETURN(ServiceAccount account, ServiceAccountOfClaims(cluster.config.id(), unverified));
  if (!known(account)) {
    return InvalidToken("unknown_account");
  }
  ASSIGN_OR_RETURN(const TokenReviews::Review review, cluster.reviews->Ask(token, now));
  if (ServiceAccountOfUsername(cluster.config.id(), review.username) != account) {
    return InvalidToken("bad_subject");
  }
  return VerifiedAccount{std::move(account), unverified.expires_at(), review.believed_until};
}

absl::StatusOr<VerifiedAccount> Clusters::Verify(absl::string_view token, const Known& known, absl::Time now) const {
  ASSIGN_OR_RETURN(const Jwt unverified, ReadUnverified(token));
  ASSIGN_OR_RETURN(Cluster * cluster, Of(unverified));
  if (cluster->reviews != nullptr) {
    return Review(*cluster, token, unverified, known, now);
  }
  const absl::StatusOr<Jwt> jwt =
      cluster->keys.has_value()
          ? VerifyJwt(token, *cluster->keys, cluster->validator, now, kMaxTokenBytes)
          : cluster->jwks->Verify(token, cluster->config.jwks_url(), cluster->validator, now, kMaxTokenBytes);
  if (!jwt.ok()) {
    return TokenError(jwt.status());
  }
  RETURN_IF_ERROR(CheckClaims(*jwt, now));
  ASSIGN_OR_RETURN(ServiceAccount account, ServiceAccountOfClaims(cluster->config.id(), *jwt));
  return VerifiedAccount{std::move(account), jwt->expires_at()};
}

}  // namespace sallyport::authn::platforms

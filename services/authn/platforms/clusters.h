// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/jose/jwk.h"
#include "common/jose/jwt.h"
#include "sallyport/config/v1/services.pb.h"
#include "services/authn/jwks_cache.h"
#include "services/authn/platforms/cluster_http.h"
#include "services/authn/platforms/service_account.h"
#include "services/authn/platforms/token_reviews.h"

namespace sallyport::authn::platforms {

// Whose a service-account token is, and until when that holds.
struct VerifiedAccount {
  ServiceAccount account;
  absl::Time expires_at;
  // When the cluster must be asked again.
  absl::Time believed_until = absl::InfiniteFuture();
};

// The clusters of the configuration. Thread-safe.
class Clusters {
 public:
  struct Options {
    EgressPolicy policy;
    std::string ca_bundle;  // For clusters without one.
    absl::Duration timeout = absl::Seconds(5);
  };
  // `config` is valid (ValidateClusters).
  static absl::StatusOr<std::unique_ptr<Clusters>> Create(
      const google::protobuf::RepeatedPtrField<config::v1::KubernetesCluster>& config, const Options& options);

  // Is there any use for tokens of this account? The API server is not asked about others: anybody can make up tokens,
  // and what is somebody else's must not be sent on.
  using Known = std::function<bool(const ServiceAccount&)>;
  // Signature (or the API server's word), iss, aud, exp, sub, kubernetes.io. UNAUTHENTICATED (invalid_token, with the
  // check that failed as reason), UNAVAILABLE.
  absl::StatusOr<VerifiedAccount> Verify(absl::string_view token, const Known& known, absl::Time now) const;

 private:
  // One cluster, whose keys are in a file, at a URL, or with the API server.
  struct Cluster {
    Cluster(config::v1::KubernetesCluster settings, JwtValidator the_validator)
        : config(std::move(settings)), validator(std::move(the_validator)) {}
    const config::v1::KubernetesCluster config;
    const JwtValidator validator;
    std::optional<JwkSet> keys;
    std::unique_ptr<ClusterHttp> http;
    std::unique_ptr<JwksCache> jwks;
    std::unique_ptr<TokenReviews> reviews;
  };
  Clusters() = default;
  absl::StatusOr<Cluster*> Of(const Jwt& unverified) const;
  static absl::StatusOr<VerifiedAccount> Review(Cluster& cluster, absl::string_view token, const Jwt& unverified,
                                                const Known& known, absl::Time now);

  std::vector<std::unique_ptr<Cluster>> clusters_;
};

}  // namespace sallyport::authn::platforms

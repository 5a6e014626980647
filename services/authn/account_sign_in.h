// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "sallyport/config/v1/services.pb.h"
#include "services/authn/access_policy.h"
#include "services/authn/access_token.h"
#include "services/authn/anonymous_events.h"
#include "services/authn/audit.h"
#include "services/authn/platforms/clusters.h"
#include "services/authn/rate_limit.h"

namespace sallyport::authn {

// `roles.*ServiceAccounts`: each is a service account of a cluster of the configuration, and none is a platform's,
// whose token the broker sees. INVALID_ARGUMENT naming every field.
absl::Status ValidateRoleAccounts(const config::v1::AuthnConfig& config);

// Administrators that are Kubernetes service accounts: a token of an account that `roles` names is traded for an API
// token. Thread-safe.
class AccountSignIn {
 public:
  // All outlive this.
  struct Parts {
    const RolePolicy& roles;
    const AccessTokens& tokens;
    Audit& audit;
  };
  // `clusters` are its own: what strangers send to the public port displaces nothing that platforms need.
  AccountSignIn(std::unique_ptr<platforms::Clusters> clusters, const Parts& parts)
      : clusters_(std::move(clusters)),
        parts_(parts),
        by_address_(5, absl::Seconds(12), kMaxAddresses),
        attempts_(300, absl::Milliseconds(100)) {}

  // An API token without roles of its own: what the account may do, the configuration says at each use. It ends with
  // the account's token. The event is on disk before it is answered. UNAUTHENTICATED (reason service_account_refused),
  // UNAVAILABLE (the cluster cannot be asked, or the audit cannot be written); RESOURCE_EXHAUSTED (retry_after) as for
  // the one-time admin token: 5 attempts at once from an address, one more every 12 s, and 300 from all, 10 a second.
  absl::StatusOr<MintedToken> Redeem(absl::string_view token, absl::string_view client_address, absl::Time now);

 private:
  static constexpr size_t kMaxAddresses = 10'000;

  bool HasRole(const platforms::ServiceAccount& account) const;
  absl::StatusOr<MintedToken> Refuse(const absl::Status& why, absl::string_view client_address, absl::Time now);
  void LogRefusal(absl::string_view check, absl::Time now);

  const std::unique_ptr<platforms::Clusters> clusters_;
  const Parts parts_;
  RateLimits by_address_;
  RateLimit attempts_;
  AnonymousEvents refused_;
  RateLimit lines_{10, absl::Seconds(5)};
  Mutex mu_;
  uint64_t unlogged_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::authn

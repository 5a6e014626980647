// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "services/authn/authenticator.h"

namespace sallyport::authn::platforms {

// Whose token is it that a platform brings? Thread-safe.
class SubjectTokens {
 public:
  // All outlive this.
  struct Parts {
    const Authenticator& authenticator;
    const AccessTokens& tokens;
    const Servers& servers;
    const Connectors& connectors;
    const Revocations& revocations;
  };
  explicit SubjectTokens(const Parts& parts) : parts_(parts) {}

  // Ours: a live one for any enabled MCP server; never one for the API. Another issuer's: of a connector, of a kind the
  // connector accepts, with one of `audiences`, exactly (none: no such token is taken). UNAUTHENTICATED (invalid_token,
  // the check that failed as reason), UNAVAILABLE.
  absl::StatusOr<Authenticator::Verified> Verify(absl::string_view token, const std::vector<std::string>& audiences,
                                                 absl::Time now) const;

 private:
  absl::StatusOr<Authenticator::Verified> VerifyOurs(absl::string_view token, absl::Time now) const;
  absl::StatusOr<Authenticator::Verified> VerifyConnectors(absl::string_view token, const std::string& issuer,
                                                           const std::vector<std::string>& audiences,
                                                           absl::Time now) const;
  absl::Status CheckRevoked(const AcceptedToken& accepted) const;

  const Parts parts_;
};

}  // namespace sallyport::authn::platforms

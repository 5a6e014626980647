// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstddef>
#include <set>
#include <string>

#include "absl/strings/string_view.h"

#include "common/jose/jwt.h"
#include "sallyport/authn/v1/authn.pb.h"
#include "sallyport/registry/v1/credential_plan.pb.h"
#include "services/authn/identity.h"

namespace sallyport::authn {

// The most a claim may have, as text or JSON. Upstreams take 8 KiB of headers in all, some less.
inline constexpr size_t kMaxClaimBytes = 4096;

// A claim that goes upstream, and how it is written there.
struct WantedClaim {
  std::string claim;
  bool json = false;
  friend auto operator<=>(const WantedClaim&, const WantedClaim&) = default;
};
std::set<WantedClaim> WantedClaims(const registry::v1::CredentialPlan& plan);

// Puts each claim that is wanted into `principal`, or why it cannot be given (Principal.claim_faults): never part of
// it, never cleaned up. From `jwt`; where that is null (a token of ours names nobody's claims) from what the sign-in
// told. "sub" is always the identity in full, never the token's bare claim: two issuers may both have an "alice".
// "user_id" is that bare value, unless the token has a claim of that name.
// `groups_claim`: the connector's, whose value is a list even where the issuer sends one name alone; may be empty.
void AddCallerClaims(const std::set<WantedClaim>& wanted, const Identity& identity, const Jwt* jwt,
                     absl::string_view groups_claim, v1::Principal& principal);

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/caller/passport.h"
#include "services/authn/signing_keys.h"

namespace sallyport::authn {

// Mints passports. Thread-safe.
class Passports {
 public:
  Passports(std::string public_url, const SigningKeys& keys) : public_url_(std::move(public_url)), keys_(keys) {}

  // Signs `passport` with issued_at = `now` and an end at most kPassportLifetime later, never past `not_after`. Returns
  // it with issued_at, expires_at and jwt filled. UNAVAILABLE until keys are loaded, UNAUTHENTICATED if `not_after` has
  // passed.
  absl::StatusOr<Passport> Mint(Passport passport, absl::Time not_after, absl::Time now) const;

  // For storing the tokens of a sign-in: purpose sign_in.
  absl::StatusOr<std::string> MintForSignIn(const std::string& subject, const std::string& session_id,
                                            absl::Time now) const;

 private:
  const std::string public_url_;
  const SigningKeys& keys_;
};

// Verifies passports that come to authn itself, with authn's own keys.
std::unique_ptr<PassportKeySource> OwnKeySource(const SigningKeys& keys);

}  // namespace sallyport::authn

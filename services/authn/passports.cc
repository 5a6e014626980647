// SPDX-License-Identifier: Apache-2.0
#include "services/authn/passports.h"

#include <algorithm>

#include "common/status_macros.h"
#include "services/authn/errors.h"

namespace sallyport::authn {
namespace {

class OwnKeys final : public PassportKeySource {
 public:
  explicit OwnKeys(const SigningKeys& keys) : keys_(keys) {}
  absl::StatusOr<std::string> FetchJwks() override { return keys_.Jwks(); }

 private:
  const SigningKeys& keys_;
};

}  // namespace

absl::StatusOr<Passport> Passports::Mint(Passport passport, absl::Time not_after, absl::Time now) const {
  // Whole seconds, as in the claims, so that what is said here is what a verifier reads.
  passport.issued_at = absl::FromUnixSeconds(absl::ToUnixSeconds(now));
  passport.expires_at = std::min(passport.issued_at + kPassportLifetime, not_after);
  passport.expires_at = absl::FromUnixSeconds(absl::ToUnixSeconds(passport.expires_at));
  if (passport.expires_at <= now) {
    return InvalidToken("expired");
  }
  ASSIGN_OR_RETURN(std::shared_ptr<const PrivateKey> key, keys_.Active());
  ASSIGN_OR_RETURN(passport.jwt, SignPassport(passport, public_url_, *key, passport.issued_at));
  return passport;
}

absl::StatusOr<std::string> Passports::MintForSignIn(const std::string& subject, const std::string& session_id,
                                                     absl::Time now) const {
  Passport passport;
  passport.subject = subject;
  passport.session_id = session_id;
  passport.purpose = Passport::Purpose::kSignIn;
  ASSIGN_OR_RETURN(Passport minted, Mint(std::move(passport), absl::InfiniteFuture(), now));
  return minted.jwt;
}

std::unique_ptr<PassportKeySource> OwnKeySource(const SigningKeys& keys) { return std::make_unique<OwnKeys>(keys); }

}  // namespace sallyport::authn

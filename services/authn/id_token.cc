// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <vector>

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "services/authn/connectors.h"
#include "services/authn/errors.h"
#include "services/authn/refusals.h"

namespace sallyport::authn {
namespace {

// OpenID Connect Core 3.1.3.6: base64url of the left half of the hash that belongs to the signature's algorithm.
std::string HalfHash(JwsAlgorithm algorithm, absl::string_view text) {
  std::string hash;
  switch (algorithm) {
    case JwsAlgorithm::kRs384:
    case JwsAlgorithm::kPs384:
    case JwsAlgorithm::kEs384:
      hash = Sha384(text);
      break;
    case JwsAlgorithm::kRs512:
    case JwsAlgorithm::kPs512:
    case JwsAlgorithm::kEs512:
    case JwsAlgorithm::kEdDsa:
      hash = Sha512(text);
      break;
    default:
      hash = Sha256(text);
  }
  return Base64UrlEncode(hash.substr(0, hash.size() / 2));
}

}  // namespace

absl::StatusOr<SignInIdentity> Connector::VerifyIdToken(absl::string_view jwt_text, const IdTokenExpectation& expected,
                                                        absl::Time now) const {
  if (client_id().empty() || expected.nonce.empty()) {
    return absl::FailedPreconditionError("nobody can sign in with this connector");
  }
  ASSIGN_OR_RETURN(JwtValidator validator, JwtValidator::Builder()
                                               .ExpectIssuer(issuer())
                                               .ExpectAudience(client_id())
                                               .ExpectType("JWT")
                                               .ExpectType("id+jwt")
                                               .ExpectType("")
                                               .RequireSubject()
                                               .RequireIssuedAt()
                                               .Build());
  absl::StatusOr<Jwt> signed_jwt = VerifySigned(jwt_text, validator, now, kMaxIdTokenBytes);
  if (ReasonOf(signed_jwt.status()) == "wrong_issuer") {
    const std::optional<UnverifiedJwt> peek = PeekJwt(jwt_text, kMaxIdTokenBytes);
    LogForeignIssuer({.where = "id_token",
                      .subject = id(),
                      .said = peek.has_value() ? absl::string_view(peek->issuer) : absl::string_view(),
                      .expected = {issuer()},
                      .remedy = "set the connector's oidc.issuer to exactly what the provider's tokens say"},
                     now);
  }
  RETURN_IF_ERROR(signed_jwt.status());
  const Jwt& jwt = *signed_jwt;
  if (jwt.String("nonce") != expected.nonce) {
    return InvalidToken("wrong_nonce");
  }
  if (jwt.Has("events")) {
    return InvalidToken("wrong_type");
  }
  if ((jwt.audiences().size() > 1 || jwt.Has("azp")) && jwt.String("azp") != client_id()) {
    return InvalidToken("wrong_azp");
  }
  if (jwt.Has("at_hash") && !expected.access_token.empty() &&
      jwt.String("at_hash") != HalfHash(jwt.algorithm(), expected.access_token)) {
    return InvalidToken("wrong_at_hash");
  }
  SignInIdentity verified;
  ASSIGN_OR_RETURN(verified.identity, IdentityFromClaims(jwt, AcceptedKind::kIdToken));
  verified.sub = jwt.String("sub").value_or("");
  return verified;
}

}  // namespace sallyport::authn

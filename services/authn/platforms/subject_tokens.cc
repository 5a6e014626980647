// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/subject_tokens.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "common/error.h"
#include "common/status_macros.h"
#include "services/authn/errors.h"
#include "services/authn/groups_overage.h"

namespace sallyport::authn::platforms {
namespace {

Authenticator::Verified FromAccepted(AcceptedToken accepted) {
  Authenticator::Verified verified;
  verified.identity = std::move(accepted.identity);
  verified.kind = accepted.kind == AcceptedKind::kIdToken ? v1::CONNECTOR_ID : v1::CONNECTOR_ACCESS;
  verified.client_id = std::move(accepted.client_id);
  verified.scopes = std::move(accepted.scopes);
  verified.expires_at = accepted.expires_at;
  verified.jwt = std::move(accepted.jwt);
  return verified;
}

}  // namespace

absl::StatusOr<Authenticator::Verified> SubjectTokens::Verify(absl::string_view token,
                                                              const std::vector<std::string>& audiences,
                                                              absl::Time now) const {
  if (token.empty() || token.size() > kMaxTokenBytes) {
    return InvalidToken(token.empty() ? "missing_token" : "token_too_long");
  }
  const std::optional<UnverifiedJwt> peek = PeekJwt(token, kMaxTokenBytes);
  if (!peek.has_value()) {
    const absl::StatusOr<Jws> jws = ParseJws(token, kMaxTokenBytes);
    return jws.ok() ? InvalidToken("malformed_token") : TokenError(jws.status());
  }
  return parts_.tokens.IsOurs(*peek) ? VerifyOurs(token, now) : VerifyConnectors(token, peek->issuer, audiences, now);
}

absl::StatusOr<Authenticator::Verified> SubjectTokens::VerifyOurs(absl::string_view text, absl::Time now) const {
  // Signed by us, whatever it is for: only to learn for which server it says it is.
  ASSIGN_OR_RETURN(const AccessToken claimed, parts_.tokens.VerifyForRevocation(text));
  if (claimed.server_uid.empty()) {
    return InvalidToken("wrong_audience");
  }
  const std::shared_ptr<const ServerView> server = parts_.servers.FindByUid(claimed.server_uid);
  if (server == nullptr) {
    return parts_.servers.ready() ? InvalidToken("wrong_server") : ServersUnknown();
  }
  ASSIGN_OR_RETURN(const AccessToken token, parts_.tokens.VerifyMcp(text, server->slug(), server->uid(), now));
  ASSIGN_OR_RETURN(Grant grant, parts_.authenticator.LiveGrant(token, now));
  Authenticator::Verified verified;
  verified.identity = std::move(grant.user);
  verified.kind = v1::SALLYPORT;
  verified.client_id = token.client_id;
  verified.scopes = {token.scope};
  verified.expires_at = std::min(token.expires_at, grant.expires_at);
  verified.session_id = token.grant_id;
  return verified;
}

absl::StatusOr<Authenticator::Verified> SubjectTokens::VerifyConnectors(absl::string_view token,
                                                                        const std::string& issuer,
                                                                        const std::vector<std::string>& audiences,
                                                                        absl::Time now) const {
  // Two connectors may have one issuer: the first that takes the token decides, as at door one.
  absl::Status refused = InvalidToken("wrong_issuer");
  for (const auto& connector : parts_.connectors.all()) {
    if (connector->issuer().empty() || connector->issuer() != issuer) {
      continue;
    }
    if (audiences.empty()) {
      return InvalidToken("wrong_audience");  // An empty rule would take a token that is meant for anybody.
    }
    absl::StatusOr<AcceptedToken> accepted = connector->VerifyPresented(token, {audiences, {}}, now);
    if (!accepted.ok()) {
      refused = TokenError(accepted.status());
      continue;
    }
    RETURN_IF_ERROR(CheckRevoked(*accepted));
    return FromAccepted(*std::move(accepted));
  }
  return refused;
}

absl::Status SubjectTokens::CheckRevoked(const AcceptedToken& accepted) const {
  ASSIGN_OR_RETURN(const bool revoked,
                   parts_.revocations.IsSubjectRevoked(accepted.identity.subject, accepted.jwt.Time("iat")));
  if (revoked) {
    return InvalidToken("revoked");
  }
  if (accepted.identity.groups_overage) {
    CountGroupsOverage(accepted.identity.connector, "token");
  }
  return absl::OkStatus();
}

}  // namespace sallyport::authn::platforms

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/consent.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/oauth/claims_parameter.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

using Plan = registry::v1::CredentialPlan;

constexpr char kClaimsPayload[] = "sallyport/consent_claims";
// Base64url of what fits into the parameter, and of the seal.
constexpr size_t kMaxSealed = (oauth::kMaxClaimsParameter + kAeadOverhead) * 4 / 3 + 4;

std::string SealedFor(absl::string_view subject, absl::string_view server_uid) {
  return absl::StrCat("sallyport consent claims v1\n", subject, "\n", server_uid);
}

}  // namespace

bool ExchangesSignIns(const registry::v1::McpServer& server) {
  const auto& pieces = server.credential_plan().pieces();
  return std::any_of(pieces.begin(), pieces.end(), [](const Plan::Piece& piece) {
    return piece.has_exchanged_token() && piece.callers() == Plan::SIGNED_IN;
  });
}

std::string ConnectorOf(absl::string_view subject) { return std::string(subject.substr(0, subject.find(':'))); }

std::string ConsentUid(absl::string_view subject) { return SignInName(ConnectorOf(subject)); }

bool IsConsentOf(const registry::v1::McpServer& server, const Passport& passport, absl::string_view uid) {
  return uid == ConsentUid(passport.subject) && !passport.session_id.empty() && ExchangesSignIns(server);
}

v1::LinkRequired ConsentLink(absl::string_view subject, const std::string& claims) {
  v1::LinkRequired link;
  link.set_app_uid(ConsentUid(subject));
  link.set_app_slug(ConnectorOf(subject));
  link.set_app_display_name(link.app_slug());
  link.set_reason(v1::LinkRequired::NEEDS_CONSENT);
  link.set_claims(claims);
  return link;
}

bool HasConsented(const v1::TokenSet::Consent& consent, const registry::v1::McpServer& server, absl::Time now) {
  return !consent.server_uid().empty() && consent.server_uid() == server.uid() &&
         now < FromTimestamp(consent.at()) + kConsentPause;
}

absl::Status MendedByConsent(absl::Status refusal, const std::string& claims) {
  if (ReasonOf(refusal) == kNeedsInteraction) {
    refusal.SetPayload(kClaimsPayload, absl::Cord(claims));
  }
  return refusal;
}

std::optional<std::string> ConsentWantedBy(const absl::Status& status) {
  const auto claims = status.GetPayload(kClaimsPayload);
  return claims.has_value() ? std::make_optional(std::string(*claims)) : std::nullopt;
}

absl::Status InWords(absl::Status status) {
  status.ErasePayload(kClaimsPayload);
  return status;
}

absl::StatusOr<std::string> SealClaims(const Secret& key, absl::string_view subject, absl::string_view server_uid,
                                       const std::string& claims) {
  if (oauth::ClaimsParameter(claims).empty()) {
    return std::string();
  }
  ASSIGN_OR_RETURN(const std::string sealed, AeadSeal(key, claims, SealedFor(subject, server_uid)));
  return Base64UrlEncode(sealed);
}

std::string OpenClaims(const Secret& key, absl::string_view subject, absl::string_view server_uid,
                       absl::string_view sealed) {
  if (sealed.empty() || sealed.size() > kMaxSealed) {
    return "";
  }
  const absl::StatusOr<std::string> bytes = Base64UrlDecode(sealed);
  if (!bytes.ok()) {
    return "";
  }
  const absl::StatusOr<Secret> claims = AeadOpen(key, *bytes, SealedFor(subject, server_uid));
  return claims.ok() ? oauth::ClaimsParameter(claims->Expose()) : "";
}

}  // namespace sallyport::token_broker

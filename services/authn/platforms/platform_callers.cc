// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/platform_callers.h"

#include <algorithm>
#include <set>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/authn/errors.h"

namespace sallyport::authn::platforms {
namespace {

constexpr absl::Duration kRetryAfter = absl::Seconds(5);
// As the vault takes them: whose name is longer has no account there.
constexpr size_t kMaxSubject = 512;
constexpr char kCertificate[] = "certificate";
constexpr char kServiceAccount[] = "service_account";
constexpr char kBoth[] = "certificate+service_account";

// Who asks again at once would make a bad hour of the cluster's worse.
absl::Status WithPause(const absl::Status& status) {
  return absl::IsUnavailable(status) && DetailOf(status).retry_after == absl::ZeroDuration()
             ? WithRetryAfter(status, kRetryAfter)
             : status;
}

std::vector<std::string> Ids(const config::v1::AuthnConfig& config) {
  std::vector<std::string> ids;
  for (const auto& platform : config.platforms()) {
    ids.push_back(platform.id());
  }
  return ids;
}

absl::Status NotGranted(const Granted& granted) {
  return PlatformNotGranted(granted.groups_overage
                                ? "no grant of the platform covers this user: their identity provider sent no groups "
                                  "because there are too many; groups decide here"
                                : "no grant of the platform covers this user");
}

void FillPrincipal(const Passport& passport, const Authenticator::Verified& user, v1::Principal& principal) {
  principal.set_subject(passport.subject);
  principal.set_issuer(user.identity.issuer);
  principal.set_email(passport.email);
  principal.set_email_verified(passport.email_verified);
  principal.set_name(passport.name);
  principal.mutable_groups()->Assign(passport.groups.begin(), passport.groups.end());
  principal.set_client_id(passport.client_id);
  principal.mutable_scopes()->Assign(user.scopes.begin(), user.scopes.end());
  principal.set_token_kind(user.kind);
  *principal.mutable_expires_at() =
      ToTimestamp(user.expires_at == absl::InfiniteFuture() ? passport.expires_at : user.expires_at);
}

}  // namespace

PlatformCallers::PlatformCallers(const config::v1::AuthnConfig& config, std::unique_ptr<Clusters> clusters,
                                 const Parts& parts)
    : policy_(config),
      clusters_(std::move(clusters)),
      parts_(parts),
      tokens_(parts.users),
      records_(parts.audit, Ids(config)) {}

absl::StatusOr<std::unique_ptr<PlatformCallers>> PlatformCallers::Create(const config::v1::AuthnConfig& config,
                                                                         const Clusters::Options& options,
                                                                         const Parts& parts) {
  ASSIGN_OR_RETURN(std::unique_ptr<Clusters> clusters, Clusters::Create(config.kubernetes(), options));
  return std::unique_ptr<PlatformCallers>(new PlatformCallers(config, std::move(clusters), parts));
}

absl::StatusOr<PlatformCallers::Proof> PlatformCallers::ByAccount(absl::string_view token, absl::Time now,
                                                                  std::string& check) const {
  const absl::StatusOr<VerifiedAccount> verified = clusters_->Verify(
      token, [this](const ServiceAccount& account) { return policy_.OfAccount(account) != nullptr; }, now);
  if (absl::IsUnauthenticated(verified.status())) {
    check = ReasonOf(verified.status());
    return PlatformUnknown(absl::StrCat("the service-account token was not accepted: ", check));
  }
  if (!verified.ok()) {
    return verified.status();
  }
  Proof proof;
  proof.platform = policy_.OfAccount(verified->account);
  proof.kind = kServiceAccount;
  proof.expires_at = verified->expires_at;
  proof.believed_until = verified->believed_until;
  if (proof.platform == nullptr) {
    check = "unknown_account";
    return PlatformUnknown("no platform of the configuration has this service account");
  }
  return proof;
}

absl::StatusOr<PlatformCallers::Proof> PlatformCallers::WhoCalls(const v1::AuthenticatePlatformRequest& request,
                                                                 absl::Time now, std::string& check) const {
  const bool certificate = !request.certificate_uris().empty() || !request.certificate_dns_names().empty();
  Proof proof;
  if (certificate) {
    const std::set<const Platform*> found =
        policy_.OfCertificate(request.certificate_uris(), request.certificate_dns_names());
    if (found.size() != 1) {
      check = found.empty() ? "unknown_certificate" : "ambiguous_certificate";
      return PlatformUnknown(found.empty() ? "no platform of the configuration has a name of this certificate"
                                           : "the certificate has names of several platforms");
    }
    proof.platform = *found.begin();
    proof.kind = kCertificate;
  }
  if (request.service_account_token().empty()) {
    if (!certificate) {
      check = "no_proof";
      return PlatformUnknown("neither a client certificate nor a service-account token was presented");
    }
    return proof;
  }
  ASSIGN_OR_RETURN(Proof account, ByAccount(request.service_account_token(), now, check));
  if (certificate && account.platform != proof.platform) {
    check = "two_platforms";
    return PlatformUnknown("the certificate and the service-account token are not of the same platform");
  }
  account.kind = certificate ? kBoth : kServiceAccount;
  return account;
}

// A user as the platform names them: nobody tells now in which groups they are, or their address. Nothing if there can
// be no such user.
std::optional<Identity> PlatformCallers::Named(absl::string_view subject) const {
  const size_t colon = subject.find(':');
  const Connector* connector =
      colon == absl::string_view::npos ? nullptr : parts_.users.connectors.Find(subject.substr(0, colon));
  const absl::string_view value = connector == nullptr ? "" : subject.substr(colon + 1);
  if (value.empty() || subject.size() > kMaxSubject || std::any_of(value.begin(), value.end(), [](char c) {
        return absl::ascii_iscntrl(static_cast<unsigned char>(c));
      })) {
    return std::nullopt;
  }
  Identity identity;
  identity.subject = std::string(subject);
  identity.connector = connector->id();
  identity.issuer = connector->type() == Connector::Type::kLocal ? kLocalIssuer : connector->issuer();
  return parts_.users.connectors.Current(identity).has_value() ? std::make_optional(identity) : std::nullopt;
}

absl::StatusOr<PlatformCallers::User> PlatformCallers::ForWhom(const v1::AuthenticatePlatformRequest& request,
                                                               const Platform& platform, absl::Time now,
                                                               PlatformOutcome& outcome) const {
  User user;
  outcome.user = request.has_subject_token() ? "token" : "named";
  if (request.user_case() == v1::AuthenticatePlatformRequest::kSubjectToken) {
    absl::StatusOr<Authenticator::Verified> verified =
        tokens_.Verify(request.subject_token(), platform.subject_token_audiences(), now);
    if (absl::IsUnauthenticated(verified.status())) {
      outcome.check = ReasonOf(verified.status());
      return SubjectTokenInvalid(outcome.check);
    }
    if (!verified.ok()) {
      return verified.status();
    }
    user.verified = *std::move(verified);
    outcome.subject = user.verified.identity.subject;
    outcome.client_id = user.verified.client_id;
    outcome.names_user = user.verified.session_id.empty();
    user.granted = platform.ForUser(user.verified.identity);
  } else {
    outcome.subject = request.subject();
    const std::optional<Identity> named = Named(request.subject());
    // One answer, whether there is no such user or no grant: a platform must not learn whom there is.
    if (named.has_value()) {
      user.verified.identity = *named;
      user.granted = platform.ForSubject(named->subject);
    }
    user.verified.expires_at = absl::InfiniteFuture();
  }
  if (user.granted.apps.empty()) {
    return NotGranted(user.granted);
  }
  return user;
}

absl::StatusOr<v1::AuthenticatePlatformResponse> PlatformCallers::Admit(const Proof& proof, const User& user,
                                                                        absl::Time now) const {
  const Identity& identity = user.verified.identity;
  Passport passport;
  passport.purpose = Passport::Purpose::kPlatform;
  passport.subject = identity.subject;
  passport.actor = proof.platform->id();
  passport.apps = user.granted.apps;
  passport.session_id = user.verified.session_id;
  passport.email = identity.email;
  passport.email_verified = identity.email_verified;
  passport.name = identity.name;
  passport.groups = parts_.users.servers.NamedGroups(identity);
  passport.client_id = user.verified.client_id;
  // Without roles: a platform gets tokens, and must not be able to act as an administrator.
  absl::StatusOr<Passport> minted =
      parts_.passports.Mint(std::move(passport), std::min(user.verified.expires_at, proof.expires_at), now);
  if (absl::IsUnauthenticated(minted.status())) {
    return SubjectTokenInvalid("expired");  // Within this second.
  }
  if (!minted.ok()) {
    return minted.status();
  }
  v1::AuthenticatePlatformResponse response;
  response.set_passport(minted->jwt);
  FillPrincipal(*minted, user.verified, *response.mutable_principal());
  response.set_session_id(user.verified.session_id);
  response.mutable_apps()->Assign(user.granted.apps.begin(), user.granted.apps.end());
  *response.mutable_valid_until() = ToTimestamp(std::min(minted->expires_at, proof.believed_until));
  return response;
}

PlatformOutcome PlatformCallers::Decide(const v1::AuthenticatePlatformRequest& request, absl::Time now) const {
  PlatformOutcome outcome{"", "", "", "", "", "", "", false, absl::UnavailableError("not decided")};
  const absl::StatusOr<Proof> proof = WhoCalls(request, now, outcome.check);
  if (!proof.ok()) {
    outcome.response = proof.status();
    return outcome;
  }
  const Platform& platform = *proof->platform;
  outcome.platform = platform.id();
  outcome.proof = proof->kind;
  if (request.user_case() == v1::AuthenticatePlatformRequest::USER_NOT_SET) {
    outcome.response = v1::AuthenticatePlatformResponse();
    *outcome.response->mutable_valid_until() =
        ToTimestamp(std::min({now + kPassportLifetime, proof->expires_at, proof->believed_until}));
  } else {
    const absl::StatusOr<User> user = ForWhom(request, platform, now, outcome);
    outcome.response = user.ok() ? Admit(*proof, *user, now) : user.status();
    outcome.rule = outcome.response.ok() ? user->granted.rule : ReasonOf(outcome.response.status());
  }
  if (outcome.response.ok()) {
    outcome.response->set_platform(platform.id());
    outcome.response->set_rate_limit(platform.config().rate_limit());
    outcome.response->set_rate_burst(platform.rate_burst());
    *outcome.response->mutable_return_origins() = platform.config().return_origins();
  }
  return outcome;
}

absl::StatusOr<v1::AuthenticatePlatformResponse> PlatformCallers::Authenticate(
    const v1::AuthenticatePlatformRequest& request, absl::Time now) {
  PlatformOutcome outcome = Decide(request, now);
  RETURN_IF_ERROR(records_.Note(outcome, now));
  if (!outcome.response.ok()) {
    return WithPause(outcome.response.status());
  }
  return std::move(outcome.response);
}

}  // namespace sallyport::authn::platforms

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/account_sign_in.h"

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/config/service_config.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/status_macros.h"
#include "services/authn/counted_address.h"
#include "services/authn/errors.h"
#include "services/authn/identity.h"
#include "services/authn/platforms/platform_policy.h"
#include "services/authn/platforms/service_account.h"

namespace sallyport::authn {
namespace {

using platforms::ServiceAccount;

constexpr absl::Duration kRetryAfter = absl::Seconds(5);
constexpr size_t kMaxAddress = 45;  // The longest text of an IPv6 address.
constexpr char kEvent[] = "service_account.signed_in";

std::string SubjectOf(const ServiceAccount& account) {
  return absl::StrCat(kServiceAccountSubject, account.ToString());
}

absl::Status CheckAccount(const std::string& field, const std::string& text, const config::v1::AuthnConfig& config,
                          const std::set<ServiceAccount>& of_platforms) {
  const std::string only_cluster = platforms::OnlyCluster(config);
  if (config.kubernetes().empty()) {
    return InvalidField(field, "needs a cluster: describe it under kubernetes");
  }
  const std::optional<ServiceAccount> account = platforms::ParseServiceAccount(text, only_cluster);
  if (!account.has_value()) {
    return InvalidField(field, "must be <cluster>:<namespace>/<service account>, such as main:ops/admin");
  }
  bool known = false;
  for (const auto& cluster : config.kubernetes()) {
    known = known || cluster.id() == account->cluster;
  }
  if (!known) {
    return InvalidField(field, absl::StrCat("there is no cluster \"", account->cluster, "\" under kubernetes"));
  }
  return of_platforms.contains(*account)
             ? InvalidField(field, "is a platform's: give administration a service account of its own")
             : absl::OkStatus();
}

absl::Status TooMany(absl::Duration wait) {
  return WithRetryAfter(absl::ResourceExhaustedError("too many attempts"), wait);
}

}  // namespace

absl::Status ValidateRoleAccounts(const config::v1::AuthnConfig& config) {
  std::set<ServiceAccount> of_platforms;
  for (const auto& platform : config.platforms()) {
    for (const std::string& text : platform.service_accounts()) {
      if (const auto account = platforms::ParseServiceAccount(text, platforms::OnlyCluster(config));
          account.has_value()) {
        of_platforms.insert(*account);
      }
    }
  }
  const auto& roles = config.roles();
  std::vector<absl::Status> checks;
  for (const auto& [list, accounts] :
       {std::pair("adminServiceAccounts", &roles.admin_service_accounts()),
        std::pair("credentialAdminServiceAccounts", &roles.credential_admin_service_accounts()),
        std::pair("auditorServiceAccounts", &roles.auditor_service_accounts())}) {
    for (int i = 0; i < accounts->size(); ++i) {
      checks.push_back(CheckAccount(absl::StrCat("roles.", list, "[", i, "]"), accounts->Get(i), config, of_platforms));
    }
  }
  return MergeViolations(checks);
}

bool AccountSignIn::HasRole(const ServiceAccount& account) const {
  Identity identity;
  identity.subject = SubjectOf(account);
  return !parts_.roles.RolesOf(identity).empty();
}

void AccountSignIn::LogRefusal(absl::string_view check, absl::Time now) {
  uint64_t unlogged = 0;
  {
    MutexLock lock(mu_);
    if (!lines_.Take(now)) {
      ++unlogged_;
      return;
    }
    unlogged = std::exchange(unlogged_, 0);
  }
  Log(LogLevel::kInfo, "service_account_refused", {{"check", check}, {"unlogged", unlogged}});
}

absl::StatusOr<MintedToken> AccountSignIn::Refuse(const absl::Status& why, absl::string_view client_address,
                                                  absl::Time now) {
  if (!absl::IsUnauthenticated(why)) {
    // What is wrong with the cluster, and where it is, is in the log of what asked it: nothing for strangers.
    return WithRetryAfter(KeysUnavailable("the service-account token cannot be verified now"),
                          std::max(DetailOf(why).retry_after, kRetryAfter));
  }
  LogRefusal(ReasonOf(why), now);
  // Whose token it was is not known: nobody has vouched for it.
  audit::v1::Event event = MakeEvent(kEvent, audit::v1::DECISION_DENIED, "");
  event.set_rule(ReasonOf(why));
  event.set_client_address(std::string(client_address.substr(0, kMaxAddress)));
  RETURN_IF_ERROR(refused_.Record(parts_.audit, std::move(event), now));
  return ServiceAccountRefused();
}

absl::StatusOr<MintedToken> AccountSignIn::Redeem(absl::string_view token, absl::string_view client_address,
                                                  absl::Time now) {
  // The address first: what it is refused takes nothing from the others.
  if (const absl::Duration wait = by_address_.Take(CountedAddress(client_address), now); wait > absl::ZeroDuration()) {
    return TooMany(wait);
  }
  if (!attempts_.Take(now)) {
    return TooMany(attempts_.RetryAfter(now));
  }
  const absl::StatusOr<platforms::VerifiedAccount> verified = clusters_->Verify(
      absl::StripAsciiWhitespace(token), [this](const ServiceAccount& account) { return HasRole(account); }, now);
  if (!verified.ok()) {
    return Refuse(verified.status(), client_address, now);
  }
  // Where the cluster's keys verify a token, nobody has asked yet.
  if (!HasRole(verified->account)) {
    return Refuse(InvalidToken("unknown_account"), client_address, now);
  }
  if (verified->expires_at - now < absl::Seconds(1)) {
    return Refuse(InvalidToken("expired"), client_address, now);
  }
  const std::string subject = SubjectOf(verified->account);
  ASSIGN_OR_RETURN(MintedToken minted, parts_.tokens.MintApi({.subject = subject,
                                                              .client_id = kCliClientId,
                                                              .grant_id = "",
                                                              .roles = {},
                                                              .not_after = verified->expires_at},
                                                             now));
  audit::v1::Event event = MakeEvent(kEvent, audit::v1::DECISION_ALLOWED, subject);
  event.set_client_id(kCliClientId);
  event.set_client_address(std::string(client_address.substr(0, kMaxAddress)));
  RETURN_IF_ERROR(parts_.audit.Record(std::move(event)));
  return minted;
}

}  // namespace sallyport::authn

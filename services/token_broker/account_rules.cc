// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/account_rules.h"

#include "absl/strings/ascii.h"

namespace sallyport::token_broker {
namespace {

using registry::v1::App;

bool IsOfSignInsDomain(const v1::TokenSet::Account& account, const Passport& passport) {
  const std::string domain = passport.email_verified ? DomainOf(passport.email) : "";
  return !domain.empty() && DomainOf(account.email()) == domain;
}

}  // namespace

bool ComparesAccounts(const App::AccountIdentity& rules) { return rules.same_account() != App::ANY; }

AccountVerdict JudgeAccount(const App::AccountIdentity& rules, const v1::TokenSet::Account* former,
                            const v1::TokenSet::Account& now, const Passport& passport) {
  const bool by_domain = rules.account_domain() == App::SAME_AS_SIGN_IN;
  const bool required = rules.same_account() == App::REQUIRED;
  if ((required && now.id().empty()) || (by_domain && now.email().empty())) {
    return AccountVerdict::kRefusedUnknown;
  }
  if (by_domain && !IsOfSignInsDomain(now, passport)) {
    return AccountVerdict::kRefusedDomain;
  }
  const bool another = former != nullptr && !former->id().empty() && !now.id().empty() && former->id() != now.id();
  if (!another || !ComparesAccounts(rules)) {
    return AccountVerdict::kTaken;
  }
  return required ? AccountVerdict::kRefusedAnother : AccountVerdict::kAnother;
}

std::string RefusalOf(AccountVerdict verdict) {
  switch (verdict) {
    case AccountVerdict::kRefusedAnother:
      return "account_changed";
    case AccountVerdict::kRefusedUnknown:
      return "account_unknown";
    case AccountVerdict::kRefusedDomain:
      return "account_domain";
    case AccountVerdict::kTaken:
    case AccountVerdict::kAnother:
      break;
  }
  return "";
}

std::string DomainOf(absl::string_view email) {
  const size_t at = email.rfind('@');
  return at == absl::string_view::npos || at == 0 ? "" : absl::AsciiStrToLower(email.substr(at + 1));
}

}  // namespace sallyport::token_broker

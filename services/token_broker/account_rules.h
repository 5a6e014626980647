// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"

#include "common/caller/passport.h"
#include "sallyport/registry/v1/mcp_server.pb.h"
#include "sallyport/token_broker/v1/token_set.pb.h"

namespace sallyport::token_broker {

// Whether an account may be linked (App.account_identity). Pure.
enum class AccountVerdict {
  kTaken,
  kAnother,         // Another one than before: its user has to confirm.
  kRefusedAnother,  // Another one than before, which the app does not take.
  kRefusedUnknown,  // The provider has not said which account it is, or no verified email address of it.
  kRefusedDomain,   // Its email address is of another domain than that of the user's sign-in.
};

// What `now` was linked in place of, null: of nothing, or of an account that nobody knows.
AccountVerdict JudgeAccount(const registry::v1::App::AccountIdentity& rules, const v1::TokenSet::Account* former,
                            const v1::TokenSet::Account& now, const Passport& passport);
// Whether the former account counts for the verdict at all.
bool ComparesAccounts(const registry::v1::App::AccountIdentity& rules);

// For audit and pages: "account_changed", "account_unknown", "account_domain"; empty for no refusal.
std::string RefusalOf(AccountVerdict verdict);

// Of an email address, in lower case; empty if it has none.
std::string DomainOf(absl::string_view email);

}  // namespace sallyport::token_broker

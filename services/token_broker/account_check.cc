// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/account_check.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/text/utf8.h"
#include "services/token_broker/names.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

// An upstream that refuses so many renewed tokens in a row, 30 s apart, has not only stumbled: perhaps another account
// helps.
constexpr int kRenewalsBeforeLink = 5;

// The account is linked, and its provider renews it: connecting it again would change nothing.
absl::Status RenewedTokenRefused(const std::string& app, absl::Duration retry_after) {
  return WithDetail(
      absl::UnavailableError(absl::StrCat("the server refuses the token that ", Utf8Prefix(app, 64),
                                          " has just renewed; your account is still connected, try again")),
      {.reason = kRenewedTokenRefused, .retry_after = std::max(retry_after, absl::Seconds(1))});
}

}  // namespace

absl::StatusOr<AccountCheck> CheckAccount(const registry::v1::App& app, const SecretReader::Binding& binding,
                                          const ConnectionView& view, const std::vector<std::string>& needed,
                                          absl::Time now) {
  AccountCheck check;
  const bool linked = view.state == ConnectionView::State::kLinked;
  // Linked when another binding said where its tokens may go: one that was made anew does not speak for it.
  const std::string& linked_under = view.provenance.binding();
  const bool stranger = linked && !linked_under.empty() && !binding.pending && linked_under != binding.name;
  check.unsealed = linked && linked_under.empty() && !binding.pending;
  if (linked && view.refused_again && view.forced_in_a_row < kRenewalsBeforeLink) {
    return RenewedTokenRefused(NameOf(app), view.forced_next - now);
  }
  if (stranger || !linked || view.refused_again) {
    const bool absent = view.state == ConnectionView::State::kAbsent;
    check.link = absent ? v1::LinkRequired::NOT_LINKED : v1::LinkRequired::NEEDS_REAUTH;
  } else if (!MissingScopes(view.scopes, needed).empty()) {
    check.link = v1::LinkRequired::MISSING_SCOPE;
  }
  return check;
}

}  // namespace sallyport::token_broker

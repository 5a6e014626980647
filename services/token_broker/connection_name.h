// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sallyport::token_broker {

// Names of connections: "<app uid>" is a user's default account of an app, "<app uid>/<label>" another one of theirs,
// "sso:<connector>" what a sign-in gave. In "<app uid>/~<label>" stands, for a few minutes, an account that its user
// has still to confirm (waiting_links.h); no label begins like that.

// `label` is empty for the default account.
std::string ConnectionName(absl::string_view app_uid, absl::string_view label);
std::string WaitingName(absl::string_view app_uid, absl::string_view label);
// Of a sign-in the whole name.
std::string AppUidOf(const std::string& connection);
// Empty for the default account and for a sign-in.
std::string AccountLabelOf(const std::string& connection);
bool IsWaitingName(absl::string_view connection);

// INVALID_ARGUMENT naming `field`, unless `label` is empty or 1 to 64 of letters, digits and "._@+-".
absl::Status CheckAccountLabel(absl::string_view field, absl::string_view label);

}  // namespace sallyport::token_broker

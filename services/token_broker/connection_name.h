// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sallyport::token_broker {

// Names of connections: "<app uid>" is a user's default account of an app, "<app uid>/<label>" another one of theirs,
// "sso:<connector>" what a sign-in gave. In "<app uid>/~<label>" stands, for a few minutes, an account that its user
// has still to confirm (waiting_links.h); no label begins like that.

enum class ConnectionKind {
  kAccount,  // Of an app, whatever its label.
  kSignIn,   // Of an identity provider: no user has linked it, and it ends with the sign-in.
  kWaiting,  // An account that its user has still to confirm.
};
// Of a connection's name, or of what AppUidOf makes of one.
ConnectionKind KindOf(absl::string_view connection);

// `label` is empty for the default account.
std::string ConnectionName(absl::string_view app_uid, absl::string_view label);
std::string WaitingName(absl::string_view app_uid, absl::string_view label);
std::string SignInName(absl::string_view connector);
// Of the name of a sign-in's connection.
std::string ConnectorIn(absl::string_view sign_in);
// Of a sign-in the whole name.
std::string AppUidOf(const std::string& connection);
// Empty for the default account and for a sign-in.
std::string AccountLabelOf(const std::string& connection);

// INVALID_ARGUMENT naming `field`, unless `label` is empty or 1 to 64 of letters, digits and "._@+-".
absl::Status CheckAccountLabel(absl::string_view field, absl::string_view label);

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/connection_name.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/error.h"
#include "common/text/label.h"

namespace sallyport::token_broker {
namespace {

constexpr char kWaiting[] = "~";
constexpr absl::string_view kSignIn = "sso:";

}  // namespace

std::string ConnectionName(absl::string_view app_uid, absl::string_view label) {
  return label.empty() ? std::string(app_uid) : absl::StrCat(app_uid, "/", label);
}

std::string WaitingName(absl::string_view app_uid, absl::string_view label) {
  return absl::StrCat(app_uid, "/", kWaiting, label);
}

std::string SignInName(absl::string_view connector) { return absl::StrCat(kSignIn, connector); }

std::string ConnectorIn(absl::string_view sign_in) { return std::string(absl::StripPrefix(sign_in, kSignIn)); }

std::string AppUidOf(const std::string& connection) { return connection.substr(0, connection.find('/')); }

std::string AccountLabelOf(const std::string& connection) {
  const size_t slash = connection.find('/');
  return slash == std::string::npos ? "" : connection.substr(slash + 1);
}

ConnectionKind KindOf(absl::string_view connection) {
  if (absl::StartsWith(connection, kSignIn)) {
    return ConnectionKind::kSignIn;
  }
  const size_t slash = connection.find('/');
  return slash != absl::string_view::npos && absl::StartsWith(connection.substr(slash + 1), kWaiting)
             ? ConnectionKind::kWaiting
             : ConnectionKind::kAccount;
}

absl::Status CheckAccountLabel(absl::string_view field, absl::string_view label) {
  if (label.empty() || IsLabel(label)) {
    return absl::OkStatus();
  }
  return InvalidField(std::string(field), "must be 1 to 64 letters, digits or ._@+-");
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "sallyport/registry/v1/mcp_server.pb.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/secret_reader.h"

namespace sallyport::token_broker {

// Whether the token of a user's account of an app may be given out.
struct AccountCheck {
  // What its user has to mend; nothing: it may.
  std::optional<v1::LinkRequired::Reason> link;
  // It is of an earlier release, and has to be sealed anew with where it came from.
  bool unsealed = false;
};
// `needed`: scopes it must have been given for. UNAVAILABLE reason renewed_token_refused, with retry_after, if the
// account is linked, and whoever asks was refused what its provider has just renewed.
absl::StatusOr<AccountCheck> CheckAccount(const registry::v1::App& app, const SecretReader::Binding& binding,
                                          const ConnectionView& view, const std::vector<std::string>& needed,
                                          absl::Time now);

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Links that a user has begun and not come back from. Each is a record of the vault, named by the hash of the `state`
// that the browser carries (RFC 6749 section 10.12). A user has at most ten of an app; one more replaces the oldest, so
// that nobody can fill the store by beginning links. Thread-safe, blocking.
class PendingLinks {
 public:
  // `vault` outlives this.
  explicit PendingLinks(VaultClient& vault) : vault_(vault) {}

  // Random, with a hash of user and app at the end, by which their links are counted.
  static std::string NewState(const std::string& subject, const std::string& app_uid);
  static vault::v1::RecordName RecordOf(absl::string_view state);
  // Deletes the oldest beyond ten. Call it after the link of `state` was stored: then the last of several that are
  // begun at once counts them all.
  absl::Status Bound(absl::string_view state);

 private:
  VaultClient& vault_;
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Links that were begun and have not come back: a record of the vault each, named by what a browser carries (`state`,
// RFC 6749 section 10.12), of which it holds only the hash. A user has ten of an app at a time; with one more the
// oldest goes, so that nobody fills the store by leaving for a provider again and again. Thread-safe, blocking.
class PendingLinks {
 public:
  // `vault` outlives this.
  explicit PendingLinks(VaultClient& vault) : vault_(vault) {}

  // Random, and tells links of one user and app apart from all others (a hash, which says nothing of either).
  static std::string NewState(const std::string& subject, const std::string& app_uid);
  static vault::v1::RecordName RecordOf(absl::string_view state);
  // To be called once the link of `state` is stored. Links that are begun at once are all counted by the last.
  absl::Status Bound(absl::string_view state);

 private:
  VaultClient& vault_;
};

}  // namespace sallyport::token_broker

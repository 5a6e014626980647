// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "common/secret.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Static secrets and bindings at the version the configuration names. What stands under one version never changes:
// bindings are kept in memory, secrets for 5 minutes, because a vault that was sealed must be noticed. A secret is
// given out for origins only that were sealed with it, whatever the configuration says. Thread-safe, blocking.
class SecretReader {
 public:
  // Both outlive this.
  SecretReader(VaultClient& vault, const Clock& clock) : vault_(vault), clock_(clock) {}

  // For sending it to one of `origins`. `version` 0 is the head and is not kept. FAILED_PRECONDITION reason
  // credential_missing if there is none, PERMISSION_DENIED reason origin_not_allowed if none of `origins` was sealed
  // with it.
  absl::StatusOr<std::shared_ptr<const Secret>> Read(const vault::v1::RecordName& record, int64_t version,
                                                     const std::vector<std::string>& origins);

  // A statement about where tokens may be sent.
  struct Binding {
    std::string name;  // Random; connections hold it.
    std::vector<std::string> origins;
    // There is none, and what an earlier release has stored has not been adopted yet: the configuration decides.
    bool pending = false;

    bool Allows(absl::string_view origin) const;
  };
  // `kind` is "app_binding" or "server_binding", `uid` its app or server. A configuration that names no version means
  // the newest, which is asked for each time. FAILED_PRECONDITION reason credential_missing if there is none.
  absl::StatusOr<std::shared_ptr<const Binding>> ReadBinding(const std::string& kind, const std::string& uid,
                                                             int64_t version);

  // The same from memory; null if it is not there. Never blocks.
  std::shared_ptr<const Binding> KnownBinding(const std::string& kind, const std::string& uid, int64_t version);

  // Forgets a record, by its name.
  void Invalidate(const std::string& name);

 private:
  struct Stored {
    Secret payload;
    std::vector<std::string> origins;
    vault::v1::Bound bound = vault::v1::BOUND_UNSPECIFIED;
  };
  struct Entry {
    std::shared_ptr<const Stored> stored;
    absl::Time until;
  };
  static constexpr size_t kMaxEntries = 4096;

  absl::StatusOr<std::shared_ptr<const Stored>> Get(const vault::v1::RecordName& record, int64_t version);

  VaultClient& vault_;
  const Clock& clock_;
  Mutex mu_;
  // Key: kind, name, version.
  std::map<std::pair<std::string, int64_t>, Entry> entries_ ABSL_GUARDED_BY(mu_);
  // No secrets, and whose users' tokens are still good are to be served while the vault is away.
  std::map<std::pair<std::string, int64_t>, std::shared_ptr<const Binding>> bindings_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/sql/sql.h"
#include "services/vault/keyring.h"
#include "services/vault/store.h"

namespace sallyport::vault {

// The job that follows a rotation: records whose owner's data key is under an older term are sealed anew under a key of
// the active term, and the old key goes with its last record. What is done stays done, so that it may be interrupted at
// any moment and run again, by several replicas at once, while others read and write. Keys are opened and records
// sealed outside the write transactions, for which every other writer of the store waits.
class RewrapJob {
 public:
  struct Result {
    int64_t terms = 0;    // Brought under the provider's current key.
    int64_t keys = 0;     // Old data keys that are gone.
    int64_t records = 0;  // Versions that were sealed anew.
    // Data keys that do not open, or with a version that does not. They stay.
    int64_t damaged = 0;
    int64_t remaining = 0;  // Data keys under older terms.
  };

  // Both must outlive it.
  RewrapJob(Database& database, Keyring& keyring) : database_(database), keyring_(keyring) {}

  // The terms, then at most `limit` data keys.
  absl::StatusOr<Result> Run(int limit);
  // Data keys under terms before the active one.
  static absl::StatusOr<int64_t> Remaining(Transaction& tx);

 private:
  // One old data key on its way.
  struct Moving {
    OwnerKeyRow row;
    std::optional<OwnerKey> old_key;
    std::optional<OwnerKey> new_key;
    // A version of the owner, up to which everything was looked at.
    std::pair<std::string, int64_t> at;
    bool complete = false;  // Everything was.
    bool damaged = false;
    bool settled = false;  // And is counted.
    std::vector<std::pair<VersionRow, std::string>> resealed;
  };
  absl::Status MakeKeys(std::vector<Moving>& moving);
  absl::Status ReadVersions(std::vector<Moving>& moving);
  absl::Status Store(std::vector<Moving>& moving, Result& result);
  void Reseal(Moving& moving, const std::vector<OwnedVersion>& versions) const;

  Database& database_;
  Keyring& keyring_;
};

}  // namespace sallyport::vault

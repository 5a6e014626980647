// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/sql/sql.h"
#include "services/vault/store.h"

// Records whose time has come. However many are due of one app, each step costs the same, so that what is left of them
// keeps nobody else's waiting.
namespace sallyport::vault {

struct DueQuery {
  std::set<std::string> kinds;
  std::set<std::string> without_apps;
  absl::Time now = absl::InfinitePast();
  int limit = 0;
  // Locks the rows for the transaction, and passes over those that another one has locked (PostgreSQL).
  bool lock = false;
};

// Those that nobody is at, oldest first.
absl::StatusOr<std::vector<RecordRow>> ListDueRecords(Transaction& tx, const DueQuery& query);
// Nobody else is told of them before `until`.
absl::Status ClaimRecords(Transaction& tx, const std::vector<RecordRow>& rows, absl::Time until);

inline constexpr int64_t kMaxDueCounted = 100'000;
struct DueCount {
  int64_t due = 0;
  absl::Time oldest = absl::InfinitePast();  // InfinitePast: none is due.
};
// All of them, whoever is at them and of whatever app, up to kMaxDueCounted.
absl::StatusOr<DueCount> CountDue(Transaction& tx, const std::set<std::string>& kinds, absl::Time now);

namespace due_internal {
// The statements, so that a test can ask for their plans. Parameters: kind; now; app; limit.
std::string OfKind();
std::string OfApp();
std::string OldestByApp();
std::string Count();
}  // namespace due_internal

}  // namespace sallyport::vault

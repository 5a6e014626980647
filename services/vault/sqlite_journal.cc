// SPDX-License-Identifier: Apache-2.0
#include "services/vault/sqlite_journal.h"

#include <sqlite3.h>

#include "common/json_log.h"

namespace sallyport::vault {

void TruncateSqliteJournal(const std::string& path) {
  constexpr int kBusyMs = 2000;
  sqlite3* raw = nullptr;
  int result = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE, nullptr);
  if (result == SQLITE_OK) {
    sqlite3_busy_timeout(raw, kBusyMs);
    // A connection that has read nothing does not know of the log, and would checkpoint nothing without an error.
    result = sqlite3_exec(raw, "SELECT COUNT(*) FROM sqlite_master", nullptr, nullptr, nullptr);
  }
  if (result == SQLITE_OK) {
    result = sqlite3_wal_checkpoint_v2(raw, nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
  }
  sqlite3_close(raw);
  if (result != SQLITE_OK) {
    Log(LogLevel::kWarning, "journal_not_truncated", {{"sqlite_code", result}});
  }
}

}  // namespace sallyport::vault

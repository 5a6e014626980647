// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sallyport {
class Database;
}

namespace sallyport::authn::web {

// The steps of a flow that leaves us and comes back: an opaque id in the URL, good once and only in the browser that
// holds the transaction cookie it was made for. The database has the id's hash, and the payload sealed under a key that
// comes from the id. Thread-safe.
class BrowserTransactions {
 public:
  static constexpr absl::Duration kLifetime = absl::Minutes(10);
  static constexpr int kMaxPending = 20'000;

  explicit BrowserTransactions(Database& database) : database_(database) {}

  // A fresh cookie value. The cookie outlives its transactions, so that several flows of a browser share it.
  static std::string NewCookie();
  static bool IsCookie(absl::string_view value);

  // `kind` keeps ids of one flow from being taken for those of another. When too many are pending the oldest go.
  absl::StatusOr<std::string> Begin(absl::string_view cookie, absl::string_view kind, absl::string_view payload,
                                    absl::Time now);
  // The payload; the id stays good. INVALID_ARGUMENT with reason "transaction_mismatch" in another browser, or
  // "transaction_expired" for an id that is unknown, used or too old.
  absl::StatusOr<std::string> Look(absl::string_view id, absl::string_view cookie, absl::string_view kind,
                                   absl::Time now) const;
  // The payload, once. Errors as Look; another browser's attempt does not use it up.
  absl::StatusOr<std::string> Take(absl::string_view id, absl::string_view cookie, absl::string_view kind,
                                   absl::Time now);
  absl::StatusOr<int> Prune(absl::Time now);

 private:
  Database& database_;
};

}  // namespace sallyport::authn::web

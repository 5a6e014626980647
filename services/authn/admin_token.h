// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "services/authn/anonymous_events.h"
#include "services/authn/audit.h"
#include "services/authn/rate_limit.h"

namespace sallyport {
class Database;
}

namespace sallyport::authn {

// The one-time token by which the first administrator comes in: file `admin-token` (0600) in the data directory, its
// SHA-256 in the database. Each replica may have a file of its own; the first redemption of any of them ends them all,
// for good. Thread-safe.
class AdminToken {
 public:
  static constexpr char kFileName[] = "admin-token";

  // `data_directory` empty: no file is made, nothing can be redeemed here but what another replica made.
  AdminToken(Database& database, Audit& audit, std::string data_directory)
      : database_(database),
        audit_(audit),
        data_directory_(std::move(data_directory)),
        by_address_(5, absl::Seconds(12), kMaxAddresses),
        attempts_(300, absl::Milliseconds(100)) {}

  // Writes the file while nobody has redeemed; keeps one that is there and still good. A file left after a redemption
  // is removed.
  absl::Status EnsureFile(absl::Time now);
  // Uses the token up; the event is written with it or neither is. UNAUTHENTICATED for a wrong one or when one was
  // redeemed before; RESOURCE_EXHAUSTED (with retry_after) after 5 attempts at once from an address (one more every
  // 12 s) or 300 from all (10 a second), so that a stranger's attempts do not keep the administrator out. IPv6
  // addresses count by their /64; all callers of unknown address (empty) as one.
  absl::Status Redeem(absl::string_view token, absl::string_view client_address, absl::Time now);

 private:
  // Beyond so many the bucket unused longest is dropped. At the pace of `attempts_` those in need of one are younger.
  static constexpr size_t kMaxAddresses = 10'000;

  absl::StatusOr<bool> IsRedeemed() const;
  std::string path() const { return data_directory_ + "/" + kFileName; }

  Database& database_;
  Audit& audit_;
  const std::string data_directory_;
  RateLimits by_address_;
  RateLimit attempts_;
  AnonymousEvents wrong_;
};

}  // namespace sallyport::authn

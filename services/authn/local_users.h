// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "common/secret.h"
#include "sallyport/config/v1/services.pb.h"

namespace sallyport {
class Database;
}

namespace sallyport::authn {

// Failed sign-ins, counted in the database so that every replica sees them. Always on. Thread-safe.
//   one name from one address   5 in 15 min
//   one name                    30
//   one address                 100
class LoginAttempts {
 public:
  static constexpr absl::Duration kWindow = absl::Minutes(15);
  static constexpr int kPerPair = 5;
  static constexpr int kPerName = 30;
  static constexpr int kPerAddress = 100;

  explicit LoginAttempts(Database& database) : database_(database) {}

  // Counts an attempt before it is made: tries left after this one, or RESOURCE_EXHAUSTED (with retry_after). Names
  // that do not exist are counted like those that do.
  absl::StatusOr<int> Begin(absl::string_view username, absl::string_view address, absl::Time now);
  // It was the right password: the pair's count and this attempt's are taken back.
  absl::Status Succeeded(absl::string_view username, absl::string_view address);
  absl::StatusOr<int> Prune(absl::Time now);

 private:
  Database& database_;
};

// Users of a local connector. Thread-safe.
class LocalUsers {
 public:
  // The user whose password this is, else nullptr; the same time for an unknown name as for a wrong password. At most
  // two passwords are checked at a time (32 MiB each) and eight more wait, 2 s at most: whoever is beyond gets
  // UNAVAILABLE (with retry_after), because each that waits holds a thread that other people's calls need.
  static absl::StatusOr<const config::v1::LocalConnector::User*> Check(const config::v1::LocalConnector& connector,
                                                                       absl::string_view username,
                                                                       const Secret& password);
};

}  // namespace sallyport::authn

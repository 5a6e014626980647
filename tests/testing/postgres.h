// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace sallyport::testing {

// A private PostgreSQL on a unix socket in a temporary directory: started on first use, once for the test program, as
// an unprivileged user; stopped when the program ends.
class TestPostgres {
 public:
  // Starts it unless it runs. FAILED_PRECONDITION where it is not installed: a test that needs it fails then.
  static absl::Status Start();
  // A fresh, empty database: its libpq connection string.
  static absl::StatusOr<std::string> CreateDatabase();
  // Breaks every connection to the databases, as a failover does.
  static void DropConnections();
};

}  // namespace sallyport::testing

// SPDX-License-Identifier: Apache-2.0
#include "common/sql/config.h"

#include "common/files.h"
#include "common/status_macros.h"

namespace sallyport {

absl::StatusOr<Database::Options> DatabaseOptionsFrom(const config::v1::Database& config, const Clock& clock) {
  Database::Options options;
  options.sqlite_path = config.sqlite();
  options.postgresql = config.postgresql();
  if (!config.password_file().empty()) {
    ASSIGN_OR_RETURN(options.password, ReadSecretFile(config.password_file()));
  }
  if (config.pool_size() > 0) {
    options.pool_size = config.pool_size();
  }
  options.clock = &clock;
  return options;
}

}  // namespace sallyport

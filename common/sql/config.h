// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/sql/sql.h"
#include "sallyport/config/v1/common.pb.h"

namespace sallyport {

// Options of the database a configuration names; reads its password file. `clock` must outlive the database. Which
// engine is named, and whether one is, Database::Open checks.
absl::StatusOr<Database::Options> DatabaseOptionsFrom(const config::v1::Database& config, const Clock& clock);

}  // namespace sallyport

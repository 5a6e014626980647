// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/sql/sql.h"
#include "sallyport/audit/v1/audit.pb.h"

namespace sallyport::registry {

// Where the audit events of the whole suite end up. Idempotent by (source, boot, sequence). Names lie in AuditNames,
// not in events.
class AuditStore {
 public:
  static std::vector<std::string> Schema();
  explicit AuditStore(Database& database) : database_(database) {}

  // INVALID_ARGUMENT for an event without source, boot or sequence, for mixed sources and for more than 1,000.
  absl::StatusOr<audit::v1::AppendResponse> Append(const audit::v1::AppendRequest& request);
  absl::StatusOr<audit::v1::ListEventsResponse> List(const audit::v1::ListEventsRequest& request);
  // AuditNames::Erase; `record` writes the event of it in the same transaction.
  absl::StatusOr<audit::v1::EraseNamesResponse> EraseNames(const audit::v1::EraseNamesRequest& request,
                                                           const std::function<absl::Status(Transaction&)>& record);
  absl::Status DeleteBefore(absl::Time before);

 private:
  Database& database_;
};

}  // namespace sallyport::registry

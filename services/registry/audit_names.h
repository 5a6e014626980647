// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/sql/sql.h"
#include "sallyport/audit/v1/audit.pb.h"

namespace sallyport::registry {

// Names of people and clients beside the audit's events, which hold ids only: so that a name can be erased and no event
// changes. What is in a batch counts by its time: the newest name wins, and an event from before an erasure brings none
// back.
class AuditNames {
 public:
  // Clients that registered and that nobody has used yet: anybody can register, so the oldest of them go beyond this
  // number. They displace no client in use.
  static constexpr int kMaxUnusedClients = 10'000;
  // For how long names outlive the events of their time: a grant, whose calls bring no names, lives 30 days after the
  // sign-in that made it.
  static constexpr absl::Duration kLongestUse = absl::Hours(24 * 31);

  static std::vector<std::string> Schema();

  // Takes up the names in a batch of authn's, which alone knows them; those in other services' events are not believed.
  static absl::Status Learn(Transaction& tx, const audit::v1::AppendRequest& batch,
                            int max_unused_clients = kMaxUnusedClients);
  // The event as it is stored, serialized.
  static std::string SerializeWithoutNames(const audit::v1::Event& event);
  // Fills in what is known now.
  static absl::Status Fill(Transaction& tx, audit::v1::ListEventsResponse& events);
  // Whether there was one. INVALID_ARGUMENT unless exactly one of subject and client_id is set.
  static absl::StatusOr<bool> Erase(Transaction& tx, const audit::v1::EraseNamesRequest& request);
  static absl::Status DeleteBefore(Transaction& tx, absl::Time before);
};

}  // namespace sallyport::registry

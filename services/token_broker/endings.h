// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/token_broker/v1/endings.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/due_lane.h"
#include "services/token_broker/ended_subjects.h"
#include "services/token_broker/invalidations.h"
#include "services/token_broker/owed.h"
#include "services/token_broker/revocations.h"
#include "services/token_broker/token_cache.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Carries out what an administrator has ended: connections become revocations that are owed, and of a whole user the
// credentials and keys go as well. The authority is a passport of purpose end that names exactly what the request does.
// Thread-safe, blocking.
class Endings {
 public:
  // All outlive this. `lane`: where revocations are worked on.
  Endings(const ControlStream& control, VaultClient& vault, TokenCache& cache, Invalidations& invalidations,
          EndedSubjects& ended_subjects, Revocations& revocations, DueLane& lane, const AuditLog& audit,
          const Clock& clock);

  // As in the proto. Waits at most 5 s for providers.
  absl::StatusOr<v1::EndConnectionsResponse> End(const v1::EndConnectionsRequest& request, const Passport& passport);

 private:
  using Owed = vault::v1::OweRevocationResponse::Owed;
  struct Page {
    std::vector<Owed> owed;
    bool more = false;
    absl::Status status = absl::OkStatus();  // Of what comes after `owed`.
  };
  // Says of what is named, before it ends, that it is to be read anew: should this process die before it can tell, no
  // replica serves it on. Not of everybody's of an app.
  void Foretell(const Passport::End& what, const Passport& passport);
  // Owes, and tells what has ended, also if not all could be.
  absl::StatusOr<Page> OweAndTell(const Passport::End& what, const Passport& passport);
  absl::StatusOr<Page> Owe(const Passport::End& what, const Passport& passport);
  // One user's accounts of one app.
  absl::StatusOr<Page> OweEach(const Passport::End& what, const Passport& passport);
  absl::StatusOr<Page> OweAll(const vault::v1::OweRevocationRequest& request, const Passport& passport);
  // Here and on every replica, and in the audit of their users.
  absl::Status Tell(const Page& page, const Passport& passport);
  // What is named and is there.
  absl::StatusOr<std::vector<vault::v1::RecordMetadata>> Find(const Passport::End& what, const Passport& passport);
  // After their connections: what they have entered, and the keys.
  // What it owes was linked meanwhile.
  absl::StatusOr<Page> Destroy(const std::string& subject, const Passport& passport,
                               v1::EndConnectionsResponse* response);
  // Has the lane try each once, and adds what came of it, and of what was owed before.
  absl::Status Await(const Page& page, const Passport::End& what, v1::EndConnectionsResponse* response);
  // What was owed before, and is owed still: told again, for whoever has owed it may have died over it.
  absl::StatusOr<std::vector<ConnectionKey>> Earlier(const Passport::End& what, const Page& page);
  v1::EndedConnection Describe(const ConnectionKey& key) const;

  const ControlStream& control_;
  VaultClient& vault_;
  TokenCache& cache_;
  Invalidations& invalidations_;
  EndedSubjects& ended_subjects_;
  Revocations& revocations_;
  DueLane& lane_;
  const AuditLog& audit_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include <grpcpp/channel.h>

#include "common/audit/outbox.h"
#include "common/clock.h"
#include "common/sql/sql.h"
#include "sallyport/audit/v1/audit.pb.h"
#include "services/authn/identity.h"

namespace sallyport::authn {

// Authn's audit trail: events are in the database before the answer leaves, and shipped afterwards. Thread-safe.
class Audit {
 public:
  // `database` and `clock` outlive this. `limit`: AuditOutbox::Options.
  Audit(Database& database, const Clock& clock, int64_t limit = AuditOutbox::kDefaultLimit);

  // As AuditOutbox.
  absl::Status Record(audit::v1::Event event) { return outbox_.Record(std::move(event)); }
  // In the transaction of what the event tells about; call Kick() after the commit.
  absl::Status Append(Transaction& tx, audit::v1::Event event) { return outbox_.Append(tx, std::move(event)); }
  void Kick() { outbox_.Kick(); }

  // Ships to the registry in the background.
  void StartShipping(std::shared_ptr<grpc::Channel> registry);

 private:
  AuditOutbox outbox_;
};

// An event of a decision, ready for its details.
audit::v1::Event MakeEvent(const std::string& type, audit::v1::Decision decision, const std::string& subject);

// Names beside an event's subject and client_id, for events of somebody who signs in or of a client that registers: the
// registry keeps them apart, where they can be erased. Not for what goes on afterwards without the person (a refresh),
// which would bring back a name that was erased.
void NameUser(absl::string_view name, absl::string_view email, audit::v1::Event& event);
void NameUser(const Identity& user, audit::v1::Event& event);
// `name` as the client gave it.
void NameClient(absl::string_view name, audit::v1::Event& event);

}  // namespace sallyport::authn

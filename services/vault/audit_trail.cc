// SPDX-License-Identifier: Apache-2.0
#include "services/vault/audit_trail.h"

#include "absl/strings/str_cat.h"

#include "common/metrics.h"

namespace sallyport::vault {

audit::v1::Event MakeEvent(absl::string_view type, audit::v1::Decision decision, absl::string_view rule,
                           const Caller& caller) {
  audit::v1::Event event;
  event.set_type(std::string(type));
  event.set_decision(decision);
  event.set_rule(std::string(rule));
  event.set_subject(caller.passport.has_value() ? caller.passport->subject : caller.service);
  if (caller.passport.has_value()) {
    event.set_client_id(caller.passport->client_id);
    event.set_server_uid(caller.passport->server_uid);
    event.set_actor(caller.passport->actor);
  }
  (*event.mutable_details())["caller"] = caller.service;
  return event;
}

void SetRecord(const RecordId& id, int64_t version, int64_t generation, audit::v1::Event& event) {
  auto& details = *event.mutable_details();
  details["owner"] = absl::StrCat(id.owner.type, ":", id.owner.id);
  details["kind"] = id.kind;
  details["name"] = id.name;
  if (version != 0) {
    details["version"] = absl::StrCat(version);
  }
  if (generation != 0) {
    details["generation"] = absl::StrCat(generation);
  }
}

namespace {

constexpr CounterInfo kFailures = {
    .name = "sallyport_vault_audit_failures_total",
    .help = "Answers withheld because their audit event was not durable in time",
    .unit = "answers",
    .rise = "The vault's store is slow, full or down; users are refused meanwhile",
    .action = "Look at the disk or the PostgreSQL server of the vault",
};

}  // namespace

AuditTrail::AuditTrail(AuditOutbox& outbox) : outbox_(outbox), failures_(MetricCounter(kFailures)) {}

absl::Status AuditTrail::Record(audit::v1::Event event) {
  absl::Status recorded = outbox_.Record(std::move(event));
  if (!recorded.ok()) {
    failures_.Increment();
  }
  return recorded;
}

}  // namespace sallyport::vault

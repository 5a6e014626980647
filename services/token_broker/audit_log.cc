// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/audit_log.h"

#include <utility>

#include "common/error.h"
#include "common/json_log.h"

namespace sallyport::token_broker {

audit::v1::Event EventOf(const AuditLog::Entry& entry) {
  audit::v1::Event event;
  event.set_type(entry.type);
  event.set_decision(entry.decision);
  event.set_rule(entry.rule);
  event.set_subject(entry.subject);
  event.set_actor(entry.actor);
  event.set_client_address(entry.client_address);
  event.set_server_uid(entry.server_uid);
  event.set_server_slug(entry.server_slug);
  for (const audit::v1::CredentialUse& credential : entry.credentials) {
    *event.add_credentials() = credential;
  }
  for (const auto& [name, value] : entry.details) {
    (*event.mutable_details())[name] = value;
  }
  return event;
}

absl::Status NotRecorded() {
  return WithRetryAfter(WithReason(absl::UnavailableError("the decision could not be recorded"), "audit_unavailable"),
                        absl::Seconds(1));
}

absl::Status AuditLog::Record(const Entry& entry) const { return RecordAll({entry}); }

absl::Status AuditLog::RecordAll(const std::vector<Entry>& entries) const {
  if (segments_ == nullptr || entries.empty()) {
    return absl::OkStatus();
  }
  std::vector<audit::v1::Event> events;
  events.reserve(entries.size());
  for (const Entry& entry : entries) {
    events.push_back(EventOf(entry));
  }
  const absl::Status status = segments_->AppendAll(events);
  if (!status.ok()) {
    Log(LogLevel::kError, "audit_write_failed",
        {{"type", entries.front().type}, {"events", entries.size()}, {"status", status}});
    return NotRecorded();
  }
  return absl::OkStatus();
}

audit::v1::CredentialUse UseOf(const std::string& uid, int64_t generation, int64_t version) {
  audit::v1::CredentialUse use;
  use.set_piece("app_auth");
  use.set_uid(uid);
  use.set_generation(generation);
  use.set_version(version);
  return use;
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "common/audit/segment.h"
#include "sallyport/audit/v1/audit.pb.h"

namespace sallyport::token_broker {

// Decisions of the broker, on disk before they are answered. Thread-safe.
class AuditLog {
 public:
  struct Entry {
    std::string type;  // "link.started"
    audit::v1::Decision decision = audit::v1::DECISION_ALLOWED;
    std::string rule;
    std::string subject;
    std::string actor = {};  // Id of the platform that acted for the subject.
    std::string client_address;
    std::string server_uid;
    std::string server_slug;
    std::vector<audit::v1::CredentialUse> credentials;
    std::vector<std::pair<std::string, std::string>> details;
  };

  // Outlives this; null: nothing is recorded (tests).
  explicit AuditLog(AuditSegments* segments) : segments_(segments) {}

  // UNAVAILABLE with retry_after if it could not be written: then what it records must not happen, or not be answered.
  absl::Status Record(const Entry& entry) const;
  // The same of several, with one sync: all of them or none.
  absl::Status RecordAll(const std::vector<Entry>& entries) const;

 private:
  AuditSegments* const segments_;
};

audit::v1::Event EventOf(const AuditLog::Entry& entry);

// UNAVAILABLE reason audit_unavailable, with retry_after.
absl::Status NotRecorded();

audit::v1::CredentialUse UseOf(const std::string& uid, int64_t generation, int64_t version);

}  // namespace sallyport::token_broker

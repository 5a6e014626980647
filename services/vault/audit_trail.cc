// SPDX-License-Identifier: Apache-2.0
#include "services/vault/audit_trail.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/json_log.h"
#include "common/metrics.h"
#include "common/status_macros.h"
#include "services/vault/errors.h"

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

AuditTrail::AuditTrail(Database& database, AuditOutbox& outbox)
    : database_(database), outbox_(outbox), thread_([this] { Run(); }) {}

AuditTrail::~AuditTrail() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

absl::Status AuditTrail::Record(audit::v1::Event event) {
  std::future<absl::Status> done;
  {
    MutexLock lock(mu_);
    if (stopping_ || waiting_.size() >= kMaxWaiting) {
      return error::AuditUnavailable();
    }
    waiting_.push_back({std::move(event), {}});
    done = waiting_.back().done.get_future();
  }
  changed_.notify_one();
  if (done.wait_for(absl::ToChronoMilliseconds(kBudget)) != std::future_status::ready || !done.get().ok()) {
    static prometheus::Counter& failures = MetricCounter(
        "sallyport_vault_audit_failures_total", "Answers withheld because their audit event was not durable in time");
    failures.Increment();
    return error::AuditUnavailable();
  }
  return absl::OkStatus();
}

void AuditTrail::Run() {
  while (true) {
    std::deque<Waiting> batch;
    {
      MutexLock lock(mu_);
      while (waiting_.empty() && !stopping_) {
        changed_.wait(mu_);
      }
      if (waiting_.empty()) {
        return;
      }
      batch.swap(waiting_);
    }
    Write(batch);
  }
}

void AuditTrail::Write(std::deque<Waiting>& batch) {
  const absl::Status written = database_.Write([&](Transaction& tx) -> absl::Status {
    for (const Waiting& waiting : batch) {
      RETURN_IF_ERROR(outbox_.Append(tx, waiting.event));
    }
    return absl::OkStatus();
  });
  if (written.ok()) {
    outbox_.Kick();
  } else {
    Log(LogLevel::kError, "audit_write_failed", {{"error", written}, {"events", batch.size()}});
  }
  for (Waiting& waiting : batch) {
    waiting.done.set_value(written);
  }
}

}  // namespace sallyport::vault

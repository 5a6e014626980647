// SPDX-License-Identifier: Apache-2.0
#include "services/authn/audit.h"

#include <chrono>
#include <optional>
#include <utility>

#include "common/error.h"
#include "common/json_log.h"
#include "common/status_macros.h"

namespace sallyport::authn {
namespace {

constexpr size_t kMaxWaiting = 10'000;

AuditOutbox::Options OutboxOptions() {
  AuditOutbox::Options options;
  options.source = "authn";
  return options;
}

absl::Status Unwritten() {
  return WithReason(absl::UnavailableError("the audit event cannot be written"), "audit_unavailable");
}

}  // namespace

struct Audit::Waiting {
  audit::v1::Event event;
  std::optional<absl::Status> result;  // Guarded by mu_.
};

Audit::Audit(Database& database, const Clock& clock)
    : database_(database), outbox_(database, clock, OutboxOptions()), writer_([this] { Run(); }) {}

Audit::~Audit() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  changed_.notify_all();
  writer_.join();
}

absl::Status Audit::Record(audit::v1::Event event) {
  auto waiting = std::make_shared<Waiting>();
  waiting->event = std::move(event);
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(kLimit);
  MutexLock lock(mu_);
  if (stop_ || queue_.size() >= kMaxWaiting) {
    return Unwritten();
  }
  queue_.push_back(waiting);
  changed_.notify_all();
  while (!waiting->result.has_value()) {
    if (changed_.wait_until(mu_, deadline) == std::cv_status::timeout && !waiting->result.has_value()) {
      return Unwritten();
    }
  }
  return waiting->result->ok() ? absl::OkStatus() : Unwritten();
}

void Audit::WriteBatch(const std::vector<std::shared_ptr<Waiting>>& batch) {
  const absl::Status status = database_.Write([&](Transaction& tx) -> absl::Status {
    for (const auto& waiting : batch) {
      RETURN_IF_ERROR(outbox_.Append(tx, waiting->event));
    }
    return absl::OkStatus();
  });
  if (!status.ok()) {
    Log(LogLevel::kError, "audit_write_failed", {{"status", status}, {"events", batch.size()}});
  }
  {
    MutexLock lock(mu_);
    for (const auto& waiting : batch) {
      waiting->result = status;
    }
  }
  changed_.notify_all();
  outbox_.Kick();
}

void Audit::Run() {
  while (true) {
    std::vector<std::shared_ptr<Waiting>> batch;
    {
      MutexLock lock(mu_);
      while (queue_.empty() && !stop_) {
        changed_.wait(mu_);
      }
      if (queue_.empty()) {
        return;
      }
      batch.swap(queue_);
    }
    WriteBatch(batch);
  }
}

void Audit::StartShipping(std::shared_ptr<grpc::Channel> registry) {
  outbox_.StartShipping(MakeAuditSink(std::move(registry)));
}

audit::v1::Event MakeEvent(const std::string& type, audit::v1::Decision decision, const std::string& subject) {
  audit::v1::Event event;
  event.set_type(type);
  event.set_decision(decision);
  event.set_subject(subject);
  return event;
}

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/platform_records.h"

#include <utility>

#include "common/error.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/text/utf8.h"
#include "services/authn/platforms/platform_policy.h"

namespace sallyport::authn::platforms {
namespace {

constexpr char kAdmitted[] = "admitted";
constexpr char kIdentified[] = "identified";
constexpr char kUnavailable[] = "unavailable";
constexpr char kNoPlatform[] = "platform_unknown";
constexpr const char* kReasons[] = {"subject_token_invalid", "platform_not_granted"};
constexpr size_t kMaxText = 256;

constexpr CounterInfo kRequests = {
    .name = "sallyport_authn_platform_requests_total",
    .help = "Questions of the token broker which platform calls, and for whom",
    .unit = "questions",
    .labels = {{"platform", "id of a configured platform; unknown: none that is configured"},
               {"outcome",
                "admitted, identified (no user was named), subject_token_invalid, platform_not_granted, "
                "platform_unknown, unavailable"}},
    .rise =
        "platform_unknown: a certificate or service account is not configured. unavailable: a cluster or identity "
        "provider does not answer",
    .action = "The log event `platform_refused` has the check that failed",
};

prometheus::Counter* CounterOf(const std::string& platform, const char* outcome) {
  return &MetricCounter(kRequests, {{"platform", platform}, {"outcome", outcome}});
}

bool IsRefusal(const absl::Status& status) {
  return absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status);
}

std::string OutcomeName(const PlatformOutcome& outcome) {
  const absl::Status& status = outcome.response.status();
  if (status.ok()) {
    return outcome.response->passport().empty() ? kIdentified : kAdmitted;
  }
  return IsRefusal(status) ? ReasonOf(status) : kUnavailable;
}

audit::v1::Event MakePlatformEvent(const PlatformOutcome& outcome) {
  const absl::Status& status = outcome.response.status();
  audit::v1::Event event = MakeEvent(status.ok() ? "platform.admitted" : "platform.denied",
                                     status.ok() ? audit::v1::DECISION_ALLOWED : audit::v1::DECISION_DENIED,
                                     std::string(Utf8Prefix(outcome.subject, kMaxText)));
  event.set_actor(outcome.platform);
  event.set_client_id(std::string(Utf8Prefix(outcome.client_id, kMaxText)));
  event.set_rule(outcome.rule);
  event.set_status(static_cast<int>(status.code()));
  (*event.mutable_details())["proof"] = outcome.proof;
  (*event.mutable_details())["user"] = outcome.user;
  if (!outcome.check.empty()) {
    (*event.mutable_details())["check"] = outcome.check;
  }
  if (status.ok() && outcome.names_user) {
    NameUser(outcome.response->principal().name(), outcome.response->principal().email(), event);
  }
  return event;
}

}  // namespace

PlatformRecords::PlatformRecords(Audit& audit, const std::vector<std::string>& platforms) : audit_(audit) {
  // There from the start: an alert must see the first refusal as a rise from 0.
  for (const char* outcome : {kNoPlatform, kUnavailable}) {
    series_[kUnknownPlatform].by_outcome[outcome] = CounterOf(kUnknownPlatform, outcome);
  }
  for (const std::string& platform : platforms) {
    auto& by_outcome = series_[platform].by_outcome;
    for (const char* outcome : {kAdmitted, kIdentified, kUnavailable, kReasons[0], kReasons[1]}) {
      by_outcome[outcome] = CounterOf(platform, outcome);
    }
  }
}

void PlatformRecords::LogRefusal(const PlatformOutcome& outcome, Series& series, absl::Time now) const {
  const absl::Status& status = outcome.response.status();
  uint64_t unlogged = 0;
  {
    MutexLock lock(series.mu);
    if (!series.lines.Take(now)) {
      ++series.unlogged;
      return;
    }
    unlogged = std::exchange(series.unlogged, 0);
  }
  Log(LogLevel::kInfo, "platform_refused",
      {{"platform", outcome.platform.empty() ? kUnknownPlatform : outcome.platform},
       {"reason", ReasonOf(status)},
       {"check", outcome.check},
       {"unlogged", unlogged}});
}

absl::Status PlatformRecords::Note(const PlatformOutcome& outcome, absl::Time now) {
  const absl::Status& status = outcome.response.status();
  const auto found = series_.find(outcome.platform);
  Series& series = found == series_.end() ? series_.find(kUnknownPlatform)->second : found->second;
  const auto counter = series.by_outcome.find(OutcomeName(outcome));
  (counter == series.by_outcome.end() ? series.by_outcome.find(kUnavailable) : counter)->second->Increment();
  if (!status.ok()) {
    LogRefusal(outcome, series, now);
  }
  if (outcome.platform.empty()) {
    return absl::OkStatus();
  }
  if (IsRefusal(status)) {
    return series.denials.Record(audit_, MakePlatformEvent(outcome), now);
  }
  // Who it is alone gives nothing away.
  const bool admitted = status.ok() && !outcome.response->passport().empty();
  return admitted ? audit_.Record(MakePlatformEvent(outcome)) : absl::OkStatus();
}

}  // namespace sallyport::authn::platforms

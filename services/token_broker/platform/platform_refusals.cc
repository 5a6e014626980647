// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_refusals.h"

#include "absl/strings/str_cat.h"

#include "common/text/utf8.h"

namespace sallyport::token_broker {
namespace {

constexpr size_t kMaxPlatforms = 1'000;
constexpr size_t kShown = 64;

// As what would have been recorded had it been allowed; nothing is for lists.
const char* TypeOf(PlatformMethod method) {
  switch (method) {
    case PlatformMethod::kGetToken:
      return "platform.token";
    case PlatformMethod::kListConnections:
      return "platform.connections";
    case PlatformMethod::kStartLink:
      return "link.offered";
    case PlatformMethod::kDisconnect:
      return "link.disconnected";
  }
  return "platform.token";
}

}  // namespace

PlatformRefusals::PlatformRefusals(DeferredAudit& audit, const Clock& clock)
    : audit_(audit), clock_(clock), budgets_(kMaxPlatforms) {}

void PlatformRefusals::Note(const Refusal& refusal) {
  AuditLog::Entry entry{.type = TypeOf(refusal.method), .decision = audit::v1::DECISION_DENIED, .rule = refusal.rule};
  entry.subject = refusal.subject;
  entry.actor = refusal.platform;
  if (!refusal.app.empty()) {
    entry.details.emplace_back("app", std::string(Utf8Prefix(refusal.app, kShown)));
  }
  MutexLock lock(mu_);
  int64_t& unrecorded = unrecorded_[refusal.platform];
  if (budgets_.Take(refusal.platform, kRecorded, clock_.Elapsed()) > absl::ZeroDuration()) {
    ++unrecorded;
    return;
  }
  if (unrecorded > 0) {
    entry.details.emplace_back("unrecorded", absl::StrCat(unrecorded));
  }
  if (audit_.Record(entry, clock_.Now()).ok()) {
    unrecorded = 0;
  } else {
    ++unrecorded;
  }
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/status_macros.h"
#include "services/registry/catalog.h"
#include "services/registry/config_event.h"

// Deleted apps, which are kept until their users' tokens are revoked.
namespace sallyport::registry {
namespace {

// Rules of "config.app_finished".
constexpr char kNothingOwed[] = "nothing_owed";
constexpr char kKeptTooLong[] = "kept_too_long";

audit::v1::Event FinishedEvent(const Store::EndingApp& ending, absl::string_view rule) {
  v1::App app;
  app.ParseFromString(ending.body);  // Of a damaged one the uid says which it was; it goes all the same.
  audit::v1::Event event =
      ConfigEvent("config.app_finished", {ResourceTraits<v1::App>::kKind, ending.uid, app.slug()}, Writer());
  event.set_decision(audit::v1::DECISION_ALLOWED);
  event.set_rule(std::string(rule));
  (*event.mutable_details())["since"] = absl::FormatTime(absl::RFC3339_sec, ending.since, absl::UTCTimeZone());
  return event;
}

}  // namespace

absl::Status Catalog::FinishApp(const std::string& uid) {
  if (uid.empty()) return InvalidField("appUid", "is required");
  return Finish(uid, kNothingOwed);
}

absl::Status Catalog::Finish(const std::string& uid, absl::string_view rule) {
  std::set<std::string> records;
  bool finished = false;
  RETURN_IF_ERROR(ledger_.Step("finish"));
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    records.clear();
    ASSIGN_OR_RETURN(const auto ending, Store::FinishApp(tx, uid));
    finished = ending.has_value();
    if (!finished) return absl::OkStatus();  // Somebody else was faster.
    if (clock_.Now() - ending->since < kLinksInFlight) {
      return absl::FailedPreconditionError("app_uid: was deleted less than a minute ago; ask again then");
    }
    ASSIGN_OR_RETURN(records, SecretLedger::EraseAll(tx, uid));
    RETURN_IF_ERROR(audit_.Append(tx, FinishedEvent(*ending, rule)));
    return ledger_.Step("commit transaction");
  }));
  if (!finished) return absl::OkStatus();
  audit_.Kick();
  ShowEndingApps();
  // Should the vault not answer now, housekeeping goes on.
  if (const absl::Status erased = ledger_.Sweep(records, ""); !erased.ok()) {
    Log(LogLevel::kWarning, "secret_cleanup_failed", {{"status", erased}});
  }
  return absl::OkStatus();
}

absl::Status Catalog::FinishOldApps() {
  const absl::Time before = clock_.Now() - kKeepEnding;
  std::vector<Store::EndingApp> ending;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(ending, Store::ListEndingApps(tx));
    return absl::OkStatus();
  }));
  absl::Status first;
  for (const Store::EndingApp& app : ending) {
    if (app.since > before) continue;
    Log(LogLevel::kWarning, "ending_app_given_up", {{"uid", app.uid}});
    first.Update(Finish(app.uid, kKeptTooLong));
  }
  ShowEndingApps();  // Other replicas have ended and finished some, too.
  return first;
}

void Catalog::ShowEndingApps() {
  size_t ending = 0;
  const absl::Status counted = database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const auto apps, Store::ListEndingApps(tx));
    ending = apps.size();
    return absl::OkStatus();
  });
  if (counted.ok()) ending_apps_.Set(static_cast<double>(ending));
}

}  // namespace sallyport::registry

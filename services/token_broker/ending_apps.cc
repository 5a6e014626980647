// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/ending_apps.h"

#include <utility>
#include <vector>

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "services/token_broker/owed.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(5);

}  // namespace

EndingApps::EndingApps(const std::shared_ptr<grpc::Channel>& registry, const ControlStream& control, VaultClient& vault,
                       Invalidations& invalidations, DueLane& lane, const AuditLog& audit, const Clock& clock)
    : registry_(registry::v1::Registry::NewStub(registry)),
      control_(control),
      vault_(vault),
      invalidations_(invalidations),
      lane_(lane),
      audit_(audit),
      clock_(clock) {}

void EndingApps::See(const RegistrySnapshot& snapshot) {
  if (!snapshot.ending_apps_by_uid.empty()) {
    Schedule(absl::ZeroDuration());
  }
}

void EndingApps::Schedule(absl::Duration delay) {
  MutexLock lock(mu_);
  if (std::exchange(scheduled_, true) || stopping_) {
    return;
  }
  runner_.PostAfter(delay, [this] {
    {
      MutexLock begun(mu_);
      scheduled_ = false;
    }
    if (RunOnce()) {
      Schedule(kInterval * (0.75 + RandomUnit() / 2));
    }
  });
}

void EndingApps::Stop() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  runner_.Stop();
}

bool EndingApps::RunOnce() {
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  for (const auto& [uid, app] : snapshot->ending_apps_by_uid) {
    const absl::StatusOr<bool> left = OweAll(*app);
    const absl::Status status = left.ok() && *left ? Finish(uid) : left.status();
    if (!status.ok()) {
      // A link may be in flight: the registry wants to be asked again.
      const LogLevel level = absl::IsFailedPrecondition(status) ? LogLevel::kDebug : LogLevel::kWarning;
      Log(level, "ending_app_waits", {{"app", app->slug()}, {"status", status}});
    }
  }
  return !snapshot->ending_apps_by_uid.empty();
}

absl::Status EndingApps::Tell(const registry::v1::App& app, const vault::v1::OweRevocationResponse& page) {
  std::vector<Invalidations::Entry> entries;
  for (const auto& owed : page.owed()) {
    entries.push_back({{owed.connection().owner_id(), owed.connection().name()}, owed.generation()});
  }
  invalidations_.Connections(entries, clock_.Now());
  for (const Invalidations::Entry& ended : entries) {
    AuditLog::Entry entry{.type = "link.disconnected", .rule = "app_deleted", .subject = ended.key.subject};
    entry.credentials = {UseOf(app.uid(), ended.generation, 0)};
    entry.details = {{"app", app.slug()}};
    if (const std::string account = AccountLabelOf(ended.key.connection); !account.empty()) {
      entry.details.emplace_back("account", account);
    }
    RETURN_IF_ERROR(audit_.Record(entry));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> EndingApps::OweAll(const registry::v1::App& app) {
  vault::v1::OweRevocationRequest request;
  request.set_app_uid(app.uid());
  bool any = false;
  bool more = true;
  while (more) {
    {
      MutexLock lock(mu_);
      if (stopping_) {
        return false;
      }
    }
    // The vault asks for no passport once the app's binding is gone.
    ASSIGN_OR_RETURN(const vault::v1::OweRevocationResponse page, vault_.OweRevocation(request, ""));
    RETURN_IF_ERROR(Tell(app, page));
    any = any || !page.owed().empty();
    more = page.more() && !page.owed().empty();
  }
  if (any) {
    lane_.Wake();
  }
  // Those that are put off too.
  vault::v1::ListRequest left;
  left.set_owner_type(vault::v1::SYSTEM);
  left.set_owner_id("token_broker");
  left.set_kind(kRevocation);
  left.set_app_uid(app.uid());
  left.set_limit(1);
  ASSIGN_OR_RETURN(const vault::v1::ListResponse owed, vault_.List(left, ""));
  return !any && owed.records().empty();
}

absl::Status EndingApps::Finish(const std::string& app_uid) {
  registry::v1::FinishAppRequest request;
  request.set_app_uid(app_uid);
  registry::v1::FinishAppResponse response;
  const std::unique_ptr<grpc::ClientContext> context = MakeClientContext(absl::Seconds(5));
  const grpc::Status status = registry_->FinishApp(context.get(), request, &response);
  return status.ok() ? absl::OkStatus() : FromGrpcStatus(status);
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/background.h"

#include "services/token_broker/owed.h"

namespace sallyport::token_broker {
namespace {

// Revocations of a provider that never comes back are given up in time all the same.
constexpr absl::Duration kSweep = absl::Minutes(10);

bool Clear(VaultClient& vault, const vault::v1::RecordMetadata& link) {
  vault::v1::DeleteRequest request;
  *request.mutable_record() = link.record();
  request.set_expected_version(link.head());
  vault.Delete(request, "").status().IgnoreError();  // Consumed meanwhile: as good.
  return true;
}

}  // namespace

Background::Background(VaultClient& vault, Renewals& renewals, Revocations& revocations, const Clock& clock,
                       absl::Duration interval)
    : none_(clock),
      renewals_(vault, renewals.pauses(), clock,
                {.name = "renewals", .kind = "connection", .threads = 16, .per_app = 8, .interval = interval},
                [&renewals](const vault::v1::RecordMetadata& due) { return renewals.Work(due); }),
      revocations_(vault, revocations.pauses(), clock,
                   {.name = "revocations", .kind = kRevocation, .threads = 16, .interval = interval, .sweep = kSweep},
                   [&revocations](const vault::v1::RecordMetadata& due) {
                     const bool left_alone = revocations.pauses().IsPaused(AppUidOf(due));
                     return revocations.Attempt(due, /*insist=*/false) != Revocations::Outcome::kPending || !left_alone;
                   }),
      links_(vault, none_, clock,
             {.name = "pending_links", .kind = "link_flow", .threads = 2, .per_app = 2, .interval = interval},
             [&vault](const vault::v1::RecordMetadata& due) { return Clear(vault, due); }) {}

void Background::Start() {
  for (DueLane* lane : {&renewals_, &revocations_, &links_}) {
    lane->Start();
  }
}

void Background::StopTaking() {
  for (DueLane* lane : {&renewals_, &revocations_, &links_}) {
    lane->StopTaking();
  }
}

void Background::Stop() {
  StopTaking();
  for (DueLane* lane : {&renewals_, &revocations_, &links_}) {
    lane->Stop();
  }
}

int Background::RunOnce() {
  int worked_on = 0;
  for (DueLane* lane : {&renewals_, &revocations_, &links_}) {
    worked_on += lane->Drain();
  }
  return worked_on;
}

}  // namespace sallyport::token_broker

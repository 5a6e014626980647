// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include <grpcpp/channel.h>

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "common/rpc/control_stream.h"
#include "sallyport/authn/v1/platforms.grpc.pb.h"
#include "services/token_broker/platform/admission.h"
#include "services/token_broker/platform/admission_cache.h"
#include "services/token_broker/platform/budgets.h"
#include "services/token_broker/platform/showing.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {

// Tells which platform calls, and that it may ask for this user: by what authn says of everything that was shown, which
// is kept until it must be asked again (admission_cache.h). Thread-safe.
class PlatformDoor {
 public:
  using Callback = std::function<void(absl::StatusOr<SharedAdmission>)>;

  // All outlive this.
  PlatformDoor(const std::shared_ptr<grpc::Channel>& authn, const PassportVerifier& verifier,
               const ControlStream& control, PlatformMetrics& metrics, TaskRunner& runner, const Clock& clock);

  // From memory; nothing if authn has to be asked. Never blocks.
  std::optional<AdmissionCache::Answer> Known(const Showing& showing);
  // The platform that was last admitted with these names and this token, for whatever user.
  struct Met {
    std::string platform;
    double rate_limit = 0;
    int rate_burst = 0;
    PlatformCounters* counters = nullptr;
    absl::Duration last;
  };
  std::optional<Met> MetAs(const Showing& showing) const;
  // Asks authn, once for all who show the same; `done` runs on another thread, or at once where nobody is asked. What
  // is shown for another user than one that is being asked about waits: with a caller who was never admitted until it
  // is known who that is, with a platform while it has many questions. Errors as in platforms.proto; RESOURCE_EXHAUSTED
  // reason too_many_callers with retry_after for strangers whose guesses are too many, and for platforms that bring too
  // many users at once.
  void Ask(const Showing& showing, Callback done);

  // What has ended meanwhile.
  void Obey(const ControlUpdate& update);

 private:
  struct Flight {
    uint64_t mark = 0;
    bool stranger = false;
    std::string identity;
    std::string address;
    authn::v1::AuthenticatePlatformRequest request;
    std::vector<Callback> waiters;
  };
  struct Parked {
    Showing showing;
    Callback done;
  };
  // Of one identity. There while it has flights or anything waits for one.
  struct Line {
    size_t flights = 0;
    std::deque<Parked> parked;
  };
  // Zero if authn may be asked.
  absl::Duration Wait(const Showing& showing, bool stranger);
  size_t MostFlights(const std::string& identity) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether it waits for another of its identity; `done` has been taken then.
  bool Park(const Showing& showing, Callback& done) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Null if there are too many: then `wait` says for how long.
  std::shared_ptr<Flight> Begin(const Showing& showing, absl::Duration* wait) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Asks what has waited.
  void Resume(const std::string& identity);
  void Run(const std::string& key, const std::shared_ptr<Flight>& flight);
  AdmissionCache::Answer AskAuthn(const Flight& flight);
  AdmissionCache::Answer Believe(const authn::v1::AuthenticatePlatformRequest& request,
                                 authn::v1::AuthenticatePlatformResponse response, absl::Time now);
  void Land(const std::string& key, const std::shared_ptr<Flight>& flight, const AdmissionCache::Answer& answer);

  const std::unique_ptr<authn::v1::Platforms::Stub> authn_;
  const PassportVerifier& verifier_;
  const ControlStream& control_;
  PlatformMetrics& metrics_;
  TaskRunner& runner_;
  const Clock& clock_;
  AdmissionCache cache_;
  // By the address of strangers, who are charged for refusals; and by the identity of platforms, for every question.
  Budgets refusals_;
  Budgets questions_;
  mutable Mutex mu_;
  std::map<std::string, std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mu_);
  int strangers_ ABSL_GUARDED_BY(mu_) = 0;                  // Of flights.
  std::map<std::string, Line> lines_ ABSL_GUARDED_BY(mu_);  // By identity.
  size_t parked_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<std::string, Met> met_ ABSL_GUARDED_BY(mu_);  // By identity.
};

}  // namespace sallyport::token_broker

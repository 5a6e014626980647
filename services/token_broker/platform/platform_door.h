// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <grpcpp/channel.h>
#include <grpcpp/server_context.h>

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "common/rpc/control_stream.h"
#include "common/rpc/peer_names.h"
#include "sallyport/authn/v1/platforms.grpc.pb.h"
#include "sallyport/token_broker/v1/platform.pb.h"
#include "services/token_broker/platform/admission.h"
#include "services/token_broker/platform/admission_cache.h"
#include "services/token_broker/platform/budgets.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {

// What a caller shows of itself, and for whom it asks. Views into the RPC: lives as long as that.
struct Showing {
  PeerNames names;          // Of its certificate.
  absl::string_view token;  // Of its service account; empty: none.
  const v1::PlatformUser* user = nullptr;
  std::string address;  // Of its host, without the port.
  // Digests: of names and token, and of everything.
  std::string identity;
  std::string key;
};
// INVALID_ARGUMENT without a user; UNAUTHENTICATED reason platform_unknown without certificate and token.
absl::StatusOr<Showing> ShowingOf(const grpc::ServerContextBase& context, const v1::PlatformUser& user);

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
  // Asks authn, once for all who show the same; `done` runs on another thread, or at once where nobody is asked. Errors
  // as in platforms.proto; RESOURCE_EXHAUSTED with retry_after for strangers whose guesses are too many, and for
  // platforms that bring too many users at once.
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
  // Zero if authn may be asked.
  absl::Duration Wait(const Showing& showing, bool stranger);
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
  Mutex mu_;
  std::map<std::string, std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mu_);
  int strangers_ ABSL_GUARDED_BY(mu_) = 0;  // Of flights.
  // Identities that were admitted, and when last.
  std::map<std::string, absl::Duration> met_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

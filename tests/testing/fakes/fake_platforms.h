// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "common/clock.h"
#include "common/mutex.h"
#include "sallyport/authn/v1/platforms.grpc.pb.h"
#include "tests/testing/fakes/fake_authn.h"
#include "tests/testing/fakes/gate.h"

namespace sallyport::testing {

// Authn's Platforms as the broker sees it. Subject token "token.<name>.x" is "corp:<name>"'s, of the session
// "session-<name>"; any other is none. Whoever a platform names as subject is a user. Thread-safe.
class FakePlatforms final : public authn::v1::Platforms::Service {
 public:
  struct Platform {
    std::string id;
    // What proves it.
    std::vector<std::string> uris = {};
    std::vector<std::string> dns_names = {};
    std::vector<std::string> tokens = {};
    std::vector<std::string> apps = {"*"};
    // It may name a subject.
    bool without_user = false;
    double rate_limit = 0;
    int rate_burst = 0;
    std::vector<std::string> return_origins = {};
    // Of what it is told.
    absl::Duration valid_for = absl::Minutes(5);
  };

  // Signs with `authn`'s key; both outlive this.
  FakePlatforms(const FakeAuthn& authn, const Clock& clock) : authn_(authn), clock_(clock) {}

  grpc::Status AuthenticatePlatform(grpc::ServerContext* context, const authn::v1::AuthenticatePlatformRequest* request,
                                    authn::v1::AuthenticatePlatformResponse* response) override;

  // In place of one of the same id.
  void Put(const Platform& platform);
  // Users who may not be asked for any more.
  void Refuse(const std::string& subject);
  void SetDown(bool down);
  // Changes answers, as a hostile authn might.
  void SetTwist(std::function<void(authn::v1::AuthenticatePlatformResponse&)> twist);
  int calls() const;
  // Of every question.
  Gate gate;

 private:
  const Platform* Find(const authn::v1::AuthenticatePlatformRequest& request) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const FakeAuthn& authn_;
  const Clock& clock_;
  mutable Mutex mu_;
  std::vector<Platform> platforms_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> refused_ ABSL_GUARDED_BY(mu_);
  std::function<void(authn::v1::AuthenticatePlatformResponse&)> twist_ ABSL_GUARDED_BY(mu_);
  bool down_ ABSL_GUARDED_BY(mu_) = false;
  int calls_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::testing

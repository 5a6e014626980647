// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/rpc/handler.h"
#include "sallyport/authn/v1/platforms.grpc.pb.h"
#include "services/authn/passports.h"
#include "services/authn/platforms/clusters.h"
#include "services/authn/platforms/platform_policy.h"
#include "services/authn/platforms/platform_records.h"
#include "services/authn/platforms/subject_tokens.h"

namespace sallyport::authn::platforms {

// Which internal platform is it, for whom does it ask, and may it? Whatever cannot be checked refuses: nothing makes a
// platform of one kind of proof where another was brought and failed. Thread-safe.
class PlatformCallers {
 public:
  // All outlive this.
  struct Parts {
    const SubjectTokens::Parts users;
    const Passports& passports;
    Audit& audit;
  };
  // `config` is valid (ValidateAuthnConfig).
  static absl::StatusOr<std::unique_ptr<PlatformCallers>> Create(const config::v1::AuthnConfig& config,
                                                                 const Clusters::Options& options, const Parts& parts);

  // Errors are those of the RPC (platforms.proto).
  absl::StatusOr<v1::AuthenticatePlatformResponse> Authenticate(const v1::AuthenticatePlatformRequest& request,
                                                                absl::Time now);

 private:
  // Which platform calls, and how long what proves it is good.
  struct Proof {
    const Platform* platform = nullptr;
    const char* kind = "";
    absl::Time expires_at = absl::InfiniteFuture();
    absl::Time believed_until = absl::InfiniteFuture();
  };
  struct User {
    Authenticator::Verified verified;
    Granted granted;
  };

  PlatformCallers(const config::v1::AuthnConfig& config, std::unique_ptr<Clusters> clusters, const Parts& parts);
  PlatformOutcome Decide(const v1::AuthenticatePlatformRequest& request, absl::Time now) const;
  absl::StatusOr<Proof> WhoCalls(const v1::AuthenticatePlatformRequest& request, absl::Time now,
                                 std::string& check) const;
  absl::StatusOr<Proof> ByAccount(absl::string_view token, absl::Time now, std::string& check) const;
  absl::StatusOr<User> ForWhom(const v1::AuthenticatePlatformRequest& request, const Platform& platform, absl::Time now,
                               PlatformOutcome& outcome) const;
  std::optional<Identity> Named(absl::string_view subject) const;
  absl::StatusOr<v1::AuthenticatePlatformResponse> Admit(const Proof& proof, const User& user, absl::Time now) const;

  const PlatformPolicy policy_;
  const std::unique_ptr<Clusters> clusters_;
  const Parts parts_;
  const SubjectTokens tokens_;
  PlatformRecords records_;
};

// gRPC to PlatformCallers; one per listener.
class PlatformsService final : public v1::Platforms::Service {
 public:
  // `callers` and what `options` points to outlive this.
  PlatformsService(PlatformCallers& callers, RpcHandler::Options options)
      : callers_(callers), rpc_(std::move(options)) {}

  grpc::Status AuthenticatePlatform(grpc::ServerContext* context, const v1::AuthenticatePlatformRequest* request,
                                    v1::AuthenticatePlatformResponse* response) override {
    return rpc_.Handle("AuthenticatePlatform", context, response,
                       [&](const Caller&) { return callers_.Authenticate(*request, rpc_.clock().Now()); });
  }

 private:
  PlatformCallers& callers_;
  RpcHandler rpc_;
};

}  // namespace sallyport::authn::platforms

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <google/protobuf/descriptor.h>
#include <grpcpp/server_context.h>

#include "common/caller/passport.h"

namespace sallyport {

// Metadata key that carries a passport with an RPC made for a user.
inline constexpr char kPassportMetadata[] = "sallyport-passport";

// Who called an RPC: a service of the suite, possibly on behalf of a user.
struct Caller {
  std::string service;               // "edge", "authn", "token_broker", "registry", "vault"
  std::optional<Passport> passport;  // Verified.
};

// Where the calling service's identity comes from. Metadata is never trusted.
class PeerIdentity {
 public:
  virtual ~PeerIdentity() = default;
  // UNAUTHENTICATED if the peer has not exactly one URI SAN spiffe://<trust domain>/<service>.
  virtual absl::StatusOr<std::string> ServiceOf(const grpc::ServerContextBase& context) const = 0;
};

// Standalone: every caller gets its own in-process server, built with its name.
class FixedPeer final : public PeerIdentity {
 public:
  explicit FixedPeer(std::string service) : service_(std::move(service)) {}
  absl::StatusOr<std::string> ServiceOf(const grpc::ServerContextBase& /*context*/) const override { return service_; }

 private:
  std::string service_;
};

// Split: auth-context property peer_spiffe_id, length-aware compare.
class MtlsPeer final : public PeerIdentity {
 public:
  explicit MtlsPeer(std::string trust_domain) : trust_domain_(std::move(trust_domain)) {}
  absl::StatusOr<std::string> ServiceOf(const grpc::ServerContextBase& context) const override;

 private:
  std::string trust_domain_;
};

// Method name ("Get") to the services that may call it.
using MethodTable = std::map<std::string, std::set<std::string>>;

// Authorizes RPCs of one or more gRPC services by method table (mTLS identity) and by the access option of the proto
// (passport and roles). Immutable and thread-safe.
class CallGuard {
 public:
  // `tables`: full service name ("sallyport.vault.v1.Vault") to its method table.
  // FAILED_PRECONDITION if a method of a named service is missing from its table, lacks the access option, or is
  // unknown.
  static absl::StatusOr<CallGuard> Create(const std::map<std::string, MethodTable>& tables);

  // For each service and method of `tables` the option decides what passport is needed:
  //   ANYONE, PLATFORM, INTERNAL  none    USER  any of purpose call or api    AUDITOR  api, role auditor,
  //   credential-admin or admin ADMIN  api, role admin      CREDENTIAL_ADMIN  api, role credential-admin
  // `full_method` is "sallyport.vault.v1.Vault/Get". Verifies the passport if one is attached; one that does not verify
  // is an error even where none is needed. `verifier` may be null for methods that never see one. Errors:
  // UNAUTHENTICATED, PERMISSION_DENIED (service not allowed, role missing).
  absl::StatusOr<Caller> Check(absl::string_view full_method, const grpc::ServerContextBase& context,
                               const PeerIdentity& peer, const PassportVerifier* verifier, absl::Time now) const;

 private:
  struct Rule {
    std::set<std::string> services;
    int access;
  };
  std::map<std::string, Rule, std::less<>> rules_;
};

}  // namespace sallyport

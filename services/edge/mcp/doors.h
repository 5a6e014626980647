// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>

#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/authn/v1/authn.pb.h"
#include "sallyport/token_broker/v1/token_broker.grpc.pb.h"
#include "services/edge/mcp/config_history.h"
#include "services/edge/mcp/credentials.h"
#include "services/edge/mcp/ended.h"
#include "services/edge/mcp/in_flight.h"
#include "services/edge/mcp/principal_cache.h"
#include "services/edge/mcp/server_entry.h"
#include "services/edge/mcp/session_tag.h"
#include "services/edge/mcp/single_flight.h"

namespace sallyport::edge {

// What the broker says about one caller at door two.
struct Resolution {
  std::shared_ptr<const CredentialSet> credentials;  // Null if an account must be linked first.
  token_broker::v1::LinkRequired link;
};

// The two doors as the edge sees them: caches in front of authn.Authenticate and token_broker.ResolveCredentials.
// Cached answers cost no RPC; misses are merged per process; both renew in the background at 80 % of their life.
// Thread-safe; callbacks come on threads of gRPC.
class Doors {
 public:
  struct Options {
    absl::Duration authn_outage_grace = absl::Minutes(15);
  };
  // `control` says whether invalidations still arrive; all outlive this.
  Doors(const std::shared_ptr<grpc::Channel>& authn, const std::shared_ptr<grpc::Channel>& token_broker,
        const ControlStream& control, const Clock& clock, Options options);
  ~Doors();

  // --- door one ---
  // A cached principal that may be used now; null: call Authenticate. Starts renewal when due.
  bool Usable(const PrincipalPtr& principal, const ServerEntry& entry, std::string_view token, absl::Time now);
  PrincipalPtr Find(const PrincipalKey& key) const { return table_.Find(key); }
  using AuthenticateDone = std::function<void(const absl::StatusOr<PrincipalPtr>&)>;
  void Authenticate(const PrincipalKey& key, const ServerEntry& entry, std::string_view token, AuthenticateDone done);

  // --- door two ---
  // `account`, here and below: label of the caller's account that the call chose; empty: the server's choice. What is
  // resolved for one is kept for that one.
  // Cached credentials for this server and caller (`principal` null: organization-owned pieces only), or null.
  std::shared_ptr<const CredentialSet> Credentials(const ServerEntry& entry, const PrincipalPtr& principal,
                                                   absl::Time now, std::string_view account = {});
  // The app whose accounts `entry` needs, as people call it.
  std::string AppName(const ServerEntry& entry) const;
  // That its caller must enter a credential of their own anew; nothing where the server needs none.
  std::optional<token_broker::v1::LinkRequired> OwnCredentialOf(const ServerEntry& entry) const;
  using ResolveDone = std::function<void(const absl::StatusOr<Resolution>&)>;
  void Resolve(const ServerEntry& entry, const PrincipalPtr& principal, ResolveDone done,
               std::string_view account = {});
  // After an upstream refused `refused`: what of it can be had anew is, once, merged with others for the same versions.
  void Refresh(const ServerEntry& entry, const PrincipalPtr& principal, const CredentialSet& refused, ResolveDone done,
               std::string_view account = {});

  void OnUpdate(const ControlUpdate& update);
  // Told of every invalidation of a connection ("<subject>\n<app uid>\n<label>"); for replies held until an account is
  // linked.
  void SetConnectionListener(std::function<void(const std::string& key)> listener);

  // Null until authn gave the keys (retried in the background).
  std::shared_ptr<const SessionTagger> tagger();

  token_broker::v1::TokenBroker::StubInterface& broker();

  // For tests and the bench: RPCs made.
  uint64_t authenticate_calls() const { return authenticate_calls_.load(); }
  uint64_t resolve_calls() const { return resolve_calls_.load(); }

 private:
  struct Stubs;
  // Without regard to what is kept: the call is made, or one under way is joined.
  void AskAuthn(const PrincipalKey& key, const ServerEntry& entry, std::string_view token, AuthenticateDone done);
  void AskBroker(const ServerEntry& entry, const PrincipalPtr& principal, std::string_view account, ResolveDone done);
  PrincipalPtr MakePrincipal(const PrincipalKey& key, const ServerEntry& entry, std::string_view token,
                             const authn::v1::AuthenticateResponse& response) const;
  bool OnOutage(const PrincipalKey& key, absl::StatusOr<PrincipalPtr>& result) const;
  void Renew(const PrincipalPtr& principal, const ServerEntry& entry, std::string_view token);
  // In the background, unless that is under way.
  void RenewOnce(const ServerEntry& entry, const PrincipalPtr& principal, std::string_view account);
  void CallResolve(const ServerEntry& entry, const PrincipalPtr& principal, std::string_view account,
                   const CredentialSet* refused, const std::string& flight);
  void FetchTagger();
  // How many updates had ended something when a call began, and what those since did: its answer may be older than they
  // are. Nothing if they are not known any more, or the store was restored meanwhile: then the answer cannot be
  // trusted.
  uint64_t EndingsSeen();
  std::optional<std::vector<std::shared_ptr<const Ended>>> EndedSince(uint64_t seen);
  void End(const std::vector<registry::v1::Invalidation>& invalidations);
  // The configuration is of another history: what was verified and resolved under the old one ends.
  void ForgetAll();
  void EndOrganizationCredentials();
  // Keeps a broker's answer for those whom it may serve.
  absl::StatusOr<Resolution> Keep(const token_broker::v1::ResolveCredentialsResponse& response,
                                  const ServerEntry& entry, bool scoped, const PrincipalPtr& principal,
                                  std::string_view account, uint64_t seen);
  // Whether a service answered at all, the last time and not long ago.
  using OutageAt = std::atomic<int64_t>;  // Microseconds since 1970; 0: it answers.
  void NoteOutage(OutageAt& outage, const absl::Status& status) const;
  bool IsDown(const OutageAt& outage) const;
  // What was resolved before and may still serve while nobody can be asked; null if nothing.
  std::shared_ptr<const CredentialSet> KeptThroughOutage(uint64_t serial, bool scoped, const PrincipalPtr& principal,
                                                         std::string_view account);

  const std::unique_ptr<Stubs> stubs_;
  const ControlStream& control_;
  const Clock& clock_;
  const Options options_;
  PrincipalTable table_;

  struct OrgCredentials {
    std::shared_ptr<const CredentialSet> set;
    std::shared_ptr<std::atomic<bool>> renewing = std::make_shared<std::atomic<bool>>(false);
  };
  Mutex org_mu_;
  absl::flat_hash_map<uint64_t, OrgCredentials> org_ ABSL_GUARDED_BY(org_mu_);

  // The last few hundred updates, numbered: each may end thousands.
  static constexpr size_t kMostRecent = 512;
  Mutex recent_mu_;
  std::deque<std::shared_ptr<const Ended>> recent_ ABSL_GUARDED_BY(recent_mu_);
  uint64_t seen_ ABSL_GUARDED_BY(recent_mu_) = 0;
  ConfigHistory history_;                                  // Only OnUpdate's thread.
  std::shared_ptr<const RegistrySnapshot> last_snapshot_;  // The same.
  // At which a stored credential was last seen to change.
  std::atomic<int64_t> credentials_revision_{0};

  SingleFlight<PrincipalKey, absl::StatusOr<PrincipalPtr>> authenticating_;
  SingleFlight<std::string, absl::StatusOr<Resolution>> resolving_;
  // The last answer was an outage: who is known need not wait for the next one, it is asked for in the background.
  OutageAt authn_outage_{0};
  OutageAt broker_outage_{0};
  std::atomic<uint64_t> authenticate_calls_{0};
  std::atomic<uint64_t> resolve_calls_{0};

  Mutex mu_;
  std::function<void(const std::string&)> connection_listener_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const SessionTagger> tagger_ ABSL_GUARDED_BY(mu_);
  absl::Time tagger_refresh_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  bool fetching_tagger_ ABSL_GUARDED_BY(mu_) = false;
  InFlight in_flight_;  // Last: its destructor waits for callbacks that use the rest.
};

// What the broker has to say for this caller.
inline const ServerEntry::BrokerNeed& NeedOf(const ServerEntry& entry, const PrincipalPtr& principal) {
  using Kind = ServerEntry::CallerKind;
  return entry.NeedOf(principal == nullptr   ? Kind::kUnverified
                      : principal->own_token ? Kind::kSignedIn
                                             : Kind::kPresented);
}

// A status of the broker. It vouches for nobody: that our passport has run out is no reason to send the client to sign
// in again, but one to try again with a new one.
absl::Status FromBroker(const grpc::Status& status);

// Reasons of statuses of the broker that come from a provider, or from an upstream, and not from a part of the gateway:
// their messages are for the caller.
inline constexpr char kProviderUnavailable[] = "provider_unavailable";
inline constexpr char kProviderRejectsClient[] = "provider_rejects_client";
inline constexpr char kRenewedTokenRefused[] = "renewed_token_refused";
inline constexpr char kTokenRefused[] = "token_refused";
inline constexpr char kInteractionRequired[] = "interaction_required";
inline constexpr char kAppOnlyToken[] = "app_only_token";
inline constexpr char kExchangeInvalid[] = "exchange_response_invalid";
// One of them, or empty. Lives for ever.
std::string_view ProviderTroubleOf(const absl::Status& status);

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/doors.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/proto_time.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "common/text/string_view.h"
#include "sallyport/audit/v1/audit.pb.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "services/edge/mcp/caller_claims.h"

namespace sallyport::edge {
namespace {

std::string DigestText(const Principal& principal) {
  const TokenHash::Value& digest = principal.key.digest;
  return HexEncode(absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

constexpr absl::Duration kAuthenticateTimeout = absl::Seconds(5);
// A resolve may wait for a refresh at a provider.
constexpr absl::Duration kResolveTimeout = absl::Seconds(25);
// How long an outage is believed in; longer than it takes to find out that it goes on.
constexpr absl::Duration kOutageVerdict = absl::Seconds(30);
// While invalidations do not arrive, what was verified longer ago is asked again.
constexpr absl::Duration kBlindTrust = absl::Seconds(30);

// An outage says nothing about the caller; everything else is a verdict. So is a token whose key is not known yet:
// whoever is known must not be admitted any longer for it.
bool IsOutage(const absl::Status& status) {
  return (absl::IsUnavailable(status) && ReasonOf(status) != "unknown_key") || absl::IsDeadlineExceeded(status) ||
         absl::IsResourceExhausted(status);
}

// An outage of the service itself. Not one of an issuer: authn did answer, and anybody can send a token of an issuer
// that is down.
bool IsServiceOutage(const absl::Status& status) { return IsOutage(status) && ReasonOf(status) != "keys_unavailable"; }

}  // namespace

absl::Status FromBroker(const grpc::Status& status) {
  absl::Status result = FromGrpcStatus(status);
  return absl::IsUnauthenticated(result) ? absl::UnavailableError("the passport was not taken") : result;
}

std::string_view ProviderTroubleOf(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  for (const std::string_view known : {kProviderUnavailable, kProviderRejectsClient, kRenewedTokenRefused,
                                       kTokenRefused, kInteractionRequired, kAppOnlyToken, kExchangeInvalid}) {
    if (reason == known) return known;
  }
  return {};
}

struct Doors::Stubs {
  Stubs(const std::shared_ptr<grpc::Channel>& authn_channel, const std::shared_ptr<grpc::Channel>& broker_channel)
      : authn(authn::v1::Authn::NewStub(authn_channel)),
        broker(token_broker::v1::TokenBroker::NewStub(broker_channel)) {}
  std::unique_ptr<authn::v1::Authn::Stub> authn;
  std::unique_ptr<token_broker::v1::TokenBroker::Stub> broker;
};

Doors::Doors(const std::shared_ptr<grpc::Channel>& authn, const std::shared_ptr<grpc::Channel>& token_broker,
             const ControlStream& control, const Clock& clock, Options options)
    : stubs_(std::make_unique<Stubs>(authn, token_broker)), control_(control), clock_(clock), options_(options) {}
Doors::~Doors() = default;

token_broker::v1::TokenBroker::StubInterface& Doors::broker() { return *stubs_->broker; }

bool Doors::Usable(const PrincipalPtr& principal, const ServerEntry& entry, std::string_view token, absl::Time now) {
  if (principal == nullptr || principal->dead.load(std::memory_order_acquire) || now >= principal->valid_until) {
    return false;
  }
  if (now - principal->verified_at > kBlindTrust && !control_.connected()) return false;
  if (now >= principal->renew_at && !principal->renewing.exchange(true)) Renew(principal, entry, token);
  return true;
}

void Doors::Renew(const PrincipalPtr& principal, const ServerEntry& entry, std::string_view token) {
  // The entry may go away with its configuration before the answer comes; what is needed of it is copied by
  // Authenticate.
  AskAuthn(principal->key, entry, token, [principal](const absl::StatusOr<PrincipalPtr>& result) {
    if (!result.ok() || *result == principal) principal->renewing.store(false);
  });
}

PrincipalPtr Doors::MakePrincipal(const PrincipalKey& key, const ServerEntry& entry, std::string_view token,
                                  const authn::v1::AuthenticateResponse& response) const {
  const authn::v1::Principal& verified = response.principal();
  auto principal = std::make_shared<Principal>();
  principal->key = key;
  principal->revocation_key = RevocationKeyOf(token);
  principal->server_uid = entry.uid;
  principal->subject = verified.subject();
  principal->session_id = response.session_id();
  principal->passport = response.passport();
  principal->rule = response.rule();
  principal->own_token = verified.token_kind() == authn::v1::SALLYPORT;
  principal->verified_at = clock_.Now();
  principal->valid_until = FromTimestamp(response.valid_until());
  principal->token_expires_at =
      verified.has_expires_at() ? FromTimestamp(verified.expires_at()) : principal->valid_until;
  principal->renew_at = principal->verified_at + (principal->valid_until - principal->verified_at) * 0.8;
  for (const ServerEntry::OwnHeader& header : entry.own_headers) {
    if (header.source == ServerEntry::OwnHeader::Source::kClaim) {
      AppendCallerClaim(header, verified, *principal);
    } else if (!principal->own_token) {
      const authn::v1::TokenKind other = header.id_token ? authn::v1::CONNECTOR_ACCESS : authn::v1::CONNECTOR_ID;
      principal->wrong_token_kind = principal->wrong_token_kind || verified.token_kind() == other;
      if (token.empty() || !AppendField(header.name, header.prefix, token, principal->header_lines)) {
        principal->claim_refusal = {500, "credential_unencodable", "your token cannot be a header value"};
      }
    }  // Else the broker gives the sign-in's token.
  }
  if (!principal->own_token && entry.NeedOf(ServerEntry::CallerKind::kPresented).presented_token) {
    principal->presented_token = std::make_shared<const Secret>(Secret::Copy(ToAbsl(token)));
  }
  audit::v1::Event fragment;
  fragment.set_subject(verified.subject());
  fragment.set_client_id(verified.client_id());
  principal->audit_fields = fragment.SerializeAsString();
  return principal;
}

// While authn does not answer, callers known a while ago go on; what they may not do any more, nobody could have told
// us.
bool Doors::OnOutage(const PrincipalKey& key, absl::StatusOr<PrincipalPtr>& result) const {
  const PrincipalPtr known = table_.Find(key);
  const absl::Time now = clock_.Now();
  if (known == nullptr || known->dead.load() || now >= known->token_expires_at ||
      now >= known->verified_at + options_.authn_outage_grace) {
    return false;
  }
  result = known;
  return true;
}

void Doors::NoteOutage(OutageAt& outage, const absl::Status& status) const {
  outage.store(IsServiceOutage(status) && ProviderTroubleOf(status).empty() ? absl::ToUnixMicros(clock_.Now()) : 0,
               std::memory_order_relaxed);
}

bool Doors::IsDown(const OutageAt& outage) const {
  const int64_t at = outage.load(std::memory_order_relaxed);
  return at != 0 && clock_.Now() - absl::FromUnixMicros(at) < kOutageVerdict;
}

void Doors::Authenticate(const PrincipalKey& key, const ServerEntry& entry, std::string_view token,
                         AuthenticateDone done) {
  absl::StatusOr<PrincipalPtr> known = PrincipalPtr();
  if (!IsDown(authn_outage_) || !OnOutage(key, known)) {
    return AskAuthn(key, entry, token, std::move(done));
  }
  if (!(*known)->renewing.exchange(true)) Renew(*known, entry, token);
  done(known);
}

void Doors::AskAuthn(const PrincipalKey& key, const ServerEntry& entry, std::string_view bearer,
                     AuthenticateDone done) {
  if (!authenticating_.Join(key, std::move(done))) return;
  authenticate_calls_.fetch_add(1);
  struct Call {
    std::unique_ptr<grpc::ClientContext> context = MakeClientContext(kAuthenticateTimeout);
    authn::v1::AuthenticateRequest request;
    authn::v1::AuthenticateResponse response;
    std::shared_ptr<const ServerEntry> entry;
    std::string token;
    uint64_t seen = 0;
    ~Call() { OPENSSL_cleanse(token.data(), token.size()); }
  };
  auto call = std::make_shared<Call>();
  call->request.set_server_uid(entry.uid);
  call->request.set_server_version(entry.version);
  call->request.set_token(std::string(bearer));
  call->token = std::string(bearer);
  call->seen = EndingsSeen();
  call->entry = entry.shared_from_this();
  stubs_->authn->async()->Authenticate(
      call->context.get(), &call->request, &call->response,
      [this, key, call, token = in_flight_.Add(call->context.get())](const grpc::Status& status) {
        absl::StatusOr<PrincipalPtr> result = PrincipalPtr();
        if (!status.ok()) result = FromGrpcStatus(status);
        NoteOutage(authn_outage_, result.status());
        if (status.ok()) {
          PrincipalPtr principal = MakePrincipal(key, *call->entry, call->token, call->response);
          // The same person with the same session keeps what was resolved for them.
          if (const PrincipalPtr before = table_.Find(key); before != nullptr &&
                                                            before->subject == principal->subject &&
                                                            before->session_id == principal->session_id) {
            principal->TakeCredentials(*before);
          }
          table_.Insert(principal);
          // Revoked while authn was answering: the answer may be from before.
          const auto since = EndedSince(call->seen);
          const bool revoked = !since.has_value() || std::any_of(since->begin(), since->end(), [&](const auto& ended) {
            return ended->Caller(*principal).has_value();
          });
          if (revoked) {
            principal->dead.store(true);
            table_.Erase(principal);
            result = absl::UnavailableError("the caller's admission changed meanwhile");
          } else {
            result = std::move(principal);
          }
        } else if (!IsOutage(result.status()) || !OnOutage(key, result)) {
          if (absl::IsUnauthenticated(result.status()) || absl::IsPermissionDenied(result.status())) {
            if (const PrincipalPtr known = table_.Find(key); known != nullptr) {
              known->dead.store(true);
              table_.Erase(known);
            }
          }
        }
        authenticating_.Complete(key, result);
      });
}

std::shared_ptr<const CredentialSet> Doors::Credentials(const ServerEntry& entry, const PrincipalPtr& principal,
                                                        absl::Time now, std::string_view account) {
  std::shared_ptr<const CredentialSet> set;
  if (NeedOf(entry, principal).per_caller) {
    set = principal->credentials(account);
  } else {
    MutexLock lock(org_mu_);
    if (const auto found = org_.find(entry.serial); found != org_.end()) set = found->second.set;
  }
  if (set == nullptr || set->dead.load(std::memory_order_acquire) || now >= set->valid_until) return nullptr;
  if (now >= set->renew_at) RenewOnce(entry, principal, account);
  return set;
}

void Doors::RenewOnce(const ServerEntry& entry, const PrincipalPtr& principal, std::string_view account) {
  const uint64_t serial = entry.serial;
  const bool scoped = NeedOf(entry, principal).per_caller;
  if (scoped) {
    if (principal->renewing_credentials.exchange(true)) return;
  } else {
    MutexLock lock(org_mu_);
    const auto found = org_.find(serial);
    if (found == org_.end() || found->second.renewing->exchange(true)) return;
  }
  AskBroker(entry, principal, account, [this, serial, scoped, principal](const absl::StatusOr<Resolution>&) {
    if (scoped) return principal->renewing_credentials.store(false);
    MutexLock lock(org_mu_);
    if (const auto found = org_.find(serial); found != org_.end()) found->second.renewing->store(false);
  });
}

std::string Doors::AppName(const ServerEntry& entry) const {
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  const registry::v1::App* app = snapshot == nullptr ? nullptr : snapshot->AppByUid(entry.app_uid);
  return app == nullptr || app->display_name().empty() ? entry.app_slug : app->display_name();
}

std::optional<token_broker::v1::LinkRequired> Doors::OwnCredentialOf(const ServerEntry& entry) const {
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  const registry::v1::Credential* credential =
      snapshot == nullptr || entry.credential_uid.empty() ? nullptr : snapshot->CredentialByUid(entry.credential_uid);
  if (credential == nullptr) return std::nullopt;
  token_broker::v1::LinkRequired link;
  link.set_app_uid(credential->uid());
  link.set_app_slug(credential->slug());
  link.set_app_display_name(credential->display_name().empty() ? credential->slug() : credential->display_name());
  link.set_reason(token_broker::v1::LinkRequired::NEEDS_REAUTH);
  link.set_credential(true);
  return link;
}

void Doors::Resolve(const ServerEntry& entry, const PrincipalPtr& principal, ResolveDone done,
                    std::string_view account) {
  std::shared_ptr<const CredentialSet> kept;
  if (IsDown(broker_outage_)) {
    kept = KeptThroughOutage(entry.serial, NeedOf(entry, principal).per_caller, principal, account);
  }
  if (kept == nullptr) return AskBroker(entry, principal, account, std::move(done));
  RenewOnce(entry, principal, account);
  done(Resolution{std::move(kept), {}});
}

void Doors::AskBroker(const ServerEntry& entry, const PrincipalPtr& principal, std::string_view account,
                      ResolveDone done) {
  const std::string flight = NeedOf(entry, principal).per_caller
                                 ? absl::StrCat(entry.serial, " ", DigestText(*principal), " ", ToAbsl(account))
                                 : absl::StrCat(entry.serial);
  if (resolving_.Join(flight, std::move(done))) CallResolve(entry, principal, account, nullptr, flight);
}

void Doors::Refresh(const ServerEntry& entry, const PrincipalPtr& principal, const CredentialSet& refused,
                    ResolveDone done, std::string_view account) {
  std::string flight = absl::StrCat("refused ", entry.serial);
  for (const CredentialSet::Renewable& piece : refused.renewables) {
    absl::StrAppend(&flight, " ", piece.generation, " ", piece.version);
  }
  if (NeedOf(entry, principal).per_caller) absl::StrAppend(&flight, " ", DigestText(*principal), " ", ToAbsl(account));
  if (resolving_.Join(flight, std::move(done))) CallResolve(entry, principal, account, &refused, flight);
}

void Doors::CallResolve(const ServerEntry& entry, const PrincipalPtr& principal, std::string_view account,
                        const CredentialSet* refused, const std::string& flight) {
  resolve_calls_.fetch_add(1);
  struct Call {
    std::unique_ptr<grpc::ClientContext> context;
    token_broker::v1::ResolveCredentialsRequest request;
    token_broker::v1::ResolveCredentialsResponse response;
    ~Call() { OPENSSL_cleanse(request.mutable_presented_token()->data(), request.presented_token().size()); }
  };
  auto call = std::make_shared<Call>();
  call->context = MakeClientContext(kResolveTimeout, principal != nullptr ? principal->passport : "");
  call->request.set_server_uid(entry.uid);
  call->request.set_server_version(entry.version);
  call->request.set_upstream_origin(entry.target.origin);
  call->request.set_account(std::string(account));
  if (refused != nullptr) {
    call->request.set_refused_generation(refused->generation);
    call->request.set_refused_version(refused->version);
    for (const CredentialSet::Renewable& piece : refused->renewables) {
      auto& added = *call->request.add_refused_pieces();
      added.set_piece(piece.piece);
      added.set_generation(piece.generation);
      added.set_version(piece.version);
    }
  }
  call->request.set_credentials_revision(credentials_revision_.load(std::memory_order_relaxed));
  if (principal != nullptr && principal->presented_token != nullptr) {
    call->request.set_presented_token(std::string(principal->presented_token->Expose()));
  }
  const bool scoped = NeedOf(entry, principal).per_caller;
  const uint64_t seen = EndingsSeen();
  stubs_->broker->async()->ResolveCredentials(
      call->context.get(), &call->request, &call->response,
      [this, call, scoped, entry = entry.shared_from_this(), principal, flight, seen,
       token = in_flight_.Add(call->context.get())](const grpc::Status& status) {
        absl::StatusOr<Resolution> result = Resolution();
        NoteOutage(broker_outage_, FromGrpcStatus(status));
        if (status.ok()) {
          result = Keep(call->response, *entry, scoped, principal, call->request.account(), seen);
        } else {
          result = FromBroker(status);
          auto kept = KeptThroughOutage(entry->serial, scoped, principal, call->request.account());
          if (IsOutage(result.status()) && call->request.refused_pieces().empty() && kept != nullptr) {
            result = Resolution{std::move(kept), {}};
          }
        }
        resolving_.Complete(flight, result);
      });
}

absl::StatusOr<Resolution> Doors::Keep(const token_broker::v1::ResolveCredentialsResponse& response,
                                       const ServerEntry& entry, bool scoped, const PrincipalPtr& principal,
                                       std::string_view account, uint64_t seen) {
  Resolution resolution;
  if (response.has_link()) {
    resolution.link = response.link();
    if (scoped) principal->set_credentials(nullptr, account);
    return resolution;
  }
  const absl::Time now = clock_.Now();
  ASSIGN_OR_RETURN(resolution.credentials, RenderCredentials(response, now, entry.secret_target.get()));
  if (!scoped && !resolution.credentials->organization_only) {
    // It would be kept for every caller of the server.
    return WithReason(absl::InternalError("a piece of one caller where only the organization's may be"), "wrong_scope");
  }
  if (scoped) {
    principal->set_credentials(resolution.credentials, account);
  } else {
    MutexLock lock(org_mu_);
    absl::erase_if(org_, [now](const auto& kept) {  // Of versions that are no longer served.
      return kept.second.set != nullptr && now >= kept.second.set->outage_until;
    });
    org_[entry.serial].set = resolution.credentials;
  }
  // Unlinked, or replaced, while the broker was answering: good for this one call at most.
  const auto since = EndedSince(seen);
  const std::string& subject = scoped ? principal->subject : "";
  if (!since.has_value() || std::any_of(since->begin(), since->end(), [&](const auto& ended) {
        return ended->Credentials(subject, *resolution.credentials);
      })) {
    resolution.credentials->dead.store(true, std::memory_order_release);
  }
  return resolution;
}

std::shared_ptr<const CredentialSet> Doors::KeptThroughOutage(uint64_t serial, bool scoped,
                                                              const PrincipalPtr& principal, std::string_view account) {
  std::shared_ptr<const CredentialSet> kept;
  if (scoped) {
    kept = principal->credentials(account);
  } else {
    MutexLock lock(org_mu_);
    if (const auto found = org_.find(serial); found != org_.end()) kept = found->second.set;
  }
  return kept != nullptr && !kept->dead.load() && clock_.Now() < kept->outage_until ? kept : nullptr;
}

uint64_t Doors::EndingsSeen() {
  MutexLock lock(recent_mu_);
  return seen_;
}

std::optional<std::vector<std::shared_ptr<const Ended>>> Doors::EndedSince(uint64_t seen) {
  MutexLock lock(recent_mu_);
  const uint64_t count = seen_ - seen;
  if (count > recent_.size()) return std::nullopt;
  return std::vector<std::shared_ptr<const Ended>>(recent_.end() - static_cast<std::ptrdiff_t>(count), recent_.end());
}

void Doors::OnUpdate(const ControlUpdate& update) {
  std::function<void(const std::string&)> listener;
  {
    MutexLock lock(mu_);
    listener = connection_listener_;
  }
  if (!history_.empty() && !history_.ContinuedBy(*update.snapshot)) ForgetAll();
  history_ = ConfigHistory::Of(*update.snapshot);
  // Unchanged resources are shared between snapshots.
  if (last_snapshot_ == nullptr || last_snapshot_->credentials_by_uid != update.snapshot->credentials_by_uid) {
    credentials_revision_.store(update.snapshot->revision, std::memory_order_relaxed);
  }
  last_snapshot_ = update.snapshot;
  if (!update.invalidations.empty()) End(update.invalidations);
  for (const registry::v1::Invalidation& invalidation : update.invalidations) {
    if (invalidation.kind() == registry::v1::Invalidation::CONNECTION && listener) listener(invalidation.key());
  }
}

void Doors::End(const std::vector<registry::v1::Invalidation>& invalidations) {
  const auto ended = std::make_shared<const Ended>(invalidations);
  {
    // Before the caches: an answer that arrives in between finds it here.
    MutexLock lock(recent_mu_);
    ++seen_;
    recent_.push_back(ended);
    if (recent_.size() > kMostRecent) recent_.pop_front();
  }
  table_.Invalidate(*ended);
  const bool organizations = std::any_of(invalidations.begin(), invalidations.end(), [](const auto& invalidation) {
    return invalidation.kind() == registry::v1::Invalidation::SECRET ||
           invalidation.kind() == registry::v1::Invalidation::SERVER;
  });
  if (organizations) EndOrganizationCredentials();
}

void Doors::ForgetAll() {
  Log(LogLevel::kWarning, "configuration_of_another_history");
  {
    // As if more had come than is remembered.
    MutexLock lock(recent_mu_);
    ++seen_;
    recent_.clear();
  }
  table_.InvalidateAll();
  EndOrganizationCredentials();
}

void Doors::EndOrganizationCredentials() {
  MutexLock lock(org_mu_);
  for (auto& [serial, organization] : org_) {
    if (organization.set != nullptr) organization.set->dead.store(true, std::memory_order_release);
  }
}

void Doors::SetConnectionListener(std::function<void(const std::string& key)> listener) {
  MutexLock lock(mu_);
  connection_listener_ = std::move(listener);
}

std::shared_ptr<const SessionTagger> Doors::tagger() {
  bool fetch = false;
  std::shared_ptr<const SessionTagger> current;
  {
    MutexLock lock(mu_);
    current = tagger_;
    if (!fetching_tagger_ && clock_.Now() >= tagger_refresh_) {
      fetching_tagger_ = true;
      fetch = true;
    }
  }
  if (fetch) FetchTagger();
  return current;
}

void Doors::FetchTagger() {
  struct Call {
    std::unique_ptr<grpc::ClientContext> context = MakeClientContext(kAuthenticateTimeout);
    authn::v1::GetEdgeKeysRequest request;
    authn::v1::GetEdgeKeysResponse response;
  };
  auto call = std::make_shared<Call>();
  stubs_->authn->async()->GetEdgeKeys(
      call->context.get(), &call->request, &call->response,
      [this, call, token = in_flight_.Add(call->context.get())](const grpc::Status& status) {
        MutexLock lock(mu_);
        fetching_tagger_ = false;
        if (!status.ok() || call->response.session_tag_keys().empty()) {
          tagger_refresh_ = clock_.Now() + absl::Milliseconds(500);
          return;
        }
        tagger_ = std::make_shared<SessionTagger>(std::vector<std::string>(call->response.session_tag_keys().begin(),
                                                                           call->response.session_tag_keys().end()));
        tagger_refresh_ = call->response.has_refresh_after() ? FromTimestamp(call->response.refresh_after())
                                                             : clock_.Now() + absl::Minutes(10);
        tagger_refresh_ = std::max(tagger_refresh_, clock_.Now() + absl::Seconds(1));
      });
}

}  // namespace sallyport::edge

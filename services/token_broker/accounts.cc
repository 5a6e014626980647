// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/accounts.h"

#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "services/token_broker/connectables.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/consent.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/link_scopes.h"
#include "services/token_broker/link_ticket.h"
#include "services/token_broker/names.h"
#include "services/token_broker/owed.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/upstream_origin.h"

namespace sallyport::token_broker {
namespace {

constexpr char kTicketPurpose[] = "sallyport link ticket v1";
constexpr char kStatePurpose[] = "sallyport request state v1";

// RFC 9562 section 5.4.
std::string RandomUuid() {
  std::string bytes = RandomBytes(16);
  bytes[6] = static_cast<char>((static_cast<unsigned char>(bytes[6]) & 0x0f) | 0x40);
  bytes[8] = static_cast<char>((static_cast<unsigned char>(bytes[8]) & 0x3f) | 0x80);
  const std::string hex = HexEncode(bytes);
  return absl::StrCat(hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-", hex.substr(16, 4), "-",
                      hex.substr(20));
}

std::string StateName(const vault::v1::RecordMetadata& metadata) {
  if (metadata.state() == "REVOKE_PENDING") {
    return "revoke_pending";
  }
  switch (StateOf(metadata)) {
    case ConnectionView::State::kLinked:
      return "linked";
    case ConnectionView::State::kNeedsUser:
      return "needs_reauth";
    case ConnectionView::State::kAbsent:
      break;
  }
  return "revoked";
}

// What of `server`, which may be null, has this uid.
std::optional<Connectable> ConnectableOf(const RegistrySnapshot& snapshot, const registry::v1::McpServer* server,
                                         const std::string& uid) {
  if (server == nullptr) {
    return std::nullopt;
  }
  for (const Connectable& one : ConnectablesOf(*server, snapshot)) {
    if (one.uid() == uid) {
      return one;
    }
  }
  return std::nullopt;
}

// The account that a link is for: the one that was named, else the server's choice.
std::string AccountFor(const registry::v1::McpServer* server, const std::optional<Connectable>& wanted,
                       const std::string& named) {
  const bool app = wanted.has_value() && wanted->app != nullptr;
  return !app || !named.empty() ? named : AccountOf(*server)->label();
}

std::optional<absl::Time> TimeLabel(const vault::v1::RecordMetadata& metadata, const char* name) {
  const auto label = metadata.labels().find(name);
  absl::Time time;
  if (label == metadata.labels().end() || !absl::ParseTime(absl::RFC3339_full, label->second, &time, nullptr)) {
    return std::nullopt;
  }
  return time;
}

}  // namespace

Accounts::Accounts(std::string public_url, const ControlStream& control, VaultClient& vault, BrokerKey& key,
                   Revoker& revoker, Providers& providers, UserCredentials& credentials, const AuditLog& audit,
                   const Clock& clock)
    : public_url_(std::move(public_url)),
      control_(control),
      vault_(vault),
      key_(key),
      revoker_(revoker),
      providers_(providers),
      credentials_(credentials),
      audit_(audit),
      clock_(clock) {}

absl::StatusOr<v1::StartLinkResponse> Accounts::StartLink(const v1::StartLinkRequest& request,
                                                          const Passport& passport) {
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  const registry::v1::McpServer* server = snapshot->ServerByUid(request.server_uid());
  if (passport.purpose != Passport::Purpose::kCall || passport.server_uid != request.server_uid()) {
    return error::PassportMismatch();
  }
  const std::optional<Connectable> wanted = ConnectableOf(*snapshot, server, request.app_uid());
  const bool consent = !wanted.has_value() && server != nullptr && IsConsentOf(*server, passport, request.app_uid());
  if (!wanted.has_value() && !consent) {
    return absl::NotFoundError("this server does not use this app or credential");
  }
  RETURN_IF_ERROR(CheckAccountLabel("account", request.account()));
  const std::string account = AccountFor(server, wanted, request.account());
  const absl::Time expires_at = clock_.Now() + kLinkLifetime;
  ASSIGN_OR_RETURN(const Secret ticket_key, key_.For(kTicketPurpose));
  v1::StartLinkResponse response;
  response.set_url(absl::StrCat(public_url_, "/connect/", server->slug(),
                                "?for=", MakeTicket(ticket_key, passport.subject, server->uid(), expires_at),
                                "&connector=", PercentEncode(passport.subject.substr(0, passport.subject.find(':')))));
  if (consent) {
    absl::StrAppend(response.mutable_url(), "&consent=1");
    if (!request.claims().empty()) {
      ASSIGN_OR_RETURN(const Secret claims_key, key_.For(kClaimsKey));
      ASSIGN_OR_RETURN(const std::string claims,
                       SealClaims(claims_key, passport.subject, server->uid(), request.claims()));
      absl::StrAppend(response.mutable_url(), claims.empty() ? "" : "&claims=", claims);
    }
  } else if (wanted->credential != nullptr) {
    absl::StrAppend(response.mutable_url(), "&credential=", wanted->slug());
  } else if (const std::string parameter = AccountParameter(*server, account); !parameter.empty()) {
    absl::StrAppend(response.mutable_url(), "&", parameter);
  }
  response.set_elicitation_id(RandomUuid());
  response.set_message(
      consent ? absl::StrCat("Agree at the identity provider ", ConnectorOf(passport.subject), " to continue.")
      : wanted->credential == nullptr
          ? absl::StrCat("Connect your ", AccountInWords(*wanted->app, account), " to continue.")
          : absl::StrCat("Enter your ", wanted->name(), " to continue."));
  if (request.has_call()) {
    v1::RequestState state;
    state.set_subject(passport.subject);
    state.set_server_uid(server->uid());
    state.set_app_uid(request.app_uid());
    state.set_account(account);
    *state.mutable_call() = request.call();
    *state.mutable_expires_at() = ToTimestamp(expires_at);
    ASSIGN_OR_RETURN(const Secret state_key, key_.For(kStatePurpose));
    ASSIGN_OR_RETURN(*response.mutable_request_state(), SealRequestState(state_key, state));
  }
  return response;
}

absl::StatusOr<v1::ResumeLinkResponse> Accounts::ResumeLink(const v1::ResumeLinkRequest& request,
                                                            const Passport& passport) {
  ASSIGN_OR_RETURN(const Secret key, key_.For(kStatePurpose));
  ASSIGN_OR_RETURN(const v1::RequestState state, OpenRequestState(key, request.request_state(), passport.subject,
                                                                  request.server_uid(), request.call(), clock_.Now()));
  v1::ResumeLinkResponse response;
  response.set_app_uid(state.app_uid());
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  const registry::v1::McpServer* server = snapshot->ServerByUid(state.server_uid());
  const std::optional<Connectable> wanted = ConnectableOf(*snapshot, server, state.app_uid());
  const bool consent = !wanted.has_value() && server != nullptr && IsConsentOf(*server, passport, state.app_uid());
  if (!wanted.has_value() && !consent) {
    return response;
  }
  if (!consent && wanted->credential != nullptr) {
    ASSIGN_OR_RETURN(const auto stored, credentials_.Read(state.app_uid(), passport));
    const std::string origin = UpstreamOriginOf(*server);
    response.set_linked(stored.has_value() && !origin.empty() && stored->Allows(origin));
    return response;
  }
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord(passport.subject, ConnectionName(state.app_uid(), state.account()));
  absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(get, passport.jwt);
  if (absl::IsNotFound(record.status())) {
    return response;
  }
  if (!record.ok()) {
    return record.status();
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<ConnectionView> view, ViewOf(*record));
  if (consent) {
    response.set_linked(HasConsented(view->consent, *server, clock_.Now()));
    return response;
  }
  response.set_linked(view->state == ConnectionView::State::kLinked &&
                      !providers_.HasMoved(*wanted->app, view->provenance.token_origin()) &&
                      MissingScopes(view->scopes, NeededScopes(*wanted->app, *AccountOf(*server))).empty());
  return response;
}

v1::Connection Accounts::Describe(const RegistrySnapshot& snapshot, const std::string& connection,
                                  const vault::v1::RecordMetadata& metadata) {
  const std::string uid = AppUidOf(connection);
  const registry::v1::App* app = snapshot.AppByUid(uid);
  v1::Connection described;
  // One whose app is gone is named by the app's uid, so that its user can still end it.
  described.set_app_slug(app == nullptr ? uid : app->slug());
  described.set_app_display_name(app == nullptr ? "an app that is no longer here" : NameOf(*app));
  described.set_label(AccountLabelOf(connection));
  if (const auto scope = metadata.labels().find("scope"); scope != metadata.labels().end()) {
    for (absl::string_view part : absl::StrSplit(scope->second, ' ', absl::SkipEmpty())) {
      described.add_scopes(std::string(part));
    }
  }
  if (const std::optional<absl::Time> linked_at = TimeLabel(metadata, "linked_at")) {
    *described.mutable_linked_at() = ToTimestamp(*linked_at);
  }
  if (metadata.has_used_at()) {
    *described.mutable_last_used_at() = metadata.used_at();
  }
  return described;
}

std::string Accounts::AccountNameOf(const vault::v1::RecordMetadata& metadata, const Passport& passport) {
  // The account is nobody's business but the user's: its name is sealed with the tokens.
  vault::v1::GetRequest get;
  *get.mutable_record() = metadata.record();
  const absl::StatusOr<vault::v1::GetResponse> record =
      StateOf(metadata) == ConnectionView::State::kAbsent ? absl::NotFoundError("") : vault_.Get(get, passport.jwt);
  const auto view = record.ok() ? ViewOf(*record) : absl::StatusOr<std::shared_ptr<ConnectionView>>(record.status());
  return view.ok() ? (*view)->account_name : "";
}

absl::StatusOr<v1::ListConnectionsResponse> Accounts::List(const Passport& passport) {
  vault::v1::ListRequest request;
  request.set_owner_type(vault::v1::USER);
  request.set_owner_id(passport.subject);
  request.set_kind("connection");
  ASSIGN_OR_RETURN(const vault::v1::ListResponse records, vault_.List(request, passport.jwt));
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  v1::ListConnectionsResponse response;
  for (const vault::v1::RecordMetadata& metadata : records.records()) {
    const std::string& name = metadata.record().name();
    const std::string state = StateName(metadata);
    if (KindOf(name) != ConnectionKind::kAccount || state == "revoked") {
      continue;
    }
    const registry::v1::App* app = snapshot->AppByUid(AppUidOf(name));
    const bool moved = state == "linked" && app != nullptr &&
                       providers_.HasMoved(*app, ProvenanceOf(metadata.labels()).token_origin());
    v1::Connection& connection = *response.add_connections();
    connection = Describe(*snapshot, name, metadata);
    connection.set_account_name(AccountNameOf(metadata, passport));
    connection.set_state(moved ? "needs_reauth" : state);
    if (const std::optional<absl::Time> expires_at = TimeLabel(metadata, "expires_at")) {
      *connection.mutable_access_token_expires_at() = ToTimestamp(*expires_at);
    }
  }
  RETURN_IF_ERROR(AddOwed(*snapshot, passport.subject, &response));
  return response;
}

absl::Status Accounts::AddOwed(const RegistrySnapshot& snapshot, const std::string& subject,
                               v1::ListConnectionsResponse* response) {
  ASSIGN_OR_RETURN(const std::vector<vault::v1::RecordMetadata> owed, OwedBy(vault_, subject));
  std::set<std::string> listed;
  for (const vault::v1::RecordMetadata& metadata : owed) {
    const ConnectionKey key = ConnectionOf(metadata);
    const bool linked = KindOf(key.connection) == ConnectionKind::kAccount;
    // Of several of one connection the oldest, which comes first.
    if (key.subject != subject || !linked || !listed.insert(key.connection).second) {
      continue;
    }
    v1::Connection& connection = *response->add_connections();
    connection = Describe(snapshot, key.connection, metadata);
    connection.set_state("revoke_pending");
    if (const std::optional<absl::Time> since = SinceOf(metadata)) {
      *connection.mutable_revoke_since() = ToTimestamp(*since);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::DisconnectResponse> Accounts::Disconnect(const v1::DisconnectRequest& request,
                                                            const Passport& passport) {
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  const registry::v1::App* app = snapshot->AppBySlug(request.app_slug());
  // The uid of an app that is gone, as List names it. Slugs and uids cannot be mistaken: slugs hold no underscore.
  const bool gone = app == nullptr && absl::StartsWith(request.app_slug(), "app_") &&
                    snapshot->AppByUid(request.app_slug()) == nullptr;
  if (app == nullptr && !gone) {
    return absl::NotFoundError("app_slug: no such app");
  }
  RETURN_IF_ERROR(CheckAccountLabel("label", request.label()));
  const std::string uid = gone ? request.app_slug() : app->uid();
  AuditLog::Entry entry{.type = "link.disconnected", .subject = passport.subject};
  entry.actor = passport.actor;
  entry.details = {{"app", request.app_slug()}};
  if (!request.label().empty()) {
    entry.details.emplace_back("account", request.label());
  }
  RETURN_IF_ERROR(audit_.Record(entry));
  const absl::StatusOr<Revoker::Ended> outcome =
      revoker_.Disconnect({passport.subject, ConnectionName(uid, request.label())}, passport.jwt);
  if (absl::IsNotFound(outcome.status())) {
    return absl::NotFoundError("app_slug: this account is not connected");
  }
  if (!outcome.ok()) {
    return outcome.status();
  }
  if (outcome->revocation == "pending") {
    // What was done is in the audit already.
    entry.type = "link.revoked";
    entry.rule = outcome->revocation;
    entry.credentials = {UseOf(uid, outcome->generation, 0)};
    RETURN_IF_ERROR(audit_.Record(entry));
  }
  v1::DisconnectResponse response;
  response.set_revocation(outcome->revocation);
  return response;
}

}  // namespace sallyport::token_broker

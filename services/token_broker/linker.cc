// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/linker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/http/url.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/oauth/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "sallyport/token_broker/v1/state.pb.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/link_ticket.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/token_error.h"

namespace sallyport::token_broker {
namespace {

std::string Parameter(const std::map<std::string, std::string>& parameters, const char* name) {
  const auto found = parameters.find(name);
  return found == parameters.end() ? "" : found->second;
}

absl::Status NoSuchFlow() {
  return WithReason(absl::InvalidArgumentError("this link was used already, has expired, or was never begun here"),
                    "link_unknown");
}

constexpr CounterInfo kLinks = {
    .name = "sallyport_broker_links_total",
    .help = "Links of users' accounts: begun, and how those ended that came back",
    .unit = "links",
    .labels = {{"app", "slug of a configured app; sso:<connector>: consent at the identity provider"},
               {"outcome",
                "started, returned (with an answer to it), completed, unconfirmed (another account than before), "
                "declined, refused, failed"}},
    .rise =
        "failed: the provider gives no tokens. refused: answers that were late, not the user's, or of an account the "
        "app does not take. started without completed: users give up at the provider",
    .action =
        "For failed check the app's client, secret and redirect URI at the provider; the audit event of the link "
        "has the provider's words",
};

}  // namespace

void ExpectLinks(const std::string& app) {
  for (const char* outcome : {"started", "returned", "completed", "unconfirmed", "declined", "refused", "failed"}) {
    MetricCounter(kLinks, {{"app", app}, {"outcome", outcome}});
  }
}

void CountLink(const std::string& app, const std::string& outcome) {
  MetricCounter(kLinks, {{"app", app}, {"outcome", outcome}}).Increment();
}

std::string CodeChallengeS256(absl::string_view verifier) { return Base64UrlEncode(Sha256(verifier)); }

Linker::Linker(std::string public_url, VaultClient& vault, SecretReader& secrets, Providers& providers,
               TokenEndpoint& endpoint, AccountIdentity& identity, WaitingLinks& waiting, Revoker& revoker,
               Invalidations& invalidations, const EndedSubjects& ended, const AuditLog& audit, const Clock& clock,
               IdleTimes idle)
    : public_url_(std::move(public_url)),
      vault_(vault),
      pending_(vault),
      secrets_(secrets),
      providers_(providers),
      endpoint_(endpoint),
      identity_(identity),
      waiting_(waiting),
      revoker_(revoker),
      invalidations_(invalidations),
      ended_(ended),
      audit_(audit),
      clock_(clock),
      idle_(idle) {}

absl::StatusOr<std::string> Linker::Begin(const Start& start, const Passport& passport) {
  ASSIGN_OR_RETURN(const Provider provider, providers_.ForApp(*start.app));
  const absl::Time expires_at = clock_.Now() + kLinkLifetime;
  const std::string state = PendingLinks::NewState(passport.subject, start.app->uid());
  v1::LinkFlow flow;
  flow.set_subject(passport.subject);
  flow.set_session_id(passport.session_id);
  flow.set_app_uid(start.app->uid());
  flow.set_server_uid(start.server->uid());
  flow.set_redirect_uri(absl::StrCat(public_url_, "/callback/", start.app->slug()));
  flow.set_txn(start.txn);
  flow.set_return_to(start.return_to);
  flow.set_platform(start.platform);
  flow.set_token_url(provider.token_url);
  flow.set_account(start.account);
  *flow.mutable_scopes() = {start.scopes.begin(), start.scopes.end()};
  *flow.mutable_expires_at() = ToTimestamp(expires_at);
  if (start.app->pkce() != registry::v1::OFF) {
    flow.set_code_verifier(RandomToken("", 48));
  }
  AuditLog::Entry entry{.type = "link.started", .subject = passport.subject, .client_address = start.client_address};
  entry.server_uid = start.server->uid();
  entry.server_slug = start.server->slug();
  entry.actor = start.platform;
  entry.details = {{"app", start.app->slug()}, {"scopes", absl::StrJoin(start.scopes, " ")}};
  if (!start.account.empty()) {
    entry.details.emplace_back("account", start.account);
  }
  RETURN_IF_ERROR(audit_.Record(entry));

  vault::v1::PutRequest put;
  *put.mutable_record() = PendingLinks::RecordOf(state);
  put.set_payload(flow.SerializeAsString());
  put.set_expected_version(0);
  *put.mutable_next_at() = ToTimestamp(expires_at);  // Abandoned ones are cleared away.
  if (absl::StatusOr<vault::v1::PutResponse> stored = vault_.Put(put, ""); !stored.ok()) {
    return stored.status();
  }
  RETURN_IF_ERROR(pending_.Bound(state));
  CountLink(start.app->slug(), "started");

  FormFields fields = {{"response_type", "code"},
                       {"client_id", provider.client_id},
                       {"redirect_uri", flow.redirect_uri()},
                       {"state", state}};
  if (!start.scopes.empty()) {
    const std::string separator = start.app->scope_separator().empty() ? " " : start.app->scope_separator();
    fields.emplace_back("scope", absl::StrJoin(start.scopes, separator));
  }
  if (!flow.code_verifier().empty()) {
    fields.emplace_back("code_challenge", CodeChallengeS256(flow.code_verifier()));
    fields.emplace_back("code_challenge_method", "S256");
  }
  for (const auto& [name, value] : start.app->authorization_params()) {
    fields.emplace_back(name, value);
  }
  return AppendQuery(provider.authorization_url, fields);
}

absl::Status Linker::Refuse(const registry::v1::App& app, const std::string& client_address, const Passport& passport,
                            const std::string& rule) const {
  AuditLog::Entry entry{.type = "link.refused", .decision = audit::v1::DECISION_DENIED, .rule = rule};
  entry.subject = passport.subject;
  entry.client_address = client_address;
  entry.details = {{"app", app.slug()}};
  return audit_.Record(entry);
}

absl::StatusOr<v1::LinkFlow> Linker::Consume(const Return& returned, const Passport& passport,
                                             const Provider& provider) {
  const std::string state = Parameter(returned.parameters, "state");
  if (state.empty() || state.size() > 512) {
    return NoSuchFlow();
  }
  vault::v1::GetRequest get;
  *get.mutable_record() = PendingLinks::RecordOf(state);
  absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(get, "");
  if (absl::IsNotFound(record.status())) {
    return NoSuchFlow();
  }
  if (!record.ok()) {
    return record.status();
  }
  v1::LinkFlow flow;
  if (!flow.ParseFromString(record->payload())) {
    return absl::DataLossError("the pending link does not parse");
  }
  // Before anything is consumed: whoever is not the user who began it must not be able to end it either.
  if (flow.subject() != passport.subject || flow.session_id() != passport.session_id) {
    RETURN_IF_ERROR(Refuse(*returned.app, returned.client_address, passport, "link_user_mismatch"));
    return error::LinkUserMismatch("another user, or another session, began this link");
  }
  if (flow.app_uid() != returned.app->uid()) {
    RETURN_IF_ERROR(Refuse(*returned.app, returned.client_address, passport, "link_app_mismatch"));
    return WithReason(absl::InvalidArgumentError("this link was begun for another app"), "link_app_mismatch");
  }
  vault::v1::DeleteRequest consume;
  *consume.mutable_record() = get.record();
  consume.set_expected_version(record->version());
  absl::StatusOr<vault::v1::DeleteResponse> consumed = vault_.Delete(consume, "");
  if (absl::IsAborted(consumed.status()) || absl::IsNotFound(consumed.status())) {
    return NoSuchFlow();  // A duplicate of this very request was faster.
  }
  if (!consumed.ok()) {
    return consumed.status();
  }
  if (FromTimestamp(flow.expires_at()) <= clock_.Now()) {
    return NoSuchFlow();
  }
  // RFC 9207 section 2.4. Checked for errors too: a mixed-up answer must not be believed at all.
  const std::string iss = Parameter(returned.parameters, "iss");
  const bool iss_wrong = !provider.issuer.empty() && (iss.empty() ? provider.iss_promised : iss != provider.issuer);
  if (iss_wrong) {
    RETURN_IF_ERROR(Refuse(*returned.app, returned.client_address, passport, "iss_mismatch"));
    return WithReason(absl::InvalidArgumentError("the answer is another issuer's"), "iss_mismatch");
  }
  return flow;
}

absl::Status Linker::Finish(const Return& returned, const Passport& passport, Outcome* outcome) {
  const absl::Status status = Complete(returned, passport, outcome);
  CountLink(returned.app->slug(), status.ok()                   ? (outcome->unconfirmed ? "unconfirmed" : "completed")
                                  : absl::IsCancelled(status)   ? "declined"
                                  : absl::IsUnavailable(status) ? "failed"
                                                                : "refused");
  return status;
}

absl::Status Linker::Complete(const Return& returned, const Passport& passport, Outcome* outcome) {
  ASSIGN_OR_RETURN(const Provider provider, providers_.ForApp(*returned.app));
  if (provider.metadata_missing && Parameter(returned.parameters, "iss").empty()) {
    // It may be promised. The flow stays, for the page to be loaded again.
    return ProviderUnavailable(kMetadataUnavailable, absl::Seconds(10));
  }
  // Before the flow is consumed: while it cannot be had, the page can be loaded again.
  ASSIGN_OR_RETURN(const auto binding, secrets_.ReadBinding("app_binding", returned.app->uid(), 0));
  ASSIGN_OR_RETURN(const v1::LinkFlow flow, Consume(returned, passport, provider));
  CountLink(returned.app->slug(), "returned");
  outcome->txn = flow.txn();
  outcome->server_uid = flow.server_uid();
  outcome->return_to = flow.return_to();
  outcome->account = flow.account();
  outcome->platform = flow.platform();
  if (const std::string error = Parameter(returned.parameters, "error"); !error.empty()) {
    const std::string code = oauth::SafeErrorCode(error);
    RETURN_IF_ERROR(Refuse(*returned.app, returned.client_address, passport, code));
    return WithReason(absl::CancelledError("the provider was told no"), code);
  }
  if (flow.token_url() != provider.token_url) {
    RETURN_IF_ERROR(Refuse(*returned.app, returned.client_address, passport, "provider_moved"));
    return WithReason(absl::InvalidArgumentError("the app's token endpoint has changed since this link was begun"),
                      "provider_moved");
  }
  const Secret code(Parameter(returned.parameters, "code"));
  if (code.empty()) {
    return WithReason(absl::InvalidArgumentError("the provider's answer holds no code"), "code_missing");
  }
  TokenResult result = endpoint_.ExchangeCode(provider, code, flow.redirect_uri(), Secret::Copy(flow.code_verifier()));
  if (const auto* error = std::get_if<ProviderError>(&result)) {
    Log(LogLevel::kWarning, "link_exchange_failed", {{"app", returned.app->slug()}, {"failure", error->code}});
    RETURN_IF_ERROR(Refuse(*returned.app, returned.client_address, passport, error->code));
    return ProviderUnavailable(error->code, error->retry_after);
  }
  const TokenAnswer& answer = std::get<TokenAnswer>(result);
  const std::vector<std::string> asked(flow.scopes().begin(), flow.scopes().end());
  Given given{.app = *returned.app, .key = {passport.subject, ConnectionName(flow.app_uid(), flow.account())}};
  given.tokens = Linked(answer, asked, clock_.Now());
  *given.tokens.mutable_provenance() = MadeAt(provider, binding->name);
  if (v1::TokenSet::Account account = identity_.Learn(*returned.app, provider, answer, *binding);
      account.ByteSizeLong() > 0) {
    *given.tokens.mutable_account() = std::move(account);
  }
  given.bound_to = BoundTo(provider);
  given.server_uid = flow.server_uid();
  given.platform = flow.platform();
  given.client_address = returned.client_address;
  outcome->missing_scopes = MissingScopes({given.tokens.scopes().begin(), given.tokens.scopes().end()}, asked);
  return Settle(given, provider, passport, outcome);
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/resolver.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/http/field.h"
#include "common/http/url.h"
#include "common/proto_time.h"
#include "common/proto_unknown.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/string_view.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/upstream_origin.h"

namespace sallyport::token_broker {
namespace {

using registry::v1::CredentialPlan;

constexpr absl::Duration kConfigWait = absl::Seconds(1);
constexpr absl::Duration kConfigPoll = absl::Milliseconds(25);

bool IsFor(const CredentialPlan::Piece& piece, const std::optional<Passport>& passport) {
  switch (piece.callers()) {
    case CredentialPlan::SIGNED_IN:
      return passport.has_value() && !passport->session_id.empty();
    case CredentialPlan::WITH_OWN_TOKEN:
      return passport.has_value() && passport->session_id.empty();
    default:
      return true;
  }
}

v1::Scope ScopeOf(const CredentialPlan::Piece& piece) {
  switch (piece.scope()) {
    case CredentialPlan::ORG:
      return v1::ORG;
    case CredentialPlan::USER:
      return v1::USER;
    case CredentialPlan::TOKEN:
      return v1::TOKEN;
    default:
      return v1::REQUEST;
  }
}

// Where a value goes, in the words of the answer; nothing for a place that this broker does not know.
std::optional<v1::ResolveCredentialsResponse::Location> LocationOf(const CredentialPlan::Piece& piece) {
  switch (piece.location()) {
    case CredentialPlan::HEADER:
      return v1::ResolveCredentialsResponse::HEADER;
    case CredentialPlan::QUERY:
      return v1::ResolveCredentialsResponse::QUERY;
    case CredentialPlan::URL:
      return v1::ResolveCredentialsResponse::URL;
    case CredentialPlan::CLIENT_CERTIFICATE:
      return v1::ResolveCredentialsResponse::CLIENT_CERTIFICATE;
    default:
      return std::nullopt;
  }
}

// The header, parameter or address as it goes out. What is stored with a line break in it fails the request; it is
// never cleaned.
absl::StatusOr<std::string> Render(const Need& need, const Value& value) {
  const CredentialPlan::Piece& piece = *need.piece;
  const absl::string_view secret = value.secret->Expose();
  if (piece.location() == CredentialPlan::URL) {
    // The other pieces are for the origin that was named: they must not go anywhere else.
    const absl::StatusOr<Url> url = Url::Parse(secret);
    if (!url.ok() || url->origin() != need.upstream_origin) return error::OriginNotAllowed("a secret address");
  }
  if (piece.location() == CredentialPlan::HEADER && !IsFieldValue(ToStd(secret))) {
    if (value.renewable) {
      return WithReason(absl::InternalError("a stored token is no header value"), "credential_unencodable");
    }
    return error::CredentialMissing(absl::StrCat(piece.id(), " holds bytes no header may have; enter it again"));
  }
  if (piece.encoding() == CredentialPlan::BASIC) {
    const std::string& username = value.username.empty() ? piece.username() : value.username;
    return absl::StrCat("Basic ", Base64Encode(absl::StrCat(username, ":", secret)));
  }
  return absl::StrCat(piece.prefix(), secret);
}

absl::Status AddPiece(const Need& need, const Value& value, v1::ResolveCredentialsResponse* response) {
  const CredentialPlan::Piece& piece = *need.piece;
  ASSIGN_OR_RETURN(std::string rendered, Render(need, value));
  v1::ResolveCredentialsResponse::Piece* added = response->add_pieces();
  added->set_piece(piece.id());
  added->set_scope(ScopeOf(piece));
  added->set_location(LocationOf(piece).value_or(v1::ResolveCredentialsResponse::LOCATION_UNSPECIFIED));
  added->set_name(piece.name());
  added->set_value(std::move(rendered));
  added->set_uid(value.uid);
  added->set_generation(value.generation);
  added->set_version(value.version);
  added->set_connection(value.connection);
  added->set_renewable(value.renewable);
  if (value.expires_at != absl::InfiniteFuture()) {
    *added->mutable_expires_at() = ToTimestamp(value.expires_at);
  }
  if (value.renew_at != absl::InfiniteFuture()) {
    *added->mutable_renew_at() = ToTimestamp(value.renew_at);
  }
  return absl::OkStatus();
}

// What the upstream refused of this piece. An older edge names one version: that of app authentication where there is
// an account.
void SetRefused(const v1::ResolveCredentialsRequest& request, bool has_account, Need& need) {
  // Of what its user alone can replace it is not said while something else may have been refused.
  const bool users_own = need.piece->stored_credential().match() == CredentialPlan::StoredCredential::PER_USER;
  for (const auto& refused : request.refused_pieces()) {
    if (refused.piece() != need.piece->id() || (users_own && request.refused_pieces_size() > 1)) continue;
    need.refused_generation = refused.generation();
    need.refused_version = refused.version();
  }
  const bool meant = need.piece->has_user_connection() || (need.piece->has_sign_in_token() && !has_account);
  if (request.refused_pieces().empty() && meant) {
    need.refused_generation = request.refused_generation();
    need.refused_version = request.refused_version();
  }
}

}  // namespace

struct Resolver::Call {
  v1::ResolveCredentialsRequest request;
  std::optional<Passport> passport;
  v1::ResolveCredentialsResponse* response = nullptr;
  std::function<bool()> abandoned;
  std::function<void(absl::Status)> done;
  absl::Time give_up_at;
  std::shared_ptr<const RegistrySnapshot> snapshot;
  const registry::v1::McpServer* server = nullptr;

  struct Step {
    Source* source;
    std::shared_ptr<const Need> need;
  };
  std::vector<Step> steps;
  size_t next = 0;
};

Resolver::Resolver(const ControlStream& control, const Sources& sources, const AuditLog& audit, TaskRunner& runner,
                   const Clock& clock)
    : control_(control), sources_(sources), audit_(audit), runner_(runner), clock_(clock) {}

void Resolver::Resolve(const v1::ResolveCredentialsRequest& request, const std::optional<Passport>& passport,
                       v1::ResolveCredentialsResponse* response, std::function<bool()> abandoned,
                       std::function<void(absl::Status)> done) {
  auto call = std::make_shared<Call>();
  call->request = request;
  call->passport = passport;
  call->response = response;
  call->abandoned = std::move(abandoned);
  call->done = std::move(done);
  call->give_up_at = clock_.Now() + kConfigWait;
  if (BeginHere(call)) return;
  if (!runner_.Post([this, call] { Begin(call); })) {
    call->done(error::TooManyWait());
  }
}

bool Resolver::BeginHere(const CallPtr& call) {
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  const registry::v1::McpServer* server = snapshot->ServerByUid(call->request.server_uid());
  // What is refused, which goes on record, and what has to be waited for, is for a thread that may be blocked.
  if (server == nullptr || server->version() != call->request.server_version() ||
      snapshot->revision < call->request.credentials_revision()) {
    return false;
  }
  call->snapshot = snapshot;
  call->server = server;
  if (!Admit(*call).ok()) {
    return false;
  }
  if (const absl::Status status = MakeSteps(*call); !status.ok()) {
    End(call, status, /*may_block=*/false);
  } else {
    Continue(call, /*may_block=*/false);
  }
  return true;
}

void Resolver::Begin(const CallPtr& call) {
  absl::StatusOr<std::shared_ptr<const RegistrySnapshot>> snapshot =
      control_.WaitForServerVersion(call->request.server_uid(), call->request.server_version(), absl::ZeroDuration());
  if (snapshot.ok() && (*snapshot)->revision < call->request.credentials_revision()) {
    snapshot = WithReason(absl::UnavailableError("a stored credential has changed"), "config_behind");
  }
  if (absl::IsUnavailable(snapshot.status()) && clock_.Now() < call->give_up_at) {
    // Behind the caller's configuration: the stream brings it in a moment, and until then no thread waits.
    return runner_.PostAfter(kConfigPoll, [this, call] { Begin(call); });
  }
  absl::Status status = snapshot.status();
  if (status.ok()) {
    call->snapshot = *std::move(snapshot);
    call->server = call->snapshot->ServerByUid(call->request.server_uid());
    status = Admit(*call);
  }
  if (status.ok()) {
    status = MakeSteps(*call);
  }
  if (!status.ok()) {
    return End(call, status, /*may_block=*/true);
  }
  Continue(call, /*may_block=*/true);
}

void Resolver::Deny(const Call& call, const std::string& rule) const {
  AuditLog::Entry entry{.type = "credential.refused", .decision = audit::v1::DECISION_DENIED, .rule = rule};
  entry.subject = call.passport.has_value() ? call.passport->subject : "";
  entry.server_uid = call.request.server_uid();
  entry.server_slug = call.server == nullptr ? "" : call.server->slug();
  audit_.Record(entry).IgnoreError();  // A refusal stands with or without its record.
}

absl::Status Resolver::Admit(Call& call) const {
  if (call.server == nullptr || (call.server->has_enabled() && !call.server->enabled())) {
    return absl::NotFoundError("no such server");
  }
  if (call.passport.has_value() &&
      (call.passport->purpose != Passport::Purpose::kCall || call.passport->server_uid != call.request.server_uid())) {
    return error::PassportMismatch();
  }
  RETURN_IF_ERROR(CheckAccountLabel("account", call.request.account()));
  const std::string origin = UpstreamOriginOf(*call.server);
  if (origin.empty() || origin != call.request.upstream_origin()) {
    return error::OriginNotAllowed("credentials of this server");
  }
  return absl::OkStatus();
}

absl::Status Resolver::MakeSteps(Call& call) const {
  const CredentialPlan& plan = call.server->credential_plan();
  if (HasUnknownFields(plan)) {
    return error::CredentialMissing("this server needs a credential of a kind this broker does not know");
  }
  const bool has_account = std::any_of(plan.pieces().begin(), plan.pieces().end(),
                                       [](const auto& piece) { return piece.has_user_connection(); });
  if (!call.request.account().empty() && !has_account) {
    return InvalidField("account", "this server uses no account of its callers: leave it out");
  }
  const auto presented = call.request.presented_token().empty()
                             ? nullptr
                             : std::make_shared<const Secret>(std::move(*call.request.mutable_presented_token()));
  bool has_app_auth = false;
  for (const CredentialPlan::Piece& piece : plan.pieces()) {
    has_app_auth = has_app_auth || piece.id() == "app_auth";
    if (piece.renderer() == CredentialPlan::EDGE) continue;
    Source* source = sources_.Find(piece.source_case());
    if (source == nullptr || !LocationOf(piece).has_value()) {
      return error::CredentialMissing(absl::StrCat(piece.id(), " is not configured"));
    }
    if (!IsFor(piece, call.passport)) continue;
    if (piece.scope() != CredentialPlan::ORG && !call.passport.has_value()) {
      return absl::UnauthenticatedError("this server needs to know its caller");
    }
    auto need = std::make_shared<Need>();
    need->snapshot = call.snapshot;
    need->server = call.server;
    need->piece = &piece;
    need->upstream_origin = call.request.upstream_origin();
    need->passport = call.passport;
    need->abandoned = call.abandoned;
    if (piece.has_exchanged_token()) need->presented_token = presented;
    if (piece.has_user_connection()) need->account = call.request.account();
    SetRefused(call.request, has_account, *need);
    call.steps.push_back({source, std::move(need)});
  }
  if (!has_app_auth) {
    return error::CredentialMissing("app_auth is not configured");
  }
  std::stable_partition(call.steps.begin(), call.steps.end(),
                        [](const auto& step) { return step.need->piece->scope() == CredentialPlan::ORG; });
  return absl::OkStatus();
}

void Resolver::End(const CallPtr& call, const absl::Status& status, bool may_block) const {
  if (status.ok()) return call->done(status);
  call->response->Clear();
  const std::string reason = ReasonOf(status);
  const bool recorded = reason == "origin_not_allowed" || reason == "passport_mismatch";
  if (recorded && !may_block && runner_.Post([this, call, status] { End(call, status, /*may_block=*/true); })) return;
  if (recorded) Deny(*call, reason);
  call->done(status);
}

void Resolver::Continue(const CallPtr& call, bool may_block) {
  if (call->next == call->steps.size()) {
    return End(call, absl::OkStatus(), may_block);
  }
  if (call->abandoned()) {
    return End(call, absl::CancelledError("nobody waits any more"), may_block);
  }
  const Call::Step& step = call->steps[call->next];
  if (may_block) {
    return step.source->Get(step.need, [this, call](absl::StatusOr<Outcome> outcome) {
      Take(call, std::move(outcome), /*may_block=*/true);
    });
  }
  const bool known = step.source->TryGet(step.need, [this, call](absl::StatusOr<Outcome> outcome) {
    Take(call, std::move(outcome), /*may_block=*/false);
  });
  if (!known && !runner_.Post([this, call] { Continue(call, /*may_block=*/true); })) {
    End(call, error::TooManyWait(), may_block);
  }
}

void Resolver::Take(const CallPtr& call, absl::StatusOr<Outcome> outcome, bool may_block) {
  if (!outcome.ok()) {
    return End(call, outcome.status(), may_block);
  }
  if (auto* link = std::get_if<v1::LinkRequired>(&*outcome); link != nullptr) {
    // One after the other: the page for the first leads on to the next.
    if (!call->response->has_link()) *call->response->mutable_link() = std::move(*link);
  } else if (const absl::Status added =
                 AddPiece(*call->steps[call->next].need, std::get<Value>(*outcome), call->response);
             !added.ok()) {
    return End(call, added, may_block);
  }
  ++call->next;
  Continue(call, may_block);
}

}  // namespace sallyport::token_broker

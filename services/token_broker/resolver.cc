// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/resolver.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/error.h"
#include "common/http/field.h"
#include "common/http/url.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/string_view.h"
#include "common/text/utf8.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/jwt_expiry.h"
#include "services/token_broker/link_scopes.h"
#include "services/token_broker/names.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

using registry::v1::AppAuth;
using registry::v1::OutboundHeader;

constexpr absl::Duration kConfigWait = absl::Seconds(1);
constexpr absl::Duration kConfigPoll = absl::Milliseconds(25);
// An upstream that refuses so many renewed tokens in a row, 30 s apart, has not only stumbled: perhaps another account
// helps.
constexpr int kRenewalsBeforeLink = 5;

std::string PieceOf(const OutboundHeader& header) {
  return absl::StrCat("outbound_headers[", absl::AsciiStrToLower(header.name()), "]");
}

// The account is linked, and its provider renews it: connecting it again would change nothing.
absl::Status RenewedTokenRefused(const std::string& app, absl::Duration retry_after) {
  return WithDetail(
      absl::UnavailableError(absl::StrCat("the server refuses the token that ", Utf8Prefix(app, 64),
                                          " has just renewed; your account is still connected, try again")),
      {.reason = kRenewedTokenRefused, .retry_after = std::max(retry_after, absl::Seconds(1))});
}

// A sign-in's token that has ended, and cannot be renewed. One that an upstream refused although it is good at the
// provider is none: signing in again would bring another just like it, and an upstream could send people to sign in for
// ever.
bool HasEnded(const SharedConnection& view) {
  return view->state != ConnectionView::State::kLinked && !view->refused_again;
}

}  // namespace

struct Resolver::Call {
  v1::ResolveCredentialsRequest request;
  std::optional<Passport> passport;
  v1::ResolveCredentialsResponse* response = nullptr;
  std::function<void(absl::Status)> done;
  absl::Time give_up_at;
  std::shared_ptr<const RegistrySnapshot> snapshot;
  const registry::v1::McpServer* server = nullptr;
  const registry::v1::App* app = nullptr;
  std::shared_ptr<const SecretReader::Binding> binding;  // The app's.

  struct UserPiece {
    Connections::Need need;
    std::string piece;
    std::string name;
    std::string prefix;
    v1::Scope scope = v1::SCOPE_UNSPECIFIED;
    std::string uid;
  };
  std::vector<UserPiece> user_pieces;
  size_t next = 0;

  void AddPiece(const std::string& piece, v1::Scope scope, const std::string& name, std::string value, bool in_query,
                const std::string& uid, int64_t version) {
    v1::ResolveCredentialsResponse::Piece* added = response->add_pieces();
    added->set_piece(piece);
    added->set_scope(scope);
    added->set_location(in_query ? v1::ResolveCredentialsResponse::QUERY : v1::ResolveCredentialsResponse::HEADER);
    added->set_name(name);
    added->set_value(std::move(value));
    added->set_uid(uid);
    added->set_version(version);
  }
};

Resolver::Resolver(const ControlStream& control, SecretReader& secrets, Connections& connections, SignIns& sign_ins,
                   const AuditLog& audit, TaskRunner& runner, const Clock& clock)
    : control_(control),
      secrets_(secrets),
      connections_(connections),
      sign_ins_(sign_ins),
      audit_(audit),
      runner_(runner),
      clock_(clock) {}

void Resolver::Resolve(const v1::ResolveCredentialsRequest& request, const std::optional<Passport>& passport,
                       v1::ResolveCredentialsResponse* response, std::function<void(absl::Status)> done) {
  auto call = std::make_shared<Call>();
  call->request = request;
  call->passport = passport;
  call->response = response;
  call->done = std::move(done);
  call->give_up_at = clock_.Now() + kConfigWait;
  if (!runner_.Post([this, call] { Begin(call); })) {
    call->done(WithRetryAfter(absl::UnavailableError("too many requests wait here"), absl::Seconds(1)));
  }
}

void Resolver::Begin(const CallPtr& call) {
  absl::StatusOr<std::shared_ptr<const RegistrySnapshot>> snapshot =
      control_.WaitForServerVersion(call->request.server_uid(), call->request.server_version(), absl::ZeroDuration());
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
    status = AddStaticPieces(*call);
  }
  if (status.ok()) {
    status = PlanUserPieces(*call);
  }
  if (!status.ok()) {
    call->response->Clear();
    return call->done(status);
  }
  Continue(call);
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
    Deny(call, "passport_mismatch");
    return error::PassportMismatch();
  }
  const absl::StatusOr<Url> upstream = Url::Parse(call.server->upstream_url());
  if (!upstream.ok() || upstream->origin() != call.request.upstream_origin()) {
    Deny(call, "origin_not_allowed");
    return error::OriginNotAllowed("credentials of this server");
  }
  return absl::OkStatus();
}

absl::Status Resolver::AddSecret(Call& call, const std::string& piece, const std::string& name,
                                 const std::string& prefix, const common::v1::Secret& secret, bool in_query) {
  if (!secret.set() || secret.vault_record().empty()) {
    return error::CredentialMissing(absl::StrCat(piece, " has no stored value; enter it again"));
  }
  const absl::StatusOr<std::shared_ptr<const Secret>> read = secrets_.Read(
      OrganizationRecord("server_secret", secret.vault_record()), secret.version(), {call.request.upstream_origin()});
  if (absl::IsPermissionDenied(read.status())) {
    Deny(call, "origin_not_allowed");
  }
  RETURN_IF_ERROR(read.status());
  const std::shared_ptr<const Secret>& value = *read;
  // What is stored with a line break in it fails the request; it is never cleaned.
  if (!in_query && !IsFieldValue(ToStd(value->Expose()))) {
    return error::CredentialMissing(absl::StrCat(piece, " holds bytes no header may have; enter it again"));
  }
  call.AddPiece(piece, v1::ORG, name, absl::StrCat(prefix, value->Expose()), in_query, call.server->uid(),
                secret.version());
  return absl::OkStatus();
}

absl::Status Resolver::AddStaticPieces(Call& call) {
  const AppAuth& auth = call.server->app_auth();
  switch (auth.method_case()) {
    case AppAuth::kApiKey: {
      const bool in_query = auth.api_key().location() == registry::v1::QUERY;
      RETURN_IF_ERROR(AddSecret(call, "app_auth", auth.api_key().name(), in_query ? "" : auth.api_key().prefix(),
                                auth.api_key().value(), in_query));
      break;
    }
    case AppAuth::kBearer:
      RETURN_IF_ERROR(AddSecret(call, "app_auth", "Authorization", "Bearer ", auth.bearer().token(), false));
      break;
    case AppAuth::kBasic: {
      RETURN_IF_ERROR(AddSecret(call, "app_auth", "Authorization", absl::StrCat(auth.basic().username(), ":"),
                                auth.basic().password(), false));
      std::string* value = call.response->mutable_pieces(call.response->pieces_size() - 1)->mutable_value();
      *value = absl::StrCat("Basic ", Base64Encode(*value));
      break;
    }
    case AppAuth::kOauthAuthorization:
    case AppAuth::kPassthrough:
      break;
    default:
      return error::CredentialMissing("app_auth is not configured");
  }
  for (const OutboundHeader& header : call.server->outbound_headers()) {
    if (header.source_case() == OutboundHeader::kLiteral) {
      if (header.literal().has_secret_value()) {
        RETURN_IF_ERROR(
            AddSecret(call, PieceOf(header), header.name(), header.prefix(), header.literal().secret_value(), false));
      } else {
        call.AddPiece(PieceOf(header), v1::ORG, header.name(), absl::StrCat(header.prefix(), header.literal().value()),
                      false, call.server->uid(), 0);
      }
    } else if (header.source_case() != OutboundHeader::kForwardCallerToken &&
               header.source_case() != OutboundHeader::kCallerIdentity) {
      return error::CredentialMissing(absl::StrCat(PieceOf(header), " is not configured"));
    }
  }
  return absl::OkStatus();
}

absl::Status Resolver::PlanUserPieces(Call& call) {
  const AppAuth& auth = call.server->app_auth();
  absl::Status anonymous = absl::UnauthenticatedError("this server needs to know its caller");
  if (auth.method_case() == AppAuth::kOauthAuthorization) {
    if (!call.passport.has_value()) {
      return anonymous;
    }
    call.app = call.snapshot->AppByUid(auth.oauth_authorization().app_uid());
    if (call.app == nullptr) {
      return error::CredentialMissing("the app of this server is gone");
    }
    const auto& allowed = call.app->allowed_upstream_origins();
    ASSIGN_OR_RETURN(call.binding, secrets_.ReadBinding("app_binding", call.app->uid(), call.app->binding().version()));
    // What is sealed bounds what the configuration says.
    if (std::find(allowed.begin(), allowed.end(), call.request.upstream_origin()) == allowed.end() ||
        !call.binding->Allows(call.request.upstream_origin())) {
      Deny(call, "origin_not_allowed");
      return error::OriginNotAllowed("tokens of this app");
    }
    Call::UserPiece piece{.piece = "app_auth", .name = "Authorization", .prefix = "Bearer ", .scope = v1::USER};
    piece.uid = call.app->uid();
    piece.need.key = {call.passport->subject, call.app->uid()};
    piece.need.refused_generation = call.request.refused_generation();
    piece.need.refused_version = call.request.refused_version();
    call.user_pieces.push_back(std::move(piece));
  }
  for (const OutboundHeader& header : call.server->outbound_headers()) {
    // A token that was presented is the edge's to forward; ours stands for the sign-in behind it. Only ours have a
    // session.
    const bool ours =
        call.passport.has_value() && !call.passport->session_id.empty() && call.server->agent_auth().has_interactive();
    if (header.source_case() != OutboundHeader::kForwardCallerToken || !ours) {
      continue;
    }
    ASSIGN_OR_RETURN(const auto binding,
                     secrets_.ReadBinding("server_binding", call.server->uid(), call.server->binding().version()));
    if (!binding->Allows(call.request.upstream_origin())) {
      Deny(call, "origin_not_allowed");
      return error::OriginNotAllowed("tokens of sign-ins");
    }
    const std::string connector = call.passport->subject.substr(0, call.passport->subject.find(':'));
    Call::UserPiece piece{
        .piece = PieceOf(header), .name = header.name(), .prefix = header.prefix(), .scope = v1::TOKEN};
    piece.uid = absl::StrCat("sso:", connector);
    piece.need.key = {call.passport->subject, piece.uid};
    piece.need.id_token = header.forward_caller_token().token() == registry::v1::ID;
    if (auth.method_case() != AppAuth::kOauthAuthorization) {
      // Else it is the app's token that was refused: a request names one version.
      piece.need.refused_generation = call.request.refused_generation();
      piece.need.refused_version = call.request.refused_version();
    }
    call.user_pieces.push_back(std::move(piece));
  }
  for (Call::UserPiece& piece : call.user_pieces) {
    piece.need.passport = call.passport->jwt;
  }
  return absl::OkStatus();
}

absl::Status Resolver::AddUserPiece(Call& call, const SharedConnection& view) {
  const Call::UserPiece& piece = call.user_pieces[call.next];
  const bool is_app = piece.piece == "app_auth";
  // Linked when another binding said where its tokens may go: one that was made anew does not speak for it.
  const std::string& linked_under = view->provenance.binding();
  const bool stranger = is_app && view->state == ConnectionView::State::kLinked && !linked_under.empty() &&
                        !call.binding->pending && linked_under != call.binding->name;
  if (is_app && !stranger && view->state == ConnectionView::State::kLinked && linked_under.empty() &&
      !call.binding->pending) {
    SealBehind(call);
  }
  const bool dead = stranger || view->state != ConnectionView::State::kLinked || view->refused_again;
  if (dead && !is_app) {
    return NoCallerToken();
  }
  const bool renewed = view->state == ConnectionView::State::kLinked && view->refused_again;
  if (renewed && view->forced_in_a_row < kRenewalsBeforeLink) {
    return RenewedTokenRefused(NameOf(*call.app), view->forced_next - clock_.Now());
  }
  const std::vector<std::string> needed = is_app ? NeededScopes(*call.app, *call.server) : std::vector<std::string>();
  const bool missing_scope = !dead && !MissingScopes(view->scopes, needed).empty();
  if (dead || missing_scope) {
    v1::LinkRequired* link = call.response->mutable_link();
    link->set_app_uid(call.app->uid());
    link->set_app_slug(call.app->slug());
    link->set_app_display_name(NameOf(*call.app));
    link->set_reason(missing_scope                                   ? v1::LinkRequired::MISSING_SCOPE
                     : view->state == ConnectionView::State::kAbsent ? v1::LinkRequired::NOT_LINKED
                                                                     : v1::LinkRequired::NEEDS_REAUTH);
    return absl::OkStatus();
  }
  const Secret& token = piece.need.id_token ? view->id_token : view->access_token;
  if (!IsFieldValue(ToStd(token.Expose()))) {
    return WithReason(absl::InternalError("a stored token is no header value"), "credential_unencodable");
  }
  call.AddPiece(piece.piece, piece.scope, piece.name, absl::StrCat(piece.prefix, token.Expose()), false, piece.uid,
                view->version);
  v1::ResolveCredentialsResponse::Piece* added = call.response->mutable_pieces(call.response->pieces_size() - 1);
  added->set_generation(view->generation);
  added->set_connection(piece.need.key.connection);
  TokenTimes times = view->times;
  if (piece.need.id_token) {
    times.expires_at = JwtExpiry(token.Expose());
  }
  if (times.expires_at != absl::InfiniteFuture()) {
    const absl::Time now = clock_.Now();
    // The end a receiver may rely on: it keeps no skew of its own.
    const absl::Time end = times.expires_at - ExpirySkew(times);
    const absl::Time renew = times.expires_at - RenewalLead(times, piece.need.key.ToString());
    *added->mutable_expires_at() = ToTimestamp(end);
    // While a renewal is under way it is asked for again, but not at once.
    *added->mutable_renew_at() =
        ToTimestamp(std::min(end, std::max(renew, now + std::min(absl::Seconds(5), (end - now) / 2))));
  }
  return absl::OkStatus();
}

void Resolver::SealBehind(const Call& call) {
  const Call::UserPiece& piece = call.user_pieces[call.next];
  // Not while the caller waits; and if there is no room now, at the next call.
  (void)runner_.Post([this, key = piece.need.key, passport = piece.need.passport, binding = call.binding->name] {
    connections_.SealProvenance(key, passport, binding);
  });
}

void Resolver::EndSignIn(const CallPtr& call) {
  // Not on the thread that brought the news: it may be one of those that renew.
  const bool posted = runner_.Post([this, call] {
    call->response->Clear();
    call->done(sign_ins_.End(call->passport->jwt));
  });
  if (!posted) {
    call->response->Clear();
    call->done(WithRetryAfter(absl::UnavailableError("too many requests wait here"), absl::Seconds(1)));
  }
}

void Resolver::Continue(const CallPtr& call) {
  if (call->next == call->user_pieces.size()) {
    return call->done(absl::OkStatus());
  }
  connections_.Current(call->user_pieces[call->next].need, [this, call](absl::StatusOr<SharedConnection> view) {
    const Call::UserPiece& piece = call->user_pieces[call->next];
    if (view.ok() && piece.piece != "app_auth" && HasEnded(*view)) {
      return EndSignIn(call);
    }
    const std::string name = piece.piece == "app_auth"
                                 ? NameOf(*call->app)
                                 : absl::StrCat("the identity provider ", absl::StripPrefix(piece.uid, "sso:"));
    const absl::Status status = view.ok() ? AddUserPiece(*call, *view) : NameProvider(view.status(), name);
    if (!status.ok()) {
      call->response->Clear();
      return call->done(status);
    }
    ++call->next;
    Continue(call);
  });
}

}  // namespace sallyport::token_broker

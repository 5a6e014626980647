// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/sign_in_token.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/sources/connection_value.h"

namespace sallyport::token_broker {
namespace {

// A token that has ended, and cannot be renewed. One that an upstream refused although it is good at the provider is
// none: signing in again would bring another just like it, and an upstream could send people to sign in for ever.
bool HasEnded(const ConnectionView& view) {
  return view.state != ConnectionView::State::kLinked && !view.refused_again;
}

}  // namespace

absl::Status CheckServerBinding(SecretReader& secrets, const Need& need, absl::string_view what) {
  ASSIGN_OR_RETURN(const auto binding,
                   secrets.ReadBinding("server_binding", need.server->uid(), need.server->binding().version()));
  return binding->Allows(need.upstream_origin) ? absl::OkStatus() : error::OriginNotAllowed(what);
}

std::string SignInTokenSource::CacheKey(const Need& need) const {
  return KeyOf({need.passport->subject, need.connector(), Plan::TokenKind_Name(need.piece->sign_in_token().kind())});
}

void SignInTokenSource::EndSignIn(const std::string& passport, TokenDone done) {
  // Not on the thread that brought the news: it may be one of those that renew.
  const auto shared = std::make_shared<TokenDone>(std::move(done));
  if (!runner_.Post([this, shared, passport] { (*shared)(sign_ins_.End(passport)); })) {
    (*shared)(WithRetryAfter(absl::UnavailableError("too many requests wait here"), absl::Seconds(1)));
  }
}

void SignInTokenSource::Current(const Wish& wish, TokenDone done) {
  Connections::Need wanted;
  wanted.key = {wish.subject, absl::StrCat("sso:", wish.connector)};
  wanted.passport = wish.passport;
  wanted.refused_generation = wish.refused_generation;
  wanted.refused_version = wish.refused_version;
  wanted.id_token = wish.id_token;
  connections_.Current(wanted, [this, wanted, connector = wish.connector,
                                done = std::move(done)](absl::StatusOr<SharedConnection> view) {
    if (!view.ok()) {
      return done(NameProvider(view.status(), absl::StrCat("the identity provider ", connector)));
    }
    if (HasEnded(**view)) {
      return EndSignIn(wanted.passport, done);
    }
    if ((*view)->state != ConnectionView::State::kLinked || (*view)->refused_again) {
      return done(NoCallerToken());
    }
    done(ValueOf(wanted.key, *view, wanted.id_token, clock_.Now()));
  });
}

void SignInTokenSource::Get(const std::shared_ptr<const Need>& need, Done done) {
  if (const absl::Status allowed = CheckServerBinding(secrets_, *need, "tokens of sign-ins"); !allowed.ok()) {
    return done(allowed);
  }
  Wish wish = {need->passport->subject, need->connector(), need->passport->jwt,
               need->piece->sign_in_token().kind() == Plan::ID};
  wish.refused_generation = need->refused_generation;
  wish.refused_version = need->refused_version;
  Current(wish, [done = std::move(done)](absl::StatusOr<Value> value) {
    if (!value.ok()) {
      return done(value.status());
    }
    done(Outcome(*std::move(value)));
  });
}

}  // namespace sallyport::token_broker

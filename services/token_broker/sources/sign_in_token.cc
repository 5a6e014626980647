// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/sign_in_token.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "services/token_broker/connection_name.h"
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

bool WantsFurther(const Need& need) {
  return !need.piece->sign_in_token().scopes().empty() || !need.piece->sign_in_token().resource().empty();
}

}  // namespace

absl::Status CheckServerBinding(SecretReader& secrets, const Need& need, absl::string_view what) {
  ASSIGN_OR_RETURN(const auto binding,
                   secrets.ReadBinding("server_binding", need.server->uid(), need.server->binding().version()));
  return binding->Allows(need.upstream_origin) ? absl::OkStatus() : error::OriginNotAllowed(what);
}

std::string SignInTokenSource::CacheKey(const Need& need) const {
  const Plan::SignInToken& token = need.piece->sign_in_token();
  return KeyOf({need.passport->subject, need.connector(), Plan::TokenKind_Name(token.kind()),
                absl::StrJoin(token.scopes(), " "), token.resource()});
}

void SignInTokenSource::Current(const Wish& wish, TokenDone done) {
  Connections::Need wanted;
  wanted.key = {wish.subject, SignInName(wish.connector)};
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
      return sign_ins_.End(wanted.passport, done);
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
  if (!need->signed_in()) {
    return done(NoCallerToken());
  }
  Wish wish = {need->passport->subject, need->connector(), need->passport->jwt,
               need->piece->sign_in_token().kind() == Plan::ID};
  const bool further = WantsFurther(*need);
  if (!further) {
    // Otherwise it is the other token that was refused.
    wish.refused_generation = need->refused_generation;
    wish.refused_version = need->refused_version;
  }
  Current(wish, [this, need, further, done = std::move(done)](absl::StatusOr<Value> value) {
    if (!value.ok()) {
      return done(value.status());
    }
    if (further) {
      return GetFurther(need, *value, done);
    }
    done(Outcome(*std::move(value)));
  });
}

void SignInTokenSource::GetFurther(const std::shared_ptr<const Need>& need, const Value& own, Done done) {
  if (need->abandoned()) {
    return done(absl::CancelledError("nobody waits any more"));
  }
  const Plan::SignInToken& token = need->piece->sign_in_token();
  FurtherTokens::Wish wish;
  wish.sign_in = {need->passport->subject, own.connection};
  wish.passport = need->passport->jwt;
  wish.generation = own.generation;
  wish.scope = absl::StrJoin(token.scopes(), " ");
  wish.resource = token.resource();
  wish.refused_version = need->refused_version;
  further_.Get(wish, [this, need, own, done = std::move(done)](const absl::StatusOr<SharedConnection>& further) {
    if (!further.ok()) {
      return done(further.status());
    }
    Value value = own;
    value.secret = std::shared_ptr<const Secret>(*further, &(*further)->access_token);
    value.version = (*further)->version;
    value.expires_at = value.renew_at = absl::InfiniteFuture();
    SetTimes((*further)->times, CacheKey(*need), clock_.Now(), &value);
    done(Outcome(std::move(value)));
  });
}

}  // namespace sallyport::token_broker

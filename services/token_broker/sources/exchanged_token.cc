// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/exchanged_token.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/hex.h"
#include "common/text/json.h"
#include "services/token_broker/consent.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/jwt_expiry.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/sources/connection_value.h"

namespace sallyport::token_broker {
namespace {

constexpr char kExchangeGrant[] = "urn:ietf:params:oauth:grant-type:token-exchange";
constexpr char kJwtBearerGrant[] = "urn:ietf:params:oauth:grant-type:jwt-bearer";
constexpr char kAccessTokenType[] = "urn:ietf:params:oauth:token-type:access_token";
constexpr char kIdTokenType[] = "urn:ietf:params:oauth:token-type:id_token";

// What a token says, unverified; null if it is no JWT.
nlohmann::json ClaimsOf(absl::string_view token) {
  const std::vector<absl::string_view> parts = absl::StrSplit(token, '.');
  const absl::StatusOr<std::string> payload =
      parts.size() == 3 ? Base64UrlDecode(parts[1]) : absl::StatusOr<std::string>(absl::NotFoundError(""));
  const absl::StatusOr<nlohmann::json> claims =
      payload.ok() ? ParseJsonObject(*payload) : absl::StatusOr<nlohmann::json>(payload.status());
  return claims.ok() ? *claims : nlohmann::json();
}

// Both say it, and say something else.
bool Differ(const nlohmann::json& a, const nlohmann::json& b, const char* claim) {
  const auto first = a.is_object() ? JsonString(a, claim) : std::nullopt;
  const auto second = b.is_object() ? JsonString(b, claim) : std::nullopt;
  return first.has_value() && second.has_value() && *first != *second;
}
bool Agree(const nlohmann::json& a, const nlohmann::json& b, const char* claim) {
  const auto first = a.is_object() ? JsonString(a, claim) : std::nullopt;
  return first.has_value() && b.is_object() && first == JsonString(b, claim);
}

// The new token is another person's. Entra's `oid` is one person's in every application, where `sub` is not; of others
// `sub` is compared where one issuer made both.
bool IsOfAnother(const nlohmann::json& subject, const nlohmann::json& issued) {
  if (Agree(subject, issued, "oid")) {
    return false;
  }
  return Differ(subject, issued, "oid") || (Agree(subject, issued, "iss") && Differ(subject, issued, "sub"));
}

// Entra: a token that an application got for itself. There is no user in it on whose behalf anything could be asked.
bool IsAppOnly(const nlohmann::json& claims) {
  if (!claims.is_object() || JsonMember(claims, "scp") != nullptr) {
    return false;
  }
  return JsonString(claims, "idtyp") == "app" ||
         Agree(claims, nlohmann::json{{"oid", JsonString(claims, "sub").value_or("")}}, "oid");
}

absl::Status Invalid(absl::string_view what) {
  return WithReason(
      absl::FailedPreconditionError(
          absl::StrCat("the token exchange gave ", what, "; the server's administrator can correct its configuration")),
      kExchangeInvalid);
}

}  // namespace

std::string ExchangedTokenSource::CacheKey(const Need& need) const {
  const std::string presented =
      need.presented_token == nullptr ? "" : HexEncode(Sha256(need.presented_token->Expose()));
  return absl::StrCat("exchange ", KeyOf({need.server->uid(), DigestOf(need.piece->exchanged_token()),
                                          need.passport.has_value() ? need.passport->subject : "", presented}));
}

void ExchangedTokenSource::Get(const std::shared_ptr<const Need>& need, Done done) {
  if (const absl::Status allowed = CheckServerBinding(secrets_, *need, "tokens exchanged for this server");
      !allowed.ok()) {
    return done(allowed);
  }
  if (need->piece->callers() != Plan::SIGNED_IN) {
    if (need->presented_token == nullptr || need->presented_token->empty()) {
      return done(absl::UnauthenticatedError("this server needs the caller's token"));
    }
    return Exchange(need, {need->presented_token, JwtExpiry(need->presented_token->Expose())}, std::move(done));
  }
  const SignInTokenSource::Wish wish = {need->passport->subject, need->connector(), need->passport->jwt,
                                        need->piece->exchanged_token().subject() == Plan::ID};
  sign_in_tokens_.Current(wish, [this, need, done = std::move(done)](absl::StatusOr<Value> token) {
    if (!token.ok()) {
      return done(token.status());
    }
    Exchange(need, {token->secret, token->expires_at},
             [this, need, last = token->consent, done](absl::StatusOr<Outcome> outcome) {
               done(OfferConsent(*need, last, std::move(outcome)));
             });
  });
}

absl::StatusOr<Outcome> ExchangedTokenSource::OfferConsent(const Need& need, const v1::TokenSet::Consent& last,
                                                           absl::StatusOr<Outcome> outcome) const {
  const std::optional<std::string> claims = ConsentWantedBy(outcome.status());
  if (!claims.has_value()) {
    return outcome;
  }
  // Nothing has changed since they agreed: agreeing again would not change anything either.
  return HasConsented(last, *need.server, clock_.Now())
             ? absl::StatusOr<Outcome>(InWords(outcome.status()))
             : absl::StatusOr<Outcome>(ConsentLink(need.passport->subject, *claims));
}

void ExchangedTokenSource::Exchange(const std::shared_ptr<const Need>& need, Subject subject, Done done) {
  if (need->abandoned()) {
    return done(absl::CancelledError("nobody waits any more"));
  }
  const std::string key = absl::StrCat(CacheKey(*need), " ", HexEncode(Sha256(subject.token->Expose())));
  const auto finish = [this, need, key, done](const absl::StatusOr<SharedConnection>& token) {
    if (!token.ok()) {
      return done(token.status());
    }
    Value value;
    value.secret = std::shared_ptr<const Secret>(*token, &(*token)->access_token);
    value.uid = need->server->uid();
    value.version = (*token)->version;
    value.renewable = true;
    SetTimes((*token)->times, key, clock_.Now(), &value);
    done(Outcome(std::move(value)));
  };
  const Plan::ExchangedToken& wanted = need->piece->exchanged_token();
  if (wanted.style() == Plan::ExchangedToken::ENTRA_OBO && IsAppOnly(ClaimsOf(subject.token->Expose()))) {
    return done(WithReason(absl::FailedPreconditionError(
                               "this call came with the token of an application, not of a person: there is nobody on "
                               "whose behalf a token could be asked for"),
                           kAppOnlyToken));
  }
  const std::string lane = OriginOf(wanted.client().token_url());
  const auto exchange = [this, need, key, lane, subject, finish](const std::shared_ptr<const Secret>& actor) {
    const auto fetch = [this, need, subject, actor] { return Fetch(*need, subject, actor); };
    tokens_.Get(key, need->refused_version, FetchedTokens::InLane(fetchers_, lane, fetch), finish);
  };
  if (!wanted.actor() || tokens_.Usable(key, need->refused_version) != nullptr) {
    return exchange(nullptr);
  }
  const auto fetch_actor = [this, need]() -> absl::StatusOr<std::shared_ptr<ConnectionView>> {
    const Plan::Client& client = need->piece->exchanged_token().client();
    ASSIGN_OR_RETURN(TokenAnswer answer, client_.AskForItself(client, Plan::ServiceToken()));
    return client_.ViewOf(client, std::move(answer));
  };
  actors_.Get(KeyOf({need->server->uid(), DigestOf(wanted.client())}), 0,
              FetchedTokens::InLane(fetchers_, lane, fetch_actor),
              [exchange, finish](const absl::StatusOr<SharedConnection>& actor) {
                if (!actor.ok()) {
                  return finish(actor.status());
                }
                exchange(std::shared_ptr<const Secret>(*actor, &(*actor)->access_token));
              });
}

FormFields ExchangedTokenSource::FieldsOf(const Plan::ExchangedToken& wanted, const Secret& subject,
                                          const Secret* actor) {
  FormFields fields;
  if (wanted.style() == Plan::ExchangedToken::ENTRA_OBO) {
    fields = {{"grant_type", kJwtBearerGrant},
              {"assertion", std::string(subject.Expose())},
              {"requested_token_use", "on_behalf_of"}};
    AddScopes(wanted.scopes(), &fields);
    return fields;
  }
  const char* type = wanted.subject() == Plan::ID ? kIdTokenType : kAccessTokenType;
  fields = {{"grant_type", kExchangeGrant},
            {"subject_token", std::string(subject.Expose())},
            {"subject_token_type", wanted.subject_token_type().empty() ? type : wanted.subject_token_type()}};
  AddUnlessEmpty("requested_token_type", wanted.requested_token_type(), &fields);
  AddUnlessEmpty("audience", wanted.audience(), &fields);
  AddUnlessEmpty("resource", wanted.resource(), &fields);
  AddScopes(wanted.scopes(), &fields);
  if (actor != nullptr) {
    fields.emplace_back("actor_token", std::string(actor->Expose()));
    fields.emplace_back("actor_token_type", kAccessTokenType);
  }
  return fields;
}

absl::StatusOr<std::shared_ptr<ConnectionView>> ExchangedTokenSource::Fetch(
    const Need& need, const Subject& subject, const std::shared_ptr<const Secret>& actor) {
  const Plan::ExchangedToken& wanted = need.piece->exchanged_token();
  std::string claims;
  absl::StatusOr<TokenAnswer> asked =
      client_.Ask(wanted.client(), FieldsOf(wanted, *subject.token, actor.get()), &claims);
  if (DetailOf(asked.status()).oauth_error == "unsupported_token_type") {
    return Invalid("a token that is no bearer token");
  }
  if (!asked.ok()) {
    // Whose token did not come from a sign-in here gets a stronger one where they got it.
    return need.piece->callers() == Plan::SIGNED_IN ? MendedByConsent(asked.status(), claims) : asked.status();
  }
  TokenAnswer answer = *std::move(asked);
  const std::string& requested = wanted.requested_token_type();
  if (!requested.empty() && !answer.issued_token_type.empty() && answer.issued_token_type != requested) {
    return Invalid("a token of another type than was asked for");
  }
  if (IsOfAnother(ClaimsOf(subject.token->Expose()), ClaimsOf(answer.access_token.Expose()))) {
    return Invalid("a token of another person than the caller");
  }
  std::shared_ptr<ConnectionView> view = client_.ViewOf(wanted.client(), std::move(answer));
  view->times.expires_at = std::min(view->times.expires_at, subject.expires_at);
  return view;
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/further_tokens.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/jwt_expiry.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/sources/source.h"
#include "services/token_broker/sources/token_client.h"

namespace sallyport::token_broker {
namespace {

// A provider that says invalid_grant of an audience says it each time; the sign-in is not renewed for that each time.
constexpr absl::Duration kGoodFor = absl::Minutes(5);
constexpr size_t kMaxGood = 10'000;

std::string NameOf(const ConnectionKey& sign_in) {
  return absl::StrCat("the identity provider ", ConnectorIn(sign_in.connection));
}

absl::Status NoRefreshToken(const ConnectionKey& sign_in) {
  return WithReason(absl::FailedPreconditionError(
                        absl::StrCat(NameOf(sign_in),
                                     " gave no refresh token at the sign-in, with which a token for this server "
                                     "would be asked for: an administrator can add offline_access to its scopes")),
                    "no_caller_token");
}

absl::Status SignedInAgain() {
  return WithRetryAfter(absl::UnavailableError("the caller has signed in again meanwhile"), absl::Seconds(1));
}

bool MayBeTheGrant(const ProviderError& refusal) {
  return refusal.failure == ProviderFailure::kInvalidGrant || refusal.failure == ProviderFailure::kGrantDoubted;
}

}  // namespace

void FurtherTokens::Get(const Wish& wish, FetchedTokens::Done done) {
  const std::string key =
      KeyOf({wish.sign_in.subject, wish.sign_in.connection, absl::StrCat(wish.generation), wish.scope, wish.resource});
  tokens_.Get(
      key, wish.refused_version, [this, &wish](const Fetched& fetched) { Fetch(wish, fetched); }, std::move(done));
}

void FurtherTokens::Fetch(const Wish& wish, const Fetched& done) {
  const auto further = std::make_shared<FurtherToken>();
  further->scope = wish.scope;
  further->resource = wish.resource;
  connections_.AskFurther(wish.sign_in, wish.passport, further,
                          [this, wish, further, done](const absl::StatusOr<SharedConnection>& head) {
                            if (!head.ok()) {
                              return done(NameProvider(head.status(), NameOf(wish.sign_in)));
                            }
                            Conclude(wish, *further, **head, done);
                          });
}

void FurtherTokens::Conclude(const Wish& wish, FurtherToken& further, const ConnectionView& head, const Fetched& done) {
  if (head.state != ConnectionView::State::kLinked) {
    return sign_ins_.End(wish.passport, done);
  }
  if (head.generation != wish.generation) {
    return done(SignedInAgain());
  }
  if (!further.outcome.has_value()) {
    return done(head.can_refresh ? ProviderUnavailable(kRenewalUnderWay, absl::Seconds(1))
                                 : NoRefreshToken(wish.sign_in));
  }
  if (const auto* refusal = std::get_if<ProviderError>(&*further.outcome); refusal != nullptr) {
    const absl::Status words = RefusalInWords(*refusal, NameOf(wish.sign_in));
    return MayBeTheGrant(*refusal) && !IsKnownGood(wish) ? Examine(wish, head, words, done) : done(words);
  }
  auto& answer = std::get<TokenAnswer>(*further.outcome);
  auto view = std::make_shared<ConnectionView>();
  view->state = ConnectionView::State::kLinked;
  view->generation = wish.generation;
  view->times.obtained_at = clock_.Now();
  view->times.expires_at = answer.expires_in.has_value() ? view->times.obtained_at + *answer.expires_in
                                                         : JwtExpiry(answer.access_token.Expose());
  view->access_token = std::move(answer.access_token);
  done(std::move(view));
}

// An identity provider says invalid_grant of a refresh token that has ended, and of one that is good and may not be
// used for this audience.
void FurtherTokens::Examine(const Wish& wish, const ConnectionView& head, const absl::Status& refusal,
                            const Fetched& done) {
  Connections::Need need;
  need.key = wish.sign_in;
  need.passport = wish.passport;
  need.refused_generation = head.generation;
  need.refused_version = head.version;
  // On another thread: those that bring news must not be kept.
  const bool posted = runner_.Post([this, wish, need, refusal, done] {
    connections_.Current(need, [this, wish, refusal, done](const absl::StatusOr<SharedConnection>& view) {
      if (!view.ok()) {
        return done(NameProvider(view.status(), NameOf(wish.sign_in)));
      }
      if ((*view)->state != ConnectionView::State::kLinked && !(*view)->refused_again) {
        return sign_ins_.End(wish.passport, done);
      }
      NoteGood(wish);
      done(refusal);
    });
  });
  if (!posted) {
    done(error::TooManyWait());
  }
}

bool FurtherTokens::IsKnownGood(const Wish& wish) {
  MutexLock lock(mu_);
  const auto found = good_.find({wish.sign_in.ToString(), wish.generation});
  return found != good_.end() && clock_.Now() < found->second + kGoodFor;
}

void FurtherTokens::NoteGood(const Wish& wish) {
  MutexLock lock(mu_);
  if (good_.size() >= kMaxGood) {
    good_.clear();  // Examined once more, then.
  }
  good_[{wish.sign_in.ToString(), wish.generation}] = clock_.Now();
}

}  // namespace sallyport::token_broker

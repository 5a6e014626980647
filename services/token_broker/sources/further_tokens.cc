// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/further_tokens.h"

#include <chrono>
#include <future>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "services/token_broker/jwt_expiry.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/sources/source.h"
#include "services/token_broker/sources/token_client.h"

namespace sallyport::token_broker {
namespace {

// Renewals of others that were under way, and were joined.
constexpr int kAttempts = 3;
// Longer than the patience of the refresher, which answers before: but for one that is stopped, and drops what waits.
constexpr std::chrono::seconds kPatience{20};

// Waits for a callback. `start` is given what to call.
absl::StatusOr<SharedConnection> Await(const std::function<void(Connections::Callback)>& start) {
  auto promise = std::make_shared<std::promise<absl::StatusOr<SharedConnection>>>();
  std::future<absl::StatusOr<SharedConnection>> answer = promise->get_future();
  start([promise](absl::StatusOr<SharedConnection> view) { promise->set_value(std::move(view)); });
  if (answer.wait_for(kPatience) != std::future_status::ready) {
    return ProviderUnavailable(kRenewalUnderWay, absl::Seconds(1));
  }
  return answer.get();
}

std::string NameOf(const ConnectionKey& sign_in) {
  return absl::StrCat("the identity provider ", absl::StripPrefix(sign_in.connection, "sso:"));
}

absl::Status NoRefreshToken(const ConnectionKey& sign_in) {
  return WithReason(absl::FailedPreconditionError(
                        absl::StrCat(NameOf(sign_in),
                                     " gave no refresh token at the sign-in, with which a token for this server "
                                     "would be asked for: an administrator can add offline_access to its scopes")),
                    "no_caller_token");
}

}  // namespace

void FurtherTokens::Get(const Wish& wish, FetchedTokens::Done done) {
  const std::string key =
      KeyOf({wish.sign_in.subject, wish.sign_in.connection, absl::StrCat(wish.generation), wish.scope, wish.resource});
  tokens_.Get(
      key, wish.sign_in.connection, wish.refused_version, [this, wish] { return Fetch(wish); }, std::move(done));
}

absl::StatusOr<SharedConnection> FurtherTokens::Ask(const Wish& wish, const std::shared_ptr<FurtherToken>& further) {
  return Await([&](Connections::Callback done) {
    connections_.AskFurther(wish.sign_in, wish.passport, further, std::move(done));
  });
}

absl::StatusOr<FurtherTokens::View> FurtherTokens::Fetch(const Wish& wish) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto further = std::make_shared<FurtherToken>();
    further->scope = wish.scope;
    further->resource = wish.resource;
    const absl::StatusOr<SharedConnection> head = Ask(wish, further);
    if (!head.ok()) {
      return NameProvider(head.status(), NameOf(wish.sign_in));
    }
    if (further->outcome.has_value()) {
      return Conclude(wish, *further, **head);
    }
    if ((*head)->state != ConnectionView::State::kLinked) {
      return sign_ins_.End(wish.passport);
    }
    if ((*head)->generation != wish.generation) {
      return WithRetryAfter(absl::UnavailableError("the caller has signed in again meanwhile"), absl::Seconds(1));
    }
    if (!(*head)->can_refresh) {
      return NoRefreshToken(wish.sign_in);
    }
  }
  return NameProvider(ProviderUnavailable(kRenewalUnderWay, absl::Seconds(1)), NameOf(wish.sign_in));
}

absl::StatusOr<FurtherTokens::View> FurtherTokens::Conclude(const Wish& wish, FurtherToken& further,
                                                            const ConnectionView& head) {
  if (head.state == ConnectionView::State::kLinked && head.generation != wish.generation) {
    return WithRetryAfter(absl::UnavailableError("the caller has signed in again meanwhile"), absl::Seconds(1));
  }
  if (const auto* refusal = std::get_if<ProviderError>(&*further.outcome); refusal != nullptr) {
    if (refusal->failure == ProviderFailure::kInvalidGrant || refusal->failure == ProviderFailure::kGrantDoubted) {
      RETURN_IF_ERROR(Examine(wish, head));
    }
    return RefusalInWords(*refusal, NameOf(wish.sign_in));
  }
  auto& answer = std::get<TokenAnswer>(*further.outcome);
  auto view = std::make_shared<ConnectionView>();
  view->state = ConnectionView::State::kLinked;
  view->generation = wish.generation;
  view->times.obtained_at = clock_.Now();
  view->times.expires_at = answer.expires_in.has_value() ? view->times.obtained_at + *answer.expires_in
                                                         : JwtExpiry(answer.access_token.Expose());
  view->access_token = std::move(answer.access_token);
  return view;
}

// An identity provider says invalid_grant of a refresh token that has ended, and of one that is good and may not be
// used for this audience.
absl::Status FurtherTokens::Examine(const Wish& wish, const ConnectionView& head) {
  Connections::Need need;
  need.key = wish.sign_in;
  need.passport = wish.passport;
  need.refused_generation = head.generation;
  need.refused_version = head.version;
  ASSIGN_OR_RETURN(const SharedConnection view,
                   Await([&](Connections::Callback done) { connections_.Current(need, std::move(done)); }));
  return view->state == ConnectionView::State::kLinked || view->refused_again ? absl::OkStatus()
                                                                              : sign_ins_.End(wish.passport);
}

}  // namespace sallyport::token_broker

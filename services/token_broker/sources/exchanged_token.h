// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "common/clock.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/sources/fetched_tokens.h"
#include "services/token_broker/sources/sign_in_token.h"
#include "services/token_broker/sources/source.h"
#include "services/token_broker/sources/token_client.h"

namespace sallyport::token_broker {

// A token that another identity provider gives for the caller's: token exchange (RFC 8693), or Microsoft Entra's
// on-behalf-of. Kept for the caller's token it was given for, in this process only, and never longer than either.
class ExchangedTokenSource final : public Source {
 public:
  // All outlive this. `sign_in_tokens` gives the subject's token of those who signed in.
  ExchangedTokenSource(SecretReader& secrets, TokenClient& client, SignInTokenSource& sign_in_tokens,
                       FetchLanes& fetchers, const Clock& clock)
      : secrets_(secrets),
        client_(client),
        sign_in_tokens_(sign_in_tokens),
        fetchers_(fetchers),
        clock_(clock),
        tokens_(clock, {}),
        actors_(clock, {}) {}

  // Without the token of a sign-in, which is known only once it was asked for; what is kept is told apart by it, too.
  std::string CacheKey(const Need& need) const override;
  void Get(const std::shared_ptr<const Need>& need, Done done) override;

 private:
  // The caller's own token.
  struct Subject {
    std::shared_ptr<const Secret> token;
    absl::Time expires_at = absl::InfiniteFuture();
  };
  void Exchange(const std::shared_ptr<const Need>& need, Subject subject, Done done);
  // What a caller who signed in gets: where their identity provider wants something of them, the link to it.
  absl::StatusOr<Outcome> OfferConsent(const Need& need, const v1::TokenSet::Consent& last,
                                       absl::StatusOr<Outcome> outcome) const;
  static FormFields FieldsOf(const Plan::ExchangedToken& wanted, const Secret& subject, const Secret* actor);
  // `actor` is null where the plan asks for none.
  absl::StatusOr<std::shared_ptr<ConnectionView>> Fetch(const Need& need, const Subject& subject,
                                                        const std::shared_ptr<const Secret>& actor);

  SecretReader& secrets_;
  TokenClient& client_;
  SignInTokenSource& sign_in_tokens_;
  FetchLanes& fetchers_;
  const Clock& clock_;
  FetchedTokens tokens_;
  FetchedTokens actors_;  // Tokens of clients themselves.
};

}  // namespace sallyport::token_broker

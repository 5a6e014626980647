// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/clock.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/sign_ins.h"
#include "services/token_broker/sources/fetched_tokens.h"

namespace sallyport::token_broker {

// Access tokens of sign-ins for other audiences, asked of the identity provider with the sign-in's refresh token (RFC
// 6749 section 6, RFC 8707). Kept in this process only, each for the sign-in it came from. Thread-safe.
class FurtherTokens {
 public:
  // All outlive this; the lanes' runner must be stopped before it goes.
  FurtherTokens(Connections& connections, SignIns& sign_ins, FetchLanes& fetchers, const Clock& clock)
      : connections_(connections), sign_ins_(sign_ins), clock_(clock), tokens_(fetchers, clock, {}) {}

  struct Wish {
    ConnectionKey sign_in;
    std::string passport;    // JWT of a passport of its subject.
    int64_t generation = 0;  // Of the sign-in: after another nothing of this one is given.
    // Parameters of the request; not both empty.
    std::string scope;
    std::string resource;
    int64_t refused_version = 0;
  };
  // Ends as FetchedTokens::Get. Errors of the provider: as TokenClient::Ask. FAILED_PRECONDITION reason no_caller_token
  // if the sign-in has no refresh token, sign_in_ended if that is no good any more.
  void Get(const Wish& wish, FetchedTokens::Done done);

 private:
  using View = std::shared_ptr<ConnectionView>;
  // These block, for the provider.
  absl::StatusOr<View> Fetch(const Wish& wish);
  absl::StatusOr<View> Conclude(const Wish& wish, FurtherToken& further, const ConnectionView& head);
  absl::StatusOr<SharedConnection> Ask(const Wish& wish, const std::shared_ptr<FurtherToken>& further);
  // Whether the sign-in is as good as it was, found out by renewing its own token. OK, or the error to answer with.
  absl::Status Examine(const Wish& wish, const ConnectionView& head);

  Connections& connections_;
  SignIns& sign_ins_;
  const Clock& clock_;
  FetchedTokens tokens_;
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "common/clock.h"
#include "common/mutex.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/sign_ins.h"
#include "services/token_broker/sources/fetched_tokens.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {

// Access tokens of sign-ins for other audiences, asked of the identity provider with the sign-in's refresh token (RFC
// 6749 section 6, RFC 8707). Kept in this process only, each for the sign-in it came from. Thread-safe.
class FurtherTokens {
 public:
  // All outlive this; `runner` is for what blocks for vault and authn.
  FurtherTokens(Connections& connections, SignIns& sign_ins, TaskRunner& runner, const Clock& clock)
      : connections_(connections), sign_ins_(sign_ins), runner_(runner), clock_(clock), tokens_(clock, {}) {}

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
  using Fetched = FetchedTokens::Fetched;
  void Fetch(const Wish& wish, const Fetched& done);
  void Conclude(const Wish& wish, FurtherToken& further, const ConnectionView& head, const Fetched& done);
  // Whether the sign-in is as good as it was, found out by renewing its own token: `refusal` if it is.
  void Examine(const Wish& wish, const ConnectionView& head, const absl::Status& refusal, const Fetched& done);
  bool IsKnownGood(const Wish& wish);
  void NoteGood(const Wish& wish);

  Connections& connections_;
  SignIns& sign_ins_;
  TaskRunner& runner_;
  const Clock& clock_;
  FetchedTokens tokens_;
  Mutex mu_;
  // Sign-ins that were examined and found good, by connection and generation, and when.
  std::map<std::pair<std::string, int64_t>, absl::Time> good_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

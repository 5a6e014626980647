// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "services/authn/platforms/cluster_http.h"
#include "services/authn/rate_limit.h"

namespace sallyport::authn::platforms {

// Asks a cluster's API server about tokens (TokenReview, authentication.k8s.io/v1), and remembers what it said by the
// token's digest: that a token is good for a minute, that it is not for 10 s. What an answer cannot be read as is
// neither: nothing is remembered, and the token is not good. About one token it is asked once at a time: who comes
// meanwhile waits for that answer. Thread-safe.
class TokenReviews {
 public:
  static constexpr absl::Duration kBelieved = absl::Minutes(1);
  static constexpr absl::Duration kRefused = absl::Seconds(10);
  static constexpr size_t kMaxBody = 64 << 10;

  // `http` outlives this. `origin`: of the API server.
  TokenReviews(ClusterHttp& http, std::string cluster, const std::string& origin, std::string audience);

  struct Review {
    std::string username;
    absl::Time believed_until;
  };
  // UNAUTHENTICATED (invalid_token, reason "not_authenticated", "wrong_audience"), UNAVAILABLE (reason
  // "keys_unavailable").
  absl::StatusOr<Review> Ask(absl::string_view token, absl::Time now);
  // Callers that wait for the answer another one has asked for.
  int waiting() const;

 private:
  struct Remembered {
    absl::StatusOr<Review> answer;
    absl::Time until;
  };
  using Answers = std::map<std::string, Remembered>;
  struct Flight {
    std::optional<absl::StatusOr<Review>> answer;
  };

  absl::StatusOr<Review> AskNow(absl::string_view token, absl::Time now);
  absl::StatusOr<Review> Read(absl::string_view body, absl::Time now) const;
  static std::optional<absl::StatusOr<Review>> Find(const Answers& answers, const std::string& digest, absl::Time now);
  static void Keep(Answers& answers, size_t max, const std::string& digest, Remembered remembered, absl::Time now);

  ClusterHttp& http_;
  const std::string cluster_;
  const std::string url_;
  const std::string audience_;
  RateLimit lines_{10, absl::Seconds(5)};
  mutable Mutex mu_;
  // Apart: what anybody can send displaces nothing that is good.
  Answers good_ ABSL_GUARDED_BY(mu_);
  Answers bad_ ABSL_GUARDED_BY(mu_);
  std::condition_variable_any landed_;
  std::map<std::string, std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mu_);  // By the token's digest.
  int waiting_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::authn::platforms

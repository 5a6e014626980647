// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/token_reviews.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/status_macros.h"
#include "common/text/json.h"
#include "services/authn/errors.h"

namespace sallyport::authn::platforms {
namespace {

constexpr char kPath[] = "/apis/authentication.k8s.io/v1/tokenreviews";
constexpr char kApiVersion[] = "authentication.k8s.io/v1";
constexpr char kKind[] = "TokenReview";
constexpr size_t kMaxGood = 10'000;
constexpr size_t kMaxBad = 1'000;

}  // namespace

TokenReviews::TokenReviews(ClusterHttp& http, std::string cluster, const std::string& origin, std::string audience)
    : http_(http), cluster_(std::move(cluster)), url_(origin + kPath), audience_(std::move(audience)) {}

std::optional<absl::StatusOr<TokenReviews::Review>> TokenReviews::Find(const Answers& answers,
                                                                       const std::string& digest, absl::Time now) {
  const auto it = answers.find(digest);
  return it == answers.end() || now >= it->second.until ? std::nullopt : std::make_optional(it->second.answer);
}

void TokenReviews::Keep(Answers& answers, size_t max, const std::string& digest, Remembered remembered,
                        absl::Time now) {
  if (answers.size() >= max) {
    std::erase_if(answers, [now](const auto& entry) { return now >= entry.second.until; });
  }
  if (answers.size() >= max) {
    answers.erase(std::min_element(answers.begin(), answers.end(),
                                   [](const auto& a, const auto& b) { return a.second.until < b.second.until; }));
  }
  answers.insert_or_assign(digest, std::move(remembered));
}

absl::StatusOr<TokenReviews::Review> TokenReviews::Ask(absl::string_view token, absl::Time now) {
  const std::string digest = Sha256(token);
  const auto flight = std::make_shared<Flight>();
  {
    MutexLock lock(mu_);
    for (const Answers* answers : {&good_, &bad_}) {
      if (auto known = Find(*answers, digest, now); known.has_value()) {
        return *std::move(known);
      }
    }
    if (const auto [found, first] = flights_.emplace(digest, flight); !first) {
      const std::shared_ptr<Flight> other = found->second;
      ++waiting_;
      while (!other->answer.has_value()) landed_.wait(mu_);
      --waiting_;
      return *other->answer;
    }
  }
  absl::StatusOr<Review> answer = AskNow(token, now);
  MutexLock lock(mu_);
  flight->answer = answer;
  flights_.erase(digest);
  landed_.notify_all();
  if (answer.ok()) {
    Keep(good_, kMaxGood, digest, {answer, answer->believed_until}, now);
  } else {
    good_.erase(digest);
    if (absl::IsUnauthenticated(answer.status())) {
      Keep(bad_, kMaxBad, digest, {answer, now + kRefused}, now);
    }
  }
  return answer;
}

int TokenReviews::waiting() const {
  MutexLock lock(mu_);
  return waiting_;
}

absl::StatusOr<TokenReviews::Review> TokenReviews::AskNow(absl::string_view token, absl::Time now) {
  const nlohmann::json review = {
      {"apiVersion", kApiVersion},
      {"kind", kKind},
      {"spec", {{"token", std::string(token)}, {"audiences", nlohmann::json::array({audience_})}}}};
  const absl::StatusOr<std::string> body = http_.Post(url_, DumpJson(review), kMaxBody);
  absl::StatusOr<Review> answer = body.ok() ? Read(*body, now) : body.status();
  if (answer.ok() || absl::IsUnauthenticated(answer.status())) {
    return answer;
  }
  if (lines_.Take(now)) {
    Log(LogLevel::kWarning, "token_review_failed", {{"cluster", cluster_}, {"status", answer.status()}});
  }
  return WithRetryAfter(KeysUnavailable(absl::StrCat("cluster ", cluster_, " cannot be asked about the token")),
                        DetailOf(answer.status()).retry_after);
}

absl::StatusOr<TokenReviews::Review> TokenReviews::Read(absl::string_view body, absl::Time now) const {
  const absl::StatusOr<nlohmann::json> review = ParseJsonObject(body, {.max_bytes = kMaxBody});
  if (!review.ok() || JsonString(*review, "apiVersion") != kApiVersion || JsonString(*review, "kind") != kKind) {
    return absl::UnavailableError("the answer is no TokenReview");
  }
  const nlohmann::json* status = JsonMember(*review, "status");
  if (status == nullptr || !status->is_object()) {
    return absl::UnavailableError("the answer says nothing about the token");
  }
  // Left out: false. The API server fills `user` in only for a token it takes, so a name says nothing by itself.
  const nlohmann::json* error = JsonMember(*status, "error");
  if (!JsonBool(*status, "authenticated").value_or(false) || (error != nullptr && *error != "")) {
    return InvalidToken("not_authenticated");
  }
  // An API server that knows nothing of audiences does not name any: then the token may be for anybody.
  const auto audiences = JsonStrings(*status, "audiences").value_or(std::vector<std::string>());
  if (std::find(audiences.begin(), audiences.end(), audience_) == audiences.end()) {
    return InvalidToken("wrong_audience");
  }
  const nlohmann::json* user = JsonMember(*status, "user");
  const std::optional<std::string> name = user == nullptr ? std::nullopt : JsonString(*user, "username");
  if (!name.has_value()) {
    return absl::UnavailableError("the answer names no user");
  }
  return Review{*name, now + kBelieved};
}

}  // namespace sallyport::authn::platforms

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "services/token_broker/token_endpoint.h"

namespace sallyport::token_broker::testing {

// Refresh tokens are "<family>.<number>": a link makes a family, a rotation the next number.
class ModelProvider final : public TokenEndpoint {
 public:
  // A rotated token is refused and ends the family; works once more; is never rotated.
  enum class Mode { kStrict, kGrace, kStatic };

  static constexpr char kTokenUrl[] = "https://provider.example/token";
  static constexpr char kRevocationUrl[] = "https://provider.example/revoke";

  explicit ModelProvider(Mode mode) : mode_(mode) {}

  TokenResult ExchangeCode(const Provider&, const Secret&, const std::string&, const Secret&) override {
    return Refused();
  }

  TokenResult Refresh(const Provider& provider, const Secret& refresh_token) override {
    misdirected_ = misdirected_ || provider.token_url != kTokenUrl;
    if (drop_request_) {
      return ProviderError{.failure = ProviderFailure::kAmbiguous, .code = "timeout"};
    }
    if (out_of_order_) {
      return ProviderError{.failure = ProviderFailure::kUnavailable, .code = "http_503"};
    }
    TokenResult result = Answer(std::string(refresh_token.Expose()));
    if (lose_answer_) {
      return ProviderError{.failure = ProviderFailure::kAmbiguous, .code = "timeout"};
    }
    if (auto* answer = std::get_if<TokenAnswer>(&result); answer != nullptr && half_answer_) {
      answer->access_token = Secret();
    }
    return result;
  }

  RevocationResult Revoke(const Provider& provider, const Secret& token, absl::string_view /*hint*/) override {
    misdirected_ = misdirected_ || provider.revocation_url != kRevocationUrl;
    revoked_strays_.push_back(std::string(token.Expose()));
    if (Family(std::string(token.Expose())) == family_) {
      revoked_ = true;
      revoked_by_us_ = true;
    }
    return RevocationResult::kRevoked;
  }

  // A request whose sender has died is on its way, and arrives.
  void SendFromTheDead(std::string refresh_token) { pending_.push_back(std::move(refresh_token)); }
  bool HasPending() const { return !pending_.empty(); }
  void Arrive() {
    Answer(pending_.back());
    pending_.pop_back();
  }

  void NewFamily() {
    ++family_;
    newest_ = 0;
    revoked_ = revoked_by_us_ = false;
  }
  std::string Newest() const { return absl::StrCat(family_, ".", newest_); }
  int family() const { return family_; }
  bool revoked() const { return revoked_; }
  bool revoked_by_us() const { return revoked_by_us_; }
  // A token was sent to other URLs than its own.
  bool misdirected() const { return misdirected_; }
  bool IsUsable(const std::string& token) const {
    if (token.empty() || Family(token) != family_ || revoked_) {
      return false;
    }
    const int number = Number(token);
    return mode_ == Mode::kStatic || number == newest_ || (mode_ == Mode::kGrace && number == newest_ - 1);
  }
  std::string Fingerprint() const {
    return absl::StrCat(family_, ".", newest_, revoked_, "/", absl::StrJoin(revoked_strays_, ","), "/",
                        absl::StrJoin(pending_, ","));
  }

  bool drop_request_ = false;
  bool lose_answer_ = false;
  bool out_of_order_ = false;
  // A new refresh token, and no access token.
  bool half_answer_ = false;
  // A refused token is refused as by providers that do not say invalid_grant.
  bool vague_ = false;

 private:
  static int Family(const std::string& token) { return std::stoi(token); }
  static int Number(const std::string& token) { return std::stoi(token.substr(token.find('.') + 1)); }
  ProviderError Refused() const {
    if (vague_) {
      return {.failure = ProviderFailure::kGrantDoubted, .code = "unauthorized_client", .blames_refresh_token = true};
    }
    return {.failure = ProviderFailure::kInvalidGrant, .code = "invalid_grant"};
  }

  TokenResult Answer(const std::string& token) {
    if (Family(token) != family_ || revoked_) {
      return Refused();
    }
    const int number = Number(token);
    if (mode_ == Mode::kStatic) {
      return Tokens(token);
    }
    if (number == newest_) {
      ++newest_;
      return Tokens(Newest());
    }
    if (mode_ == Mode::kGrace && number == newest_ - 1) {
      return Tokens(Newest());
    }
    revoked_ = true;  // Reuse of a rotated token: the family is gone (RFC 9700 section 4.14.2).
    return Refused();
  }
  static TokenAnswer Tokens(const std::string& refresh_token) {
    TokenAnswer answer;
    answer.access_token = Secret("at-of-" + refresh_token);
    answer.refresh_token = Secret(std::string(refresh_token));
    answer.expires_in = absl::ZeroDuration();  // Always due, so that nobody finds that there is nothing to do.
    return answer;
  }

  const Mode mode_;
  int family_ = 0;
  int newest_ = 0;
  bool revoked_ = false;
  bool revoked_by_us_ = false;
  bool misdirected_ = false;
  std::vector<std::string> revoked_strays_;
  std::vector<std::string> pending_;
};

}  // namespace sallyport::token_broker::testing

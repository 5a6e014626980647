// SPDX-License-Identifier: Apache-2.0
#include "services/registry/consequences/user_counts.h"

#include "absl/strings/str_cat.h"

#include "common/json_log.h"

namespace sallyport::registry {
namespace {

constexpr int kMaxQuestions = 50;

v1::Consequence::Users UsersOf(int64_t number, bool at_least) {
  v1::Consequence::Users users;
  users.set_number(number);
  users.set_at_least(at_least);
  return users;
}

}  // namespace

std::optional<UserCounts::Count> UserCounts::Ask(const Holding& has, const Holding* lacks) {
  vault::v1::CountUsersRequest request;
  *request.mutable_has() = has;
  if (lacks != nullptr) *request.mutable_lacks() = *lacks;
  const std::string key = request.SerializeAsString();
  if (const auto known = answers_.find(key); known != answers_.end()) return known->second;
  if (silent_ || asked_ == kMaxQuestions) return std::nullopt;
  ++asked_;
  const auto answer = vault_.CountUsers(request, passport_);
  if (!answer.ok()) {
    silent_ = true;  // One time-out a write is enough, and a number is worth no refusal.
    Log(LogLevel::kWarning, "users_not_counted", {{"status", answer.status()}});
    return std::nullopt;
  }
  const Count count = {UsersOf(answer->users(), answer->at_least()), UsersOf(answer->lacking(), answer->at_least())};
  return answers_[key] = count;
}

std::string UsersText(const v1::Consequence::Users& users) {
  return absl::StrCat(users.at_least() ? "at least " : "", users.number(), users.number() == 1 ? " user" : " users");
}

}  // namespace sallyport::registry

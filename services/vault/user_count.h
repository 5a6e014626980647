// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <string>

#include "absl/status/status.h"

#include "common/sql/sql.h"
#include "sallyport/vault/v1/vault.pb.h"
#include "services/vault/store.h"

namespace sallyport::vault {

// INVALID_ARGUMENT naming the field.
absl::Status CheckCount(const v1::CountUsersRequest& request);

// One count of users, in pages: no transaction holds the store for longer than one takes, however many users there are.
class UserCount {
 public:
  static constexpr int64_t kPage = 1'000;
  static constexpr int64_t kMaxRecords = 20'000;

  explicit UserCount(const v1::CountUsersRequest& request) : request_(request) {}

  // Adds the records of the next page; what a page that failed has found does not count.
  absl::Status AddPage(Transaction& tx);
  // The same, where every account of an app is meant: users may have several.
  absl::Status AddPageOfAccounts(Transaction& tx);
  bool done() const { return done_; }
  const v1::CountUsersResponse& result() const { return result_; }

 private:
  // After `found` records, the last of which is `last`.
  void EndPage(size_t found, const std::string& last);

  const v1::CountUsersRequest& request_;
  std::string after_;  // The last record that was looked at.
  int64_t looked_at_ = 0;
  bool done_ = false;
  std::set<std::string> owners_;  // Who was counted, where a user may have several accounts: no more than kMaxRecords.
  v1::CountUsersResponse result_;
};

}  // namespace sallyport::vault

// SPDX-License-Identifier: Apache-2.0
#include "services/vault/user_count.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "services/vault/access.h"
#include "services/vault/record_id.h"
#include "services/vault/vault.h"

namespace sallyport::vault {
namespace {

using Holding = v1::CountUsersRequest::Holding;
using LabelRule = v1::CountUsersRequest::LabelRule;

constexpr int kMaxRules = 4;
constexpr int kMaxWords = 1'000;

// kUnsaid: it has no such label, so that nobody can tell without opening it.
enum class Fit { kNo, kYes, kUnsaid };

absl::Status CheckHolding(const std::string& field, const Holding& holding) {
  if (holding.kind().empty() || holding.name().empty() || holding.name().size() > kMaxNameBytes) {
    return InvalidField(field, "needs a kind, and a name of at most 512 bytes");
  }
  if (holding.labels_size() > kMaxRules) {
    return InvalidField(absl::StrCat(field, ".labels"), "are more than 4");
  }
  for (const LabelRule& rule : holding.labels()) {
    if (rule.words_size() > kMaxWords) {
      return InvalidField(absl::StrCat(field, ".labels.words"), "are more than 1000");
    }
  }
  return absl::OkStatus();
}

bool Meets(const std::string& value, const LabelRule& rule) {
  if (!absl::StartsWith(value, rule.prefix())) {
    return false;
  }
  if (rule.words().empty()) {
    return true;
  }
  const std::set<absl::string_view> words = absl::StrSplit(value, ' ', absl::SkipEmpty());
  return std::all_of(rule.words().begin(), rule.words().end(),
                     [&](const std::string& word) { return words.count(word) > 0; });
}

Fit FitOf(int64_t head, const std::string& state, const std::string& labels, const Holding& holding) {
  if (head == 0 || state != "OK") {
    return Fit::kNo;
  }
  if (holding.labels().empty()) {
    return Fit::kYes;
  }
  const Labels stored = ParseLabels(labels);
  Fit fit = Fit::kYes;
  for (const LabelRule& rule : holding.labels()) {
    const auto label = stored.find(rule.name());
    if (label == stored.end()) {
      fit = Fit::kUnsaid;
    } else if (!Meets(label->second, rule)) {
      return Fit::kNo;
    }
  }
  return fit;
}

}  // namespace

absl::Status CheckCount(const v1::CountUsersRequest& request) {
  RETURN_IF_ERROR(CheckHolding("has", request.has()));
  if (request.lacks().every_account()) {
    return InvalidField("lacks.every_account", "is for `has` alone");
  }
  if (request.has().every_account() &&
      (request.has().kind() != "connection" || request.has().labels_size() > 0 || request.has_lacks())) {
    return InvalidField("has.every_account", "is for connections, without labels and without `lacks`");
  }
  return request.has_lacks() ? CheckHolding("lacks", request.lacks()) : absl::OkStatus();
}

absl::Status UserCount::AddPage(Transaction& tx) {
  ASSIGN_OR_RETURN(
      const Rows rows,
      tx.Query("SELECT r.rid AS rid, r.head AS head, r.state AS state, r.labels AS labels, o.head AS other_head, "
               "o.state AS other_state, o.labels AS other_labels FROM record r LEFT JOIN record o ON "
               "o.owner_type = r.owner_type AND o.owner_id = r.owner_id AND o.kind = :other_kind AND "
               "o.name = :other_name WHERE r.owner_type = 'user' AND r.kind = :kind AND r.name = :name AND "
               "r.rid > :after ORDER BY r.rid LIMIT :limit",
               {{"kind", request_.has().kind()},
                {"name", request_.has().name()},
                {"other_kind", request_.lacks().kind()},
                {"other_name", request_.lacks().name()},
                {"after", after_},
                {"limit", kPage}}));
  for (const Row& row : rows) {
    const Fit has = FitOf(row.Int("head"), row.Text("state"), row.BytesAt("labels"), request_.has());
    if (has == Fit::kNo) {
      continue;
    }
    const Fit other = request_.has_lacks() ? FitOf(row.Int("other_head"), row.Text("other_state"),
                                                   row.BytesAt("other_labels"), request_.lacks())
                                           : Fit::kYes;
    if (has == Fit::kUnsaid || other == Fit::kUnsaid) {
      result_.set_at_least(true);
      continue;
    }
    result_.set_users(result_.users() + 1);
    result_.set_lacking(result_.lacking() + (other == Fit::kNo ? 1 : 0));
  }
  EndPage(rows.size(), rows.empty() ? "" : rows.back().Text("rid"));
  return absl::OkStatus();
}

absl::Status UserCount::AddPageOfAccounts(Transaction& tx) {
  ASSIGN_OR_RETURN(const Rows rows,
                   tx.Query("SELECT rid, owner_id, state FROM record WHERE kind = 'connection' AND app_uid = :app AND "
                            "head <> 0 AND rid > :after ORDER BY rid LIMIT :limit",
                            {{"app", request_.has().name()}, {"after", after_}, {"limit", kPage}}));
  for (const Row& row : rows) {
    if (row.Text("state") == "OK") {
      owners_.insert(row.Text("owner_id"));
    }
  }
  result_.set_users(static_cast<int64_t>(owners_.size()));
  EndPage(rows.size(), rows.empty() ? "" : rows.back().Text("rid"));
  return absl::OkStatus();
}

void UserCount::EndPage(size_t found, const std::string& last) {
  const bool full = found == static_cast<size_t>(kPage);
  looked_at_ += static_cast<int64_t>(found);
  done_ = !full || looked_at_ >= kMaxRecords;
  if (full && done_) {
    result_.set_at_least(true);
  }
  if (found > 0) {
    after_ = last;
  }
}

absl::StatusOr<v1::CountUsersResponse> Vault::CountUsers(const Caller& caller, const v1::CountUsersRequest& request) {
  RETURN_IF_ERROR(CheckCount(request));
  const auto admit = [&](const v1::CountUsersRequest::Holding& holding) {
    const RecordId id = {{"user", "*"}, holding.kind(), holding.name()};
    return Recorded(CheckAccess(caller, Operation::kCount, id), caller, Operation::kCount, id);
  };
  RETURN_IF_ERROR(admit(request.has()));
  if (request.has_lacks()) {
    RETURN_IF_ERROR(admit(request.lacks()));
  }
  UserCount count(request);
  while (!count.done()) {
    RETURN_IF_ERROR(Read([&](Transaction& tx) {
      return request.has().every_account() ? count.AddPageOfAccounts(tx) : count.AddPage(tx);
    }));
  }
  return count.result();
}

}  // namespace sallyport::vault

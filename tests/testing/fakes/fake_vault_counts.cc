// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"

#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/fakes/fake_vault_rules.h"

namespace sallyport::testing {

using namespace vault_rules;  // NOLINT(google-build-using-namespace): they are this file's, shared with its parts.

namespace {

using Holding = vault::v1::CountUsersRequest::Holding;
using LabelRule = vault::v1::CountUsersRequest::LabelRule;

bool Meets(const std::string& value, const LabelRule& rule) {
  const std::vector<std::string> have = absl::StrSplit(value, ' ');
  return absl::StartsWith(value, rule.prefix()) &&
         std::all_of(rule.words().begin(), rule.words().end(),
                     [&](const auto& word) { return std::find(have.begin(), have.end(), word) != have.end(); });
}

// nullopt: no label says so.
std::optional<bool> Fits(const vault::v1::RecordMetadata& metadata, const Holding& holding) {
  if (metadata.head() == 0 || metadata.state() != "OK") return false;
  bool unsaid = false;
  for (const LabelRule& rule : holding.labels()) {
    const auto label = metadata.labels().find(rule.name());
    if (label == metadata.labels().end()) {
      unsaid = true;
    } else if (!Meets(label->second, rule)) {
      return false;
    }
  }
  return unsaid ? std::nullopt : std::make_optional(true);
}

absl::Status CheckHolding(const Holding& holding) {
  if (holding.kind().empty() || holding.name().empty() || holding.name().size() > 512 || holding.labels_size() > 4 ||
      std::any_of(holding.labels().begin(), holding.labels().end(),
                  [](const LabelRule& rule) { return rule.words_size() > 1000; })) {
    return InvalidField("has", "is malformed");
  }
  return absl::OkStatus();
}

absl::Status CheckEveryAccount(const vault::v1::CountUsersRequest& request) {
  const Holding& has = request.has();
  return request.lacks().every_account() ||
                 (has.every_account() && (has.kind() != "connection" || has.labels_size() > 0 || request.has_lacks()))
             ? InvalidField("every_account", "is malformed")
             : absl::OkStatus();
}

}  // namespace

absl::StatusOr<vault::v1::CountUsersResponse> FakeVault::CountUsers(const Caller& caller,
                                                                    const vault::v1::CountUsersRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "CountUsers"));
  for (const Holding* holding : {&request.has(), &request.lacks()}) {
    if (holding == &request.lacks() && !request.has_lacks()) continue;
    RETURN_IF_ERROR(CheckHolding(*holding));
  }
  RETURN_IF_ERROR(CheckEveryAccount(request));
  for (const Holding* holding : {&request.has(), &request.lacks()}) {
    if (holding == &request.lacks() && !request.has_lacks()) continue;
    if (holding->kind() != "connection" && holding->kind() != "credential") return ServiceMayNot();
    if (!CheckRole(caller, "admin").ok()) RETURN_IF_ERROR(CheckRole(caller, "credential-admin"));
  }
  vault::v1::CountUsersResponse response;
  std::set<std::string> owners;
  for (const auto& [key, row] : rows_) {
    if (row.name.owner_type() != vault::v1::USER || row.name.kind() != request.has().kind() ||
        (request.has().every_account() ? AppOf(row.name) : row.name.name()) != request.has().name()) {
      continue;
    }
    const std::optional<bool> has = Fits(Metadata(row), request.has());
    if (has == false || (request.has().every_account() && !owners.insert(row.name.owner_id()).second)) continue;
    RecordName other = row.name;
    other.set_kind(request.lacks().kind());
    other.set_name(request.lacks().name());
    const Row* found = FindRow(other);
    const std::optional<bool> holds = !request.has_lacks() ? true
                                      : found == nullptr   ? false
                                                           : Fits(Metadata(*found), request.lacks());
    if (!has.has_value() || !holds.has_value()) {
      response.set_at_least(true);
      continue;
    }
    response.set_users(response.users() + 1);
    response.set_lacking(response.lacking() + (*holds ? 0 : 1));
  }
  return response;
}

}  // namespace sallyport::testing

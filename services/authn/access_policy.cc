// SPDX-License-Identifier: Apache-2.0
#include "services/authn/access_policy.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "services/authn/platforms/service_account.h"

namespace sallyport::authn {
namespace {

template <typename Strings>
std::set<std::string> Set(const Strings& strings) {
  return {strings.begin(), strings.end()};
}

template <typename Strings>
std::set<std::string> LowerSet(const Strings& strings) {
  std::set<std::string> out;
  for (const std::string& text : strings) {
    out.insert(absl::AsciiStrToLower(text));
  }
  return out;
}

template <typename Strings>
std::set<std::string> GroupSet(const Strings& names, const GroupNames& reading, std::vector<std::string>* ambiguous) {
  std::set<std::string> out;
  for (const std::string& name : names) {
    if (std::optional<std::string> group = reading.Qualify(name); group.has_value()) {
      out.insert(*std::move(group));
    } else if (ambiguous != nullptr) {
      ambiguous->push_back(name);
    }
  }
  return out;
}

// Of the subjects of a role and those of its service accounts.
template <typename Strings>
std::set<std::string> SubjectSet(const Strings& subjects, const Strings& accounts, absl::string_view only_cluster) {
  std::set<std::string> out = Set(subjects);
  for (const std::string& text : accounts) {
    if (const auto account = platforms::ParseServiceAccount(text, only_cluster); account.has_value()) {
      out.insert(absl::StrCat(kServiceAccountSubject, account->ToString()));
    }
  }
  return out;
}

bool AnyIn(const std::vector<std::string>& values, const std::set<std::string>& set) {
  return !set.empty() &&
         std::any_of(values.begin(), values.end(), [&](const auto& value) { return set.contains(value); });
}

}  // namespace

AccessPolicy::AccessPolicy(const registry::v1::Allow& allow, const GroupNames& names)
    : everyone_(allow.everyone()),
      subjects_(Set(allow.subjects())),
      emails_(LowerSet(allow.emails())),
      domains_(LowerSet(allow.email_domains())) {
  groups_ = GroupSet(allow.groups(), names, &ambiguous_groups_);
}

AccessDecision AccessPolicy::Decide(const Identity& identity, bool email_counts) const {
  if (everyone_) {
    return {true, "interactive.allow.everyone"};
  }
  if (subjects_.contains(identity.subject)) {
    return {true, "interactive.allow.subjects"};
  }
  if (AnyIn(QualifiedGroups(identity), groups_)) {
    return {true, "interactive.allow.groups"};
  }
  if (email_counts && !identity.email.empty()) {
    const std::string email = absl::AsciiStrToLower(identity.email);
    if (emails_.contains(email)) {
      return {true, "interactive.allow.emails"};
    }
    const size_t at = email.rfind('@');
    if (at != std::string::npos && domains_.contains(email.substr(at + 1))) {
      return {true, "interactive.allow.email_domains"};
    }
  }
  return identity.groups_overage && !groups_.empty() ? AccessDecision{false, kGroupsOverageRule} : AccessDecision{};
}

RolePolicy::RolePolicy(const config::v1::AuthnConfig::Roles& roles, const GroupNames& names,
                       absl::string_view only_cluster)
    : lines_{{"auditor", GroupSet(roles.auditor_groups(), names, nullptr),
              SubjectSet(roles.auditor_subjects(), roles.auditor_service_accounts(), only_cluster)},
             {"credential-admin", GroupSet(roles.credential_admin_groups(), names, nullptr),
              SubjectSet(roles.credential_admin_subjects(), roles.credential_admin_service_accounts(), only_cluster)},
             {"admin", GroupSet(roles.admin_groups(), names, nullptr),
              SubjectSet(roles.admin_subjects(), roles.admin_service_accounts(), only_cluster)}} {
  for (const Line& line : lines_) {
    groups_.insert(line.groups.begin(), line.groups.end());
  }
}

std::vector<std::string> RolePolicy::RolesOf(const Identity& identity) const {
  std::vector<std::string> roles;
  const std::vector<std::string> groups = QualifiedGroups(identity);
  for (const Line& line : lines_) {
    if (line.subjects.contains(identity.subject) || AnyIn(groups, line.groups)) {
      roles.push_back(line.role);
    }
  }
  return roles;
}

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/access_policy.h"

#include <algorithm>

#include "absl/strings/ascii.h"

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

bool AnyIn(const std::vector<std::string>& values, const std::set<std::string>& set) {
  return !set.empty() &&
         std::any_of(values.begin(), values.end(), [&](const auto& value) { return set.contains(value); });
}

}  // namespace

AccessPolicy::AccessPolicy(const registry::v1::Allow& allow)
    : everyone_(allow.everyone()),
      groups_(Set(allow.groups())),
      subjects_(Set(allow.subjects())),
      emails_(LowerSet(allow.emails())),
      domains_(LowerSet(allow.email_domains())) {}

AccessDecision AccessPolicy::Decide(const Identity& identity, bool email_counts) const {
  if (everyone_) {
    return {true, "interactive.allow.everyone"};
  }
  if (subjects_.contains(identity.subject)) {
    return {true, "interactive.allow.subjects"};
  }
  if (AnyIn(identity.groups, groups_)) {
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
  return {};
}

RolePolicy::RolePolicy(const config::v1::AuthnConfig::Roles& roles)
    : lines_{{"auditor", Set(roles.auditor_groups()), Set(roles.auditor_subjects())},
             {"credential-admin", Set(roles.credential_admin_groups()), Set(roles.credential_admin_subjects())},
             {"admin", Set(roles.admin_groups()), Set(roles.admin_subjects())}} {
  for (const Line& line : lines_) {
    groups_.insert(line.groups.begin(), line.groups.end());
  }
}

std::vector<std::string> RolePolicy::RolesOf(const Identity& identity) const {
  std::vector<std::string> roles;
  for (const Line& line : lines_) {
    if (line.subjects.contains(identity.subject) || AnyIn(identity.groups, line.groups)) {
      roles.push_back(line.role);
    }
  }
  return roles;
}

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "sallyport/config/v1/services.pb.h"
#include "sallyport/registry/v1/mcp_server.pb.h"
#include "services/authn/group_names.h"
#include "services/authn/identity.h"

namespace sallyport::authn {

// Nothing matched, the server names groups, and the provider left the person's out because they are too many.
inline constexpr char kGroupsOverageRule[] = "interactive.allow.groups_overage";

struct AccessDecision {
  bool allowed = false;
  // The line that said so: "interactive.allow.groups", …; "interactive.allow.none" when nothing matched, and
  // kGroupsOverageRule when a group might have.
  const char* rule = "interactive.allow.none";
};

// A server's `allow`, ready to be asked. Immutable. An empty one admits nobody.
class AccessPolicy {
 public:
  AccessPolicy(const registry::v1::Allow& allow, const GroupNames& names);

  // `email_counts`: the email is verified and its connector authoritative for the domain (Connectors::SpeaksFor).
  AccessDecision Decide(const Identity& identity, bool email_counts) const;
  // As "<connector>:<group>".
  const std::set<std::string>& groups() const { return groups_; }
  // Names of groups that admit nobody, because it is not known whose they are.
  const std::vector<std::string>& ambiguous_groups() const { return ambiguous_groups_; }

 private:
  bool everyone_;
  std::set<std::string> groups_;
  std::vector<std::string> ambiguous_groups_;
  std::set<std::string> subjects_;
  std::set<std::string> emails_;   // Lower case.
  std::set<std::string> domains_;  // Lower case.
};

// Roles by configuration: "auditor", "credential-admin", "admin" (the names of passports and access options).
// Immutable.
class RolePolicy {
 public:
  // `only_cluster`: id of the configuration's cluster if it has exactly one, for service accounts that name none.
  RolePolicy(const config::v1::AuthnConfig::Roles& roles, const GroupNames& names, absl::string_view only_cluster = "");

  // Of these, in that order.
  std::vector<std::string> RolesOf(const Identity& identity) const;
  // Groups that some role names, as "<connector>:<group>".
  const std::set<std::string>& groups() const { return groups_; }

 private:
  struct Line {
    std::string role;
    std::set<std::string> groups;
    std::set<std::string> subjects;
  };
  std::vector<Line> lines_;
  std::set<std::string> groups_;
};

}  // namespace sallyport::authn

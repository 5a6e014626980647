// SPDX-License-Identifier: Apache-2.0
#include "services/authn/group_names.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/config/service_config.h"
#include "common/error.h"

namespace sallyport::authn {
namespace {

// "corp:team", "local:team": how a shorthand may be meant.
std::vector<std::string> Spellings(const std::vector<std::string>& connectors, absl::string_view name) {
  std::vector<std::string> spellings;
  spellings.reserve(connectors.size());
  for (const std::string& connector : connectors) {
    spellings.push_back(absl::StrCat(connector, ":", name));
  }
  return spellings;
}

}  // namespace

bool GivesGroups(const config::v1::Connector& connector) {
  const auto& users = connector.local().users();
  return !connector.has_local() ||
         std::any_of(users.begin(), users.end(), [](const auto& user) { return !user.groups().empty(); });
}

std::vector<std::string> QualifiedGroups(const Identity& identity) {
  std::vector<std::string> groups;
  if (identity.connector.empty()) {
    return groups;
  }
  groups.reserve(identity.groups.size());
  for (const std::string& group : identity.groups) {
    groups.push_back(absl::StrCat(identity.connector, ":", group));
  }
  return groups;
}

GroupNames::GroupNames(const google::protobuf::RepeatedPtrField<config::v1::Connector>& connectors) {
  for (const config::v1::Connector& connector : connectors) {
    connectors_.insert(connector.id());
    if (GivesGroups(connector)) {
      givers_.push_back(connector.id());
    }
  }
}

std::optional<std::string> GroupNames::Qualify(absl::string_view name) const {
  if (name.find(':') != absl::string_view::npos) {
    return std::string(name);
  }
  if (name.empty() || givers_.size() != 1) {
    return std::nullopt;
  }
  return absl::StrCat(givers_[0], ":", name);
}

absl::Status GroupNames::Check(const std::string& field, absl::string_view name) const {
  const size_t colon = name.find(':');
  if (name.empty() || colon + 1 == name.size()) {
    return InvalidField(field, "must be <connector>:<group>");
  }
  if (colon != absl::string_view::npos) {
    return connectors_.contains(std::string(name.substr(0, colon)))
               ? absl::OkStatus()
               : InvalidField(field,
                              absl::StrCat("there is no connector \"", name.substr(0, colon),
                                           "\": write <connector>:", name, " if the group's own name holds the ':'"));
  }
  if (givers_.size() == 1) {
    return absl::OkStatus();
  }
  if (givers_.empty()) {
    return InvalidField(field, absl::StrCat("no connector gives groups: add one, and write <connector>:", name));
  }
  return InvalidField(field, absl::StrCat("\"", name, "\" may be a group of several connectors: write ",
                                          absl::StrJoin(Spellings(givers_, name), " or ")));
}

absl::Status CheckRoleGroups(const std::string& field, const config::v1::AuthnConfig::Roles& roles,
                             const GroupNames& names) {
  std::vector<absl::Status> checks;
  for (const auto& [list, groups] : {std::pair("adminGroups", &roles.admin_groups()),
                                     std::pair("credentialAdminGroups", &roles.credential_admin_groups()),
                                     std::pair("auditorGroups", &roles.auditor_groups())}) {
    for (int i = 0; i < groups->size(); ++i) {
      checks.push_back(names.Check(absl::StrCat(field, ".", list, "[", i, "]"), groups->Get(i)));
    }
  }
  return MergeViolations(checks);
}

}  // namespace sallyport::authn

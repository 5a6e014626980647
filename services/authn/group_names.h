// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include <google/protobuf/repeated_ptr_field.h>

#include "sallyport/config/v1/services.pb.h"
#include "services/authn/identity.h"

namespace sallyport::authn {

// False only for a local connector none of whose users has a group: what an issuer's tokens hold, nobody knows.
bool GivesGroups(const config::v1::Connector& connector);

// The groups of a person as rules and passports name them: "<connector>:<group>". A connector's id holds no ':', so the
// first one ends it, whatever the group's own name holds. None without a connector: a server's own keys give no groups.
std::vector<std::string> QualifiedGroups(const Identity& identity);

// Reads the names of groups in rules. A name with ':' is "<connector>:<group>". One without is shorthand, good only
// while a single connector can give groups: a name that several may give must not be believed from all. Immutable.
class GroupNames {
 public:
  // No connectors: no shorthand means anything.
  GroupNames() = default;
  explicit GroupNames(const google::protobuf::RepeatedPtrField<config::v1::Connector>& connectors);

  // As "<connector>:<group>"; nothing for a shorthand that is not good. A rule with such a name admits nobody.
  std::optional<std::string> Qualify(absl::string_view name) const;
  // INVALID_ARGUMENT with the ways to write it for a shorthand that is not good, an unknown connector or no group.
  absl::Status Check(const std::string& field, absl::string_view name) const;

 private:
  std::set<std::string> connectors_;
  std::vector<std::string> givers_;
};

// The groups of all roles. `field` is that of the roles: "roles".
absl::Status CheckRoleGroups(const std::string& field, const config::v1::AuthnConfig::Roles& roles,
                             const GroupNames& names);

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#include "services/registry/group_names.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sallyport::registry {
namespace {

std::vector<std::string> Givers(const std::optional<Connectors>& connectors) {
  std::vector<std::string> givers;
  if (!connectors) return givers;
  for (const auto& [id, connector] : *connectors) {
    if (!connector.without_groups) givers.push_back(id);
  }
  return givers;
}

// As it is to be stored; `fault` says why it cannot be.
std::string Qualified(const std::optional<Connectors>& connectors, const std::string& name, std::string* fault) {
  const size_t colon = name.find(':');
  if (name.empty() || colon + 1 == name.size()) {
    *fault = "must be <connector>:<group>";
    return name;
  }
  if (colon != std::string::npos) {  // A connector's id holds none: the first one ends it.
    const std::string connector = name.substr(0, colon);
    if (connectors && !connectors->contains(connector)) {
      *fault = absl::StrCat("there is no connector \"", connector, "\": write <connector>:", name,
                            " if the group's own name holds the ':'");
    }
    return name;
  }
  const std::vector<std::string> givers = Givers(connectors);
  if (givers.size() == 1) return absl::StrCat(givers[0], ":", name);
  if (!connectors) {
    *fault = absl::StrCat("authn does not answer, so nobody can tell whose group it is: write <connector>:", name,
                          ", or try again");
  } else if (givers.empty()) {
    *fault = absl::StrCat("no connector gives groups: write <connector>:", name, ", with the one that will");
  } else {
    std::vector<std::string> spellings;
    for (const std::string& giver : givers) spellings.push_back(absl::StrCat(giver, ":", name));
    *fault =
        absl::StrCat("\"", name, "\" may be a group of several connectors: write ", absl::StrJoin(spellings, " or "));
  }
  return name;
}

template <typename Report>
void QualifyEach(const std::optional<Connectors>& connectors, v1::McpServer& server, const Report& report) {
  if (server.agent_auth().interactive().allow().groups().empty()) return;
  auto& groups = *server.mutable_agent_auth()->mutable_interactive()->mutable_allow()->mutable_groups();
  google::protobuf::RepeatedPtrField<std::string> qualified;
  std::set<std::string> seen;
  for (int i = 0; i < groups.size(); ++i) {
    std::string fault;
    std::string name = Qualified(connectors, groups.Get(i), &fault);
    if (!fault.empty()) report(i, fault);
    if (seen.insert(name).second) *qualified.Add() = std::move(name);  // Both spellings of one group are one line.
  }
  groups.Swap(&qualified);
}

}  // namespace

void QualifyGroups(const std::optional<Connectors>& connectors, v1::McpServer& server, Findings& findings) {
  QualifyEach(connectors, server, [&findings](int i, const std::string& fault) {
    findings.Refuse(absl::StrCat("agentAuth.interactive.allow.groups[", i, "]"), fault);
  });
}

void QualifyStoredGroups(const std::optional<Connectors>& connectors, v1::McpServer& server) {
  QualifyEach(connectors, server, [](int /*i*/, const std::string& /*fault*/) {});
}

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/groups_overage.h"

#include "common/metrics.h"
#include "common/text/json.h"

namespace sallyport::authn {

bool GroupsLeftOut(const nlohmann::json& claims, const std::string& groups_claim) {
  const nlohmann::json* names = JsonMember(claims, "_claim_names");
  if (names != nullptr && names->is_object() && names->contains(groups_claim)) {
    return true;
  }
  // It speaks of the claim that Entra calls `groups`; some tokens write the boolean as a string.
  return groups_claim == "groups" &&
         (JsonBool(claims, "hasgroups").value_or(false) || JsonString(claims, "hasgroups") == "true");
}

namespace {

constexpr CounterInfo kOverages = {
    .name = "sallyport_authn_groups_overage_total",
    .help = "People whose provider sent no groups because there are too many",
    .unit = "people",
    .labels = {{"connector", "id of a configured connector"}, {"told_by", "sign_in, token"}},
    .rise =
        "The identity provider (Entra) finds some people's groups too many to send; servers that ask for a group "
        "refuse them",
    .action = "Have the provider send only the groups that are assigned to the application",
};

prometheus::Counter& Overages(const std::string& connector, const char* told_by) {
  return MetricCounter(kOverages, {{"connector", connector}, {"told_by", told_by}});
}

}  // namespace

void ExposeGroupsOverage(const std::string& connector) {
  for (const char* told_by : {"sign_in", "token"}) {
    Overages(connector, told_by);
  }
}

void CountGroupsOverage(const std::string& connector, const char* told_by) { Overages(connector, told_by).Increment(); }

}  // namespace sallyport::authn

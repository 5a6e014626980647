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

prometheus::Counter& Overages(const std::string& connector, const char* told_by) {
  return MetricCounter(
      "sallyport_authn_groups_overage_total",
      "People whose provider sent no groups because there are too many, by connector and what told of them",
      {{"connector", connector}, {"told_by", told_by}});
}

}  // namespace

void ExposeGroupsOverage(const std::string& connector) {
  for (const char* told_by : {"sign_in", "token"}) {
    Overages(connector, told_by);
  }
}

void CountGroupsOverage(const std::string& connector, const char* told_by) { Overages(connector, told_by).Increment(); }

}  // namespace sallyport::authn

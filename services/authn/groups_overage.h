// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

namespace sallyport::authn {

// Microsoft Entra leaves the groups of people who are in too many (150 to 200) out of their tokens and says where they
// can be asked for instead: `_claim_names` (OpenID Connect Core section 5.6.2) or, in short tokens, `hasgroups`. Nobody
// asks there: the person has no groups here.
bool GroupsLeftOut(const nlohmann::json& claims, const std::string& groups_claim);

// What an administrator can do about it.
inline constexpr char kGroupsOverageRemedy[] =
    "have the provider send fewer groups (in Entra: \"Groups assigned to the application\") or app roles "
    "(groupsClaim: roles)";

// Shows a connector's counters from the start: an alert must see the first count as a rise from 0.
void ExposeGroupsOverage(const std::string& connector);
// Counts a person whose groups were left out, by connector and what told of them: "sign_in" or "token".
void CountGroupsOverage(const std::string& connector, const char* told_by);

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "services/registry/consequences/callers.h"
#include "services/registry/consequences/needs.h"

namespace sallyport::registry {
namespace {

using v1::Consequence;
using Users = v1::Consequence::Users;

const UserNeed* Find(const std::vector<UserNeed>& needs, const UserNeed& like) {
  const auto found = std::find_if(needs.begin(), needs.end(), [&](const UserNeed& need) {
    return need.account == like.account && need.uid == like.uid && need.account_label == like.account_label;
  });
  return found == needs.end() ? nullptr : &*found;
}

bool IsNobody(const Users& users) { return users.number() == 0 && !users.at_least(); }

// What those who must connect again lack; empty if nothing is asked for that was not.
std::string WhatTheyLack(const UserNeed& before, const UserNeed& after) {
  const std::vector<std::string> scopes = NewScopes(before, after);
  if (scopes.size() == 1) {
    return absl::StrCat("scope ", scopes[0], " is asked for and their connection lacks it");
  }
  if (!scopes.empty()) {
    return absl::StrCat("scopes ", absl::StrJoin(scopes, ", "), " are asked for and their connection lacks one");
  }
  if (after.origin != before.origin) {
    return absl::StrCat("what they entered may not be sent to ", after.origin);
  }
  return "";
}

void AddAgain(const UserNeed& before, const UserNeed& after, UserCounts& counts, Consequences& found) {
  const std::string lack = WhatTheyLack(before, after);
  if (lack.empty()) return;
  const Holding good = after.Good();
  const auto count = counts.Ask(before.Good(), &good);
  if (count && IsNobody(count->lacking)) return;
  const std::string who = count ? UsersText(count->lacking) : "users (how many is not known)";
  found.push_back(ForUsers(Consequence::MUST_CONNECT_AGAIN, after, count ? &count->lacking : nullptr,
                           absl::StrCat(who, " must ", Connect(after), " again: ", lack)));
}

// `former`: what was used so far and is not any more; nullptr if nothing was, so that callers are not known by it.
void AddFirst(const UserNeed* former, const UserNeed& need, UserCounts& counts, Consequences& found) {
  const Holding good = need.Good();
  const auto ready = counts.Ask(good);
  const auto count = former == nullptr ? std::nullopt : counts.Ask(former->Good(), &good);
  std::string message = absl::StrCat("callers must ", Connect(need), " before their next call");
  if (count) {
    absl::StrAppend(&message, count->lacking.at_least() ? ", at least " : ", ", count->lacking.number(), " of the ",
                    UsersText(count->users), " who have ", Connected(*former), " among them");
  }
  absl::StrAppend(&message, "; ",
                  ready ? absl::StrCat(UsersText(ready->users),
                                       ready->users.number() == 1 ? " has done so already" : " have done so already")
                        : "how many have done so already is not known");
  found.push_back(ForUsers(Consequence::MUST_CONNECT, need, count ? &count->lacking : nullptr, message));
  if (ready) *found.back().mutable_ready() = ready->users;
}

}  // namespace

Consequences NeededOfUsers(const v1::McpServer& before, const v1::McpServer& after, const Neighbours& neighbours,
                           UserCounts& counts) {
  const std::vector<UserNeed> former = NeedsOf(before, neighbours);
  const std::vector<UserNeed> needs = NeedsOf(after, neighbours);
  const auto replaced =
      std::find_if(former.begin(), former.end(), [&](const UserNeed& need) { return Find(needs, need) == nullptr; });
  Consequences found;
  for (const UserNeed& need : needs) {
    if (const UserNeed* was = Find(former, need); was != nullptr) {
      AddAgain(*was, need, counts, found);
    } else {
      AddFirst(replaced == former.end() ? nullptr : &*replaced, need, counts, found);
    }
  }
  for (const UserNeed& need : former) {
    if (Find(needs, need) != nullptr) continue;
    AddNotUsed(need,
               need.account ? "this server does not use it any more; the connection stays until they disconnect it"
                            : "this server does not use it any more; the value stays stored until they clear it",
               counts, found);
  }
  return found;
}

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "sallyport/registry/v1/registry.pb.h"
#include "services/registry/consequences/consequences.h"
#include "services/registry/consequences/user_counts.h"

namespace sallyport::registry {

// An account or value of their own that every caller needs, as a record of the vault.
struct UserNeed {
  std::string field;
  bool account = false;  // Or else a value.
  std::string uid;
  std::string slug;
  std::string account_label;        // Of an account, where it is not the default one.
  bool every_account = false;       // Of an app: whatever its label.
  std::string name;                 // For people.
  std::vector<std::string> scopes;  // Of an account. Those that providers do not name are not here.
  std::string origin;               // Of a value: where it must be allowed to go.
  std::string token_origin;         // Of an account: where its tokens come from; empty if the issuer says it.

  // Who has it, as good as the need has it.
  Holding Good() const;
  // Who has it at all.
  Holding Any() const;
};

std::vector<UserNeed> NeedsOf(const v1::McpServer& server, const Neighbours& neighbours);
UserNeed NeedOf(const v1::App& app);
UserNeed NeedOf(const v1::Credential& credential);

// Scopes that `after` needs and `before` did not.
std::vector<std::string> NewScopes(const UserNeed& before, const UserNeed& after);

// "connect GitHub", "enter Wiki key"; "connected GitHub", "entered Wiki key".
std::string Connect(const UserNeed& need);
std::string Connected(const UserNeed& need);

// A consequence for those who have `need`. `users`: nullptr if their number is not known.
v1::Consequence ForUsers(v1::Consequence::Kind kind, const UserNeed& need, const v1::Consequence::Users* users,
                         const std::string& message);
// What users have is not used any more; nothing if nobody has it.
void AddNotUsed(const UserNeed& need, const std::string& what_becomes, UserCounts& counts, Consequences& found);

}  // namespace sallyport::registry

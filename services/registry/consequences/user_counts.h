// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "sallyport/registry/v1/registry.pb.h"
#include "sallyport/vault/v1/vault.pb.h"
#include "services/registry/secret_vault.h"

namespace sallyport::registry {

using Holding = vault::v1::CountUsersRequest::Holding;

// Asks the vault how many users have something of their own. Of one write: after the first question that is not
// answered, and after 50, it asks no more. For one thread.
class UserCounts {
 public:
  // `passport`: of who writes. Both outlive this.
  UserCounts(SecretVault& vault, const std::string& passport) : vault_(vault), passport_(passport) {}

  struct Count {
    v1::Consequence::Users users;    // Who have `has`.
    v1::Consequence::Users lacking;  // And not `lacks`.
  };
  // nullopt: it is not known.
  std::optional<Count> Ask(const Holding& has, const Holding* lacks = nullptr);

 private:
  SecretVault& vault_;
  const std::string& passport_;
  int asked_ = 0;
  bool silent_ = false;
  std::map<std::string, std::optional<Count>> answers_;  // A file may change many servers of one app.
};

// "1 user", "at least 42 users".
std::string UsersText(const v1::Consequence::Users& users);

}  // namespace sallyport::registry

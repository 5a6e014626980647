// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <prometheus/gauge.h>

#include "common/sql/sql.h"
#include "services/registry/secret_vault.h"

namespace sallyport::registry {

// Gives what an earlier release stored its origins: seals them to the secrets that resources refer to or may be
// switched back to, and gives resources the bindings they lack. Once in the life of a vault; every replica may do it,
// at once and while others write. For one background thread.
class Adoption {
 public:
  Adoption(Database& database, SecretVault& vault);

  // Does what can be done now. True: nothing is left, ever. An error, or false: to be called again after a while.
  absl::StatusOr<bool> Run();

 private:
  struct Item {
    SecretVault::Adopted adopted;
    // Of a binding: the resource it belongs to.
    absl::string_view kind;
    std::string slug;
    std::string uid;
  };
  template <typename T>
  static absl::Status Collect(Transaction& tx, std::vector<Item>& items);
  absl::StatusOr<bool> AdoptAll();
  absl::StatusOr<std::vector<Item>> Left();
  absl::Status AdoptBatch(const std::vector<Item>& batch);
  template <typename T>
  static absl::Status Fill(Transaction& tx, const Item& item, int64_t version);

  Database& database_;
  SecretVault& vault_;
  prometheus::Gauge& left_;
  std::set<std::pair<std::string, int64_t>> done_;  // Versions of secrets, by record.
};

}  // namespace sallyport::registry

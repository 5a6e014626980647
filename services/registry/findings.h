// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "common/error.h"
#include "sallyport/registry/v1/registry.pb.h"

namespace sallyport::registry {

// Findings of one resource. A write is refused if there is any violation; warnings go back with the answer.
struct Findings {
  std::vector<ErrorDetail::Violation> violations;
  std::vector<v1::Warning> warnings;
  // Fields that were refused because of who writes or where a secret would go, by the rule that says so. For the audit.
  std::map<std::string, std::vector<std::string>> denied;

  void Refuse(absl::string_view field, absl::string_view message) {
    violations.push_back({std::string(field), std::string(message)});
  }
  void Deny(absl::string_view rule, absl::string_view field, absl::string_view message) {
    denied[std::string(rule)].emplace_back(field);
    Refuse(field, message);
  }
  void Warn(absl::string_view field, absl::string_view message);
};

// Rules of Findings::Deny.
inline constexpr char kRoleRule[] = "credential_admin";
inline constexpr char kOriginRule[] = "secret_origin";

}  // namespace sallyport::registry

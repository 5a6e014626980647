// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sallyport::registry {

// Who writes, for authorization, the vault and the audit.
struct Writer {
  std::string subject;
  std::string client_id;
  std::string passport;
  bool credential_admin = false;
};

// A write that its writer may not make, for the audit.
struct Denial {
  absl::string_view kind;
  std::string slug;
  std::string uid;   // Empty if it was to be created.
  std::string rule;  // See Findings::Deny, or the reason an RPC was refused with.
  std::vector<std::string> fields;
  bool dry_run = false;
};

}  // namespace sallyport::registry

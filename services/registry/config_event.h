// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "sallyport/audit/v1/audit.pb.h"
#include "services/registry/writer.h"

namespace sallyport::registry {

struct ResourceName {
  absl::string_view kind;
  std::string uid;
  std::string slug;  // As a caller gave it, perhaps.
};

// An audit event about one resource ("config.created"): who and what; decision and rule are the caller's to set.
audit::v1::Event ConfigEvent(absl::string_view type, const ResourceName& resource, const Writer& writer);

// Names of fields for an event's details.
std::string JoinFields(const std::vector<std::string>& fields);

}  // namespace sallyport::registry

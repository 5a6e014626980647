// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <google/protobuf/message.h>

#include "services/registry/secret_fields.h"
#include "services/registry/store.h"
#include "services/registry/validation.h"

namespace sallyport::registry {

// What becomes of the secrets of a resource when it is written; nothing here talks to the vault.
struct SecretPlan {
  struct Put {
    std::string path;
    std::string json_path;
    std::string record;
    std::string value;
    int64_t base = 0;  // The version referred to so far; 0: none.
  };
  struct Old {
    std::string record;
    int64_t version = 0;
    absl::Time updated_at;
    std::string origin;
  };
  std::vector<Put> puts;     // Values given.
  std::vector<Old> retire;   // Of a former type: kept, so that switching back works.
  std::vector<Old> erase;    // Cleared.
  std::vector<Old> resumed;  // Retired before, and referred to again.
};

// Finds where a secret may be sent. Empty: decided elsewhere (credentials carry their own origins).
using OriginOfSecret = std::function<std::string(const google::protobuf::Message& resource)>;

// Fills the secret references of `after` from `before` (null: creation) and from retired ones, and plans the rest.
// Refuses: a required value that is nowhere, `clear: false`, values that cannot be sent, and carrying a value over to
// another origin
// (`origin_fields` says which fields moved, for the message).
SecretPlan PlanSecrets(const google::protobuf::Message* before, google::protobuf::Message& after,
                       const std::string& uid, const OriginOfSecret& origin, const std::string& origin_fields,
                       const std::function<std::optional<Store::Retired>(const std::string& record)>& retired,
                       Findings& findings);

}  // namespace sallyport::registry

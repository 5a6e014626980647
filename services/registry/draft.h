// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <google/protobuf/message.h>

#include "services/registry/resource.h"
#include "services/registry/secret_fields.h"
#include "services/registry/secret_ledger.h"
#include "services/registry/validation.h"

namespace sallyport::registry {

// A former version of this record that may be taken into use again.
using RetiredVersion = std::function<std::optional<SecretLedger::Version>(const std::string& record)>;

// One resource on its way in, with everything it is checked against.
template <typename T>
struct Draft {
  const T* before;  // nullptr: it is to be created.
  T& after;
  const ResourceUrls& before_urls;
  const ResourceUrls& urls;
  const std::string& uid;
  bool credential_admin;
  const ValidationContext& context;
  const RetiredVersion& retired;
};

// What becomes of the secrets of a resource when it is written; nothing here talks to the vault.
struct SecretPlan {
  struct Put {
    std::string path;
    std::string json_path;
    std::string record;
    std::string value;
    int64_t base = 0;  // The version referred to so far; 0: none.
    SecretReach reach;
    std::string public_jwk;  // Of private keys.
  };
  std::vector<Put> puts;  // Values given, and keys made.
  // Of stored values; `kind` is not filled in.
  std::vector<SecretLedger::Version> rebind;   // Kept, with these other origins.
  std::vector<SecretLedger::Version> retire;   // Of a former type: kept, so that switching back works.
  std::vector<SecretLedger::Version> erase;    // Cleared, or gone with what they belonged to.
  std::vector<SecretLedger::Version> resumed;  // Retired before, and referred to again.
};

// What happens to a stored value whose resource comes to name other origins.
struct MoveRule {
  enum Outcome { kGiveAgain, kRebind };
  std::string field;  // That names where it goes, for the message.
  Outcome outcome = kGiveAgain;
  std::string onward;  // The same of what is got with it.
};

// Where the secrets of a resource go, before and after.
struct SecretMove {
  std::function<SecretReach(const SecretField&)> before;
  std::function<SecretReach(const SecretField&)> after;
  std::function<MoveRule(const SecretField&)> rule;
};

// Fills the secret references of `after` from `before` (null: creation) and from retired ones, makes private keys that
// are missing, and plans the rest.
// Refuses: a required value that is nowhere, `clear: false`, values that cannot be sent, and carrying a value over to
// other origins where the rule says so.
SecretPlan PlanSecrets(const google::protobuf::Message* before, google::protobuf::Message& after,
                       const std::string& uid, const SecretMove& move, const RetiredVersion& retired,
                       Findings& findings);

template <typename T>
SecretPlan PlanSecrets(const Draft<T>& draft, const std::function<MoveRule(const SecretField&)>& rule,
                       Findings& findings) {
  const auto reach = [](const T* resource, const ResourceUrls& urls) {
    return [resource, &urls](const SecretField& field) { return ResourceTraits<T>::ReachOf(field, *resource, urls); };
  };
  const SecretMove move{reach(draft.before, draft.before_urls), reach(&draft.after, draft.urls), rule};
  return PlanSecrets(draft.before, draft.after, draft.uid, move, draft.retired, findings);
}

}  // namespace sallyport::registry

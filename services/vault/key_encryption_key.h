// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/secret.h"

namespace sallyport::vault {

// The one secret outside the database. The shape is that of the Kubernetes KMS v2 plugin protocol, so that any such
// plugin fits. Wrapped values carry no associated data: what is wrapped names its own identity inside the plaintext.
// Thread-safe.
class KeyEncryptionKey {
 public:
  struct Wrapped {
    std::string ciphertext;  // At most 1 kB.
    std::string key_id;
    std::map<std::string, std::string> annotations;  // Stored in clear.
  };

  virtual ~KeyEncryptionKey() = default;
  // Id of the key that Wrap uses now. NOT_FOUND: there is no usable key; the message says why.
  virtual absl::StatusOr<std::string> Status() = 0;
  // `uid` only correlates log lines.
  virtual absl::StatusOr<Wrapped> Wrap(const Secret& plaintext, absl::string_view uid) = 0;
  // NOT_FOUND: no key of that id. DATA_LOSS: the key does not open it. UNAVAILABLE: cannot be asked now.
  virtual absl::StatusOr<Secret> Unwrap(const Wrapped& wrapped, absl::string_view uid) = 0;
  // Called once, before anything is encrypted in an empty store: a provider that keeps its keys itself makes the first
  // one, and changes nothing if there is one.
  virtual absl::Status CreateFirst() { return absl::OkStatus(); }
  // Wipes keys that the provider holds in this process.
  virtual void Wipe() {}
};

}  // namespace sallyport::vault

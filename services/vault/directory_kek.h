// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>

#include "common/mutex.h"
#include "services/vault/key_encryption_key.h"

namespace sallyport::vault {

// Keys in a directory: each regular file of exactly 32 bytes and mode 0400 or 0440 is one; `current` (a symbolic link,
// or a file as in a mounted Kubernetes Secret) is the one that wraps, all of them unwrap. Names beginning with '.' are
// ignored. The directory is read again by every Status() and when a key id is not known.
//
// key_id = "file:" and the first 16 hex digits of HMAC-SHA-256(key, "sallyport-kek-id"): an id can never name another
// key. Wrapped: nonce (12), ciphertext, tag (16), AES-256-GCM with associated data "sallyport-kek-v1|" and the key_id.
class DirectoryKek final : public KeyEncryptionKey {
 public:
  explicit DirectoryKek(std::string directory) : directory_(std::move(directory)) {}

  // NOT_FOUND: no directory, no `current`, or it is no valid key (wrong size or mode; the message says which).
  absl::StatusOr<std::string> Status() override;
  absl::StatusOr<Wrapped> Wrap(const Secret& plaintext, absl::string_view uid) override;
  absl::StatusOr<Secret> Unwrap(const Wrapped& wrapped, absl::string_view uid) override;

  // Makes the directory and its first key if there is no entry at all.
  absl::Status CreateFirst() override;
  // Until the directory is read again.
  void Wipe() override;

 private:
  using Keys = std::map<std::string, std::shared_ptr<const Secret>>;
  absl::Status Load();
  std::shared_ptr<const Secret> Find(const std::string& key_id) const;

  const std::string directory_;
  mutable Mutex mu_;
  Keys keys_ ABSL_GUARDED_BY(mu_);
  std::string current_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::vault

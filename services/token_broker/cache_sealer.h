// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/secret.h"
#include "services/token_broker/connection.h"

namespace sallyport::token_broker {

// Names of connections in a store that may be stolen: "sallyport:token:" and hex HMAC-SHA-256 under the organization's
// root of the day, which says nothing about whose a value is. Pure.
class CacheNames {
 public:
  explicit CacheNames(const Secret& root);
  std::string KeyFor(const ConnectionKey& key) const;

 private:
  Secret mac_key_;
};

// Seals a user's tokens for such a store, under the user's own root: it opens for those who are calling, and for nobody
// else. Key: HKDF(root of the day; subject, connection, generation). Pure.
//   value  "SPC2" · u64 generation · u32 day · u32 version of the data key that the root is of (big-endian) ·
//   AES-256-GCM(CachedToken), associated data = the 20 bytes before and the Redis key
class CacheSealer {
 public:
  CacheSealer(Secret root, int64_t day, int32_t key_version)
      : root_(std::move(root)), day_(day), key_version_(key_version) {}
  // Only the access token goes in, never a refresh token.
  absl::StatusOr<std::string> Seal(const ConnectionKey& key, const ConnectionView& view,
                                   absl::string_view redis_key) const;
  // DATA_LOSS if it is not this connection's or was touched. NOT_FOUND if it was sealed under another root.
  absl::StatusOr<SharedConnection> Open(const ConnectionKey& key, absl::string_view value,
                                        absl::string_view redis_key) const;
  // Of the clear header; nothing if the value has none.
  static std::optional<int64_t> GenerationOf(absl::string_view value);
  int64_t day() const { return day_; }

 private:
  std::string Header(int64_t generation) const;
  Secret ValueKey(const ConnectionKey& key, int64_t generation) const;

  Secret root_;
  int64_t day_;
  int32_t key_version_;
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sallyport::edge {

// Binds a legacy Mcp-Session-Id to its user: "<upstream id>.<tag>", tag = base64url(capabilities byte, 16 bytes of
// HMAC-SHA-256(key, "sallyport-session-tag-v1" and length-prefixed subject, server uid, upstream id, capabilities, and
// length-prefixed the label of the account that the session was opened with, unless that is the unlabelled one)).
// A session id is never authentication; it only must not be somebody else's.
inline constexpr uint8_t kCapabilityElicitationUrl = 1;

struct SessionId {
  std::string_view upstream_id;
  uint8_t capabilities = 0;
};

class SessionTagger {
 public:
  // 32 bytes each; the first signs, all verify. Never empty.
  explicit SessionTagger(std::vector<std::string> keys) : keys_(std::move(keys)) {}
  std::string Tag(std::string_view subject, std::string_view server_uid, std::string_view upstream_id,
                  uint8_t capabilities, std::string_view account = {}) const;
  // Nothing if it is not one of ours for this subject, server and account.
  std::optional<SessionId> Verify(std::string_view subject, std::string_view server_uid, std::string_view tagged,
                                  std::string_view account = {}) const;

 private:
  std::vector<std::string> keys_;
};

}  // namespace sallyport::edge

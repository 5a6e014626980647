// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "services/token_broker/connection.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/vault_client.h"

// Revocations that are owed: records of the broker's own, which the vault makes of users' connections. Their names are
// "<hex SHA-256 of the subject>:<connection>:<generation>".
namespace sallyport::token_broker {

inline constexpr char kRevocation[] = "revocation";

// The app's uid, or "sso:<connector>", of a connection or of what became of one.
std::string AppUidOf(const vault::v1::RecordMetadata& metadata);

// Whose and of what a revocation is; an empty subject if it does not say.
ConnectionKey ConnectionOf(const vault::v1::RecordMetadata& owed);
// The connection's generation when it ended; what is left of it has the next one. 0 if it does not say.
int64_t GenerationOf(const vault::v1::RecordMetadata& owed);
// When it began to be owed; nothing if it does not say.
std::optional<absl::Time> SinceOf(const vault::v1::RecordMetadata& owed);

// What `subject` owes, oldest first; the caller answers for who may know it.
absl::StatusOr<std::vector<vault::v1::RecordMetadata>> OwedBy(VaultClient& vault, const std::string& subject);
// Everybody's of an app; at most `limit`.
absl::StatusOr<std::vector<vault::v1::RecordMetadata>> OwedOfApp(VaultClient& vault, const std::string& app_uid,
                                                                 int limit);
// What `subject` owes of one connection.
absl::StatusOr<std::vector<vault::v1::RecordMetadata>> OwedBy(VaultClient& vault, const ConnectionKey& key);

}  // namespace sallyport::token_broker

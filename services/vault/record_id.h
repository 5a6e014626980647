// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <tuple>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "sallyport/vault/v1/vault.pb.h"

namespace sallyport::vault {

// Whose data key protects a record: the unit of crypto-shredding.
struct Owner {
  std::string type;  // "user", "org" or "system": as in the associated data.
  std::string id;
  friend bool operator==(const Owner& a, const Owner& b) { return a.type == b.type && a.id == b.id; }
  friend bool operator<(const Owner& a, const Owner& b) { return std::tie(a.type, a.id) < std::tie(b.type, b.id); }
};

struct RecordId {
  Owner owner;
  std::string kind;
  std::string name;
  friend bool operator==(const RecordId& a, const RecordId& b) {
    return a.owner == b.owner && a.kind == b.kind && a.name == b.name;
  }
};

// Owner of the vault's own records (canary, roots of the cache keys); no caller may name it.
inline Owner VaultOwner() { return {"system", "vault"}; }

inline constexpr size_t kMaxPayloadBytes = 64 * 1024;
inline constexpr size_t kMaxNameBytes = 512;
inline constexpr size_t kMaxLabelBytes = 4 * 1024;

// INVALID_ARGUMENT naming the field: a part is empty, longer than 512 bytes or has control characters, or the kind is
// unknown or does not belong to that owner ("connection" is a USER's, "signing_key" is SYSTEM "authn"'s, and so on).
absl::StatusOr<RecordId> ParseRecordName(const v1::RecordName& name);
absl::StatusOr<Owner> ParseOwner(v1::OwnerType type, const std::string& id);
v1::RecordName ToProto(const RecordId& id);

// Without a secret: its origins are what it says.
inline bool IsBinding(const RecordId& id) { return id.kind == "server_binding" || id.kind == "app_binding"; }

// What is sent to other parties, and therefore says where.
inline bool IsSent(const RecordId& id) {
  return id.kind == "server_secret" || id.kind == "app_secret" || id.kind == "credential" ||
         id.kind == "connector_secret";
}

// What OweRevocation makes: the broker's, whoever the tokens in it were of. Its kind has one owner.
inline constexpr char kRevocationKind[] = "revocation";
inline Owner RevocationOwner() { return {"system", "token_broker"}; }
inline bool IsRevocation(const RecordId& id) { return id.kind == kRevocationKind; }

// Parts of a connection's name. What it belongs to is its app's uid, or "sso:<connector>" of a sign-in; the account is
// empty of the default one.
std::string AppOf(const RecordId& connection);
std::string AccountOf(const RecordId& connection);
inline bool IsSignIn(const RecordId& connection) { return connection.name.rfind("sso:", 0) == 0; }

// How many versions of a record are kept beside the pinned ones.
int VersionsKept(const RecordId& id);

}  // namespace sallyport::vault

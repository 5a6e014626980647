// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/secret.h"
#include "services/vault/record_id.h"

// Formats and key derivation of the vault; pure functions, no state but the random generator. Integers are big-endian,
// `items` are a sequence of (be32 length, bytes), so that no two lists read the same.
//
//   KEK (KeyEncryptionKey)                         the only secret outside the database
//    └ term seed, 32 random bytes                  wrapped by the KEK
//       └ owner key, 32 random bytes per owner     AES-256-GCM under HKDF-Expand(seed, "sallyport/v1/wrap" 00
//       term_be32)
//          └ record key                            HKDF-Expand(owner key, "sallyport/v1/rec" 00 salt), used for one
//          encryption
//
// Stored record
//   offset  size  field
//   0       2     "SP"
//   2       1     format = 0x02
//   3       1     algorithm = 0x01: HKDF-SHA-256, AES-256-GCM
//   4       4     key_version of the owner key
//   8       32    salt
//   40      12    nonce
//   52      n     ciphertext of the content padded to a multiple of 64 bytes (ISO/IEC 7816-4: 0x80, then zeros)
//   52+n    16    tag; associated data = items "sallyport-aad-v2", deployment_id, org_id, owner_type, owner_id, kind,
//                 name, version (be64), generation (be64), key_version (be32), recomputed from the row
//
// Content: items payload, origin, origin, … (to which the payload may be sent). Format 0x01, of earlier releases: its
// content is the payload alone, its associated data begin with "sallyport-aad-v1".
//
// Wrapped owner key: nonce (12), ciphertext (32), tag (16); associated data = items "sallyport-dek-v1", deployment_id,
// org_id, owner_type, owner_id, key_version (be32), term (be32).
//
// Seed as given to the KEK, which knows no associated data: items "SPSEED1", deployment_id, term (be32), seed.
namespace sallyport::vault {

inline constexpr size_t kKeyBytes = 32;
inline constexpr size_t kRecordOverheadBytes = 68;
inline constexpr size_t kPaddingBytes = 64;
inline constexpr size_t kMaxOriginBytes = size_t{32} << 10;

// What a record is; all of it is authenticated.
struct RecordIdentity {
  std::string deployment_id;
  RecordId record;
  int64_t version = 0;
  int64_t generation = 0;
};

// What an owner key is.
struct OwnerKeyIdentity {
  std::string deployment_id;
  Owner owner;
  uint32_t key_version = 0;
  uint32_t term = 0;
};

using Origins = std::vector<std::string>;

// INVALID_ARGUMENT over 64 KiB, or with more than kMaxOriginBytes of origins.
absl::StatusOr<std::string> SealRecord(const Secret& owner_key, uint32_t key_version, const RecordIdentity& identity,
                                       absl::string_view payload, const Origins& origins);

// In format 0x01, as earlier releases did: for what does not say where it may be sent, and shall be adopted.
absl::StatusOr<std::string> SealUnbound(const Secret& owner_key, uint32_t key_version, const RecordIdentity& identity,
                                        absl::string_view payload);

struct OpenedRecord {
  Secret payload;
  // Where the payload may be sent.
  Origins origins;
  // False in format 0x01, which does not say.
  bool bound = false;
};
// DATA_LOSS tag_mismatch for anything that is not exactly what SealRecord made for this identity.
absl::StatusOr<OpenedRecord> OpenRecord(const Secret& owner_key, const RecordIdentity& identity,
                                        absl::string_view record);
// The same record, with the same content and in the same format, under another owner key. DATA_LOSS as OpenRecord.
absl::StatusOr<std::string> ResealRecord(const Secret& old_key, const Secret& new_key, uint32_t new_key_version,
                                         const RecordIdentity& identity, absl::string_view record);
// Which owner key opens it. DATA_LOSS if this is no record.
absl::StatusOr<uint32_t> KeyVersionOf(absl::string_view record);
// Size of the stored record for a payload of so many bytes that is sent nowhere.
size_t SealedSize(size_t payload_bytes);

absl::StatusOr<std::string> WrapOwnerKey(const Secret& seed, const OwnerKeyIdentity& identity, const Secret& owner_key);
// DATA_LOSS tag_mismatch.
absl::StatusOr<Secret> UnwrapOwnerKey(const Secret& seed, const OwnerKeyIdentity& identity, absl::string_view wrapped);

struct SeedPlaintext {
  std::string deployment_id;
  uint32_t term = 0;
  Secret seed;
};
Secret EncodeSeed(const SeedPlaintext& seed);
// DATA_LOSS if it is not such a list.
absl::StatusOr<SeedPlaintext> DecodeSeed(const Secret& plaintext);

// Root of an owner's cache keys of a UTC day: HKDF-Expand(owner key, "sallyport/v1/cache-root" 00 day_be64).
absl::StatusOr<Secret> CacheRoot(const Secret& owner_key, int64_t day);

namespace envelope_internal {
std::string RecordAssociatedData(int format, const RecordIdentity& identity, uint32_t key_version);
Secret Pad(absl::string_view payload);
absl::StatusOr<Secret> Unpad(absl::string_view padded);
}  // namespace envelope_internal

}  // namespace sallyport::vault

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/secret.h"

// Thin functions over OpenSSL. Results are raw bytes unless said otherwise; encode with common/text/base64url.h or
// common/text/hex.h.
namespace sallyport {

inline constexpr size_t kSha256Size = 32;
inline constexpr size_t kAeadKeySize = 32;
inline constexpr size_t kAeadNonceSize = 12;
inline constexpr size_t kAeadTagSize = 16;
inline constexpr size_t kAeadOverhead = kAeadNonceSize + kAeadTagSize;

std::string Sha256(absl::string_view data);
std::string Sha384(absl::string_view data);
std::string Sha512(absl::string_view data);

std::string HmacSha256(absl::string_view key, absl::string_view data);

// RFC 5869 section 2.3. `prk` must already be a uniform key; `size` at most 255 * 32.
Secret HkdfExpandSha256(absl::string_view prk, absl::string_view info, size_t size);
// RFC 5869 extract and expand, for input that is not uniform.
Secret HkdfSha256(absl::string_view ikm, absl::string_view salt, absl::string_view info, size_t size);

// AES-256-GCM. Sealed form: nonce (12, random) | ciphertext | tag (16). `associated_data` is authenticated, not stored.
// INVALID_ARGUMENT if the key is not 32 bytes.
absl::StatusOr<std::string> AeadSeal(const Secret& key, absl::string_view plaintext, absl::string_view associated_data);
// INVALID_ARGUMENT for a wrong key size; DATA_LOSS "cannot open" for everything else, whatever was wrong. Plaintext is
// released only after the tag has been verified.
absl::StatusOr<Secret> AeadOpen(const Secret& key, absl::string_view sealed, absl::string_view associated_data);

// Constant-time in the contents; the length is not hidden.
bool ConstantTimeEquals(absl::string_view a, absl::string_view b);

// "$scrypt$ln=15,r=8,p=1$<salt>$<hash>" (base64, unpadded; salt 16 bytes, hash 32). Takes about 60 ms and 32 MiB.
std::string HashPassword(const Secret& password);
// Whether VerifyPassword can judge by `encoded`: INVALID_ARGUMENT if it is not such a string or its costs are outside
// ln=10 to 17, r=1 to 8, p=1 to 4. The message does not quote it: it may be a password written in the wrong place.
absl::Status CheckPasswordHash(absl::string_view encoded);
// True if it matches. INVALID_ARGUMENT as CheckPasswordHash.
absl::StatusOr<bool> VerifyPassword(const Secret& password, absl::string_view encoded);

}  // namespace sallyport

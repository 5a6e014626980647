// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/jose/jwk.h"

namespace sallyport {

inline constexpr size_t kMaxJwsSize = 8 << 10;

// A JWS in compact serialization (RFC 7515 section 7.1), taken apart but not yet verified.
struct Jws {
  JwsAlgorithm algorithm;
  std::optional<std::string> kid;
  std::string typ;            // Lower case, without "application/"; empty if absent.
  std::string signing_input;  // The first two segments as received.
  std::string payload;        // Decoded.
  std::string signature;      // Decoded.
};

// UNAUTHENTICATED for: more than `max_size` bytes; not three non-empty segments; base64url that is not strict; a header
// that is no JSON object or has duplicate keys; "alg" unknown or "none"; any "crit", "b64", "zip" or "enc"; a kid that
// is no string of 1..256 bytes. Header members that carry or point to keys (jwk, jku, x5u, x5c) are ignored. Reason
// "algorithm" for the "alg"; none for the others.
absl::StatusOr<Jws> ParseJws(absl::string_view token, size_t max_size = kMaxJwsSize);

// ParseJws, then the signature by a key of the set. Errors: as ParseJws; UNAUTHENTICATED reason "bad_signature", or
// "algorithm" when the key does not verify that one; NOT_FOUND when no key matches (the caller may refresh the set and
// try again).
absl::StatusOr<Jws> VerifyJws(absl::string_view token, const JwkSet& keys, size_t max_size = kMaxJwsSize);

// ES256 with header alg, kid and typ. `kid`: what is put there; the key's own when empty.
absl::StatusOr<std::string> SignJws(absl::string_view payload, absl::string_view typ, const PrivateKey& key,
                                    absl::string_view kid = "");

}  // namespace sallyport

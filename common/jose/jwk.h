// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/secret.h"

namespace sallyport {

// RFC 7518 section 3.1 and RFC 8037. There is no symmetric algorithm and no "none": what is not here cannot be
// verified.
enum class JwsAlgorithm { kRs256, kRs384, kRs512, kPs256, kPs384, kPs512, kEs256, kEs384, kEs512, kEdDsa };

absl::string_view JwsAlgorithmName(JwsAlgorithm algorithm);
// Case-sensitive; nothing for anything else.
std::optional<JwsAlgorithm> ParseJwsAlgorithm(absl::string_view name);

// A public signature key (RFC 7517). Immutable, thread-safe, cheap to copy. The key decides which algorithms it
// verifies: an EC or OKP key the one of its curve; an RSA key its "alg", or all of RFC 7518 sections 3.3 and 3.5 (RS256
// to PS512) when it has none.
class PublicKey {
 public:
  // A JWK as JSON. INVALID_ARGUMENT for: symmetric keys; private members; "use" other than "sig"; "key_ops" without
  // "verify"; "alg" that does not fit the key; RSA below 2048 or above 8192 bits, an even or small exponent, a modulus
  // with the ROCA fingerprint; curves other than P-256, P-384, P-521, Ed25519; a point that is not on its curve;
  // coordinates of another length (RFC 7518 section 6.2.1.2).
  static absl::StatusOr<PublicKey> FromJwk(absl::string_view json);

  const std::string& kid() const;  // Empty if absent.
  bool Supports(JwsAlgorithm algorithm) const;
  // UNAUTHENTICATED unless `signature` (ECDSA: raw r || s of exactly the curve's length) is valid (else reason
  // "bad_signature") and the key supports `algorithm` (else reason "algorithm").
  absl::Status Verify(JwsAlgorithm algorithm, absl::string_view signing_input, absl::string_view signature) const;
  // RFC 7638: base64url of SHA-256 over the required members.
  const std::string& Thumbprint() const;
  // The JWK as compact JSON with kid, use and alg.
  std::string ToJwk() const;

 private:
  friend class PrivateKey;
  friend class JwkReader;
  struct Data;
  explicit PublicKey(std::shared_ptr<const Data> data) : data_(std::move(data)) {}
  std::shared_ptr<const Data> data_;
};

// A private P-256 key for ES256. Thread-safe; move-only.
class PrivateKey {
 public:
  static absl::StatusOr<PrivateKey> GenerateP256();
  // PKCS #8 DER, unencrypted. INVALID_ARGUMENT unless it is a P-256 key.
  static absl::StatusOr<PrivateKey> FromPkcs8(const Secret& der);
  Secret ToPkcs8() const;
  // With kid = thumbprint.
  const PublicKey& public_key() const { return public_key_; }
  const std::string& kid() const { return public_key_.kid(); }
  // Raw r || s, 64 bytes, low-S (low_s.h).
  absl::StatusOr<std::string> Sign(absl::string_view signing_input) const;

  PrivateKey(PrivateKey&&) noexcept;
  PrivateKey& operator=(PrivateKey&&) noexcept;
  ~PrivateKey();

 private:
  struct Data;
  PrivateKey(std::unique_ptr<Data> data, PublicKey public_key);
  std::unique_ptr<Data> data_;
  PublicKey public_key_;
};

// A set of public keys (RFC 7517 section 5). Immutable, thread-safe, cheap to copy.
class JwkSet {
 public:
  static constexpr size_t kMaxBytes = 256 << 10;
  static constexpr size_t kMaxKeys = 100;

  JwkSet() = default;
  // Keys that PublicKey refuses are left out, and so are all keys that share a kid but are not the same key. Keys for
  // encryption belong in such a set: they are left out and not reported (RFC 7517 section 4.2).
  // INVALID_ARGUMENT if it is no JWKS, beyond the limits, or nothing is left.
  static absl::StatusOr<JwkSet> Parse(absl::string_view json);
  explicit JwkSet(std::vector<PublicKey> keys) : keys_(std::move(keys)) {}

  const std::vector<PublicKey>& keys() const { return keys_; }
  // Why keys were left out, for the log: "keys[3]: …".
  const std::vector<std::string>& refused() const { return refused_; }
  // By exact kid; without a kid, the only key of the set that supports `algorithm`. NOT_FOUND otherwise. The result
  // lives as long as the set.
  absl::StatusOr<const PublicKey*> Find(const std::optional<std::string>& kid, JwsAlgorithm algorithm) const;
  std::string ToJson() const;

 private:
  std::vector<PublicKey> keys_;
  std::vector<std::string> refused_;
};

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/jose/jwk.h"
#include "common/secret.h"

namespace sallyport {

// A private key with which a client proves itself by assertions (RFC 7523 section 2.2): RSA of 2048 bits or more for
// RS256, P-256 for ES256. Thread-safe; move-only.
class AssertionKey {
 public:
  // PEM of PKCS #8, PKCS #1 or SEC 1, unencrypted. INVALID_ARGUMENT, without a word of its content, for anything else.
  static absl::StatusOr<AssertionKey> FromPem(const Secret& pem);
  // A new P-256 key as PKCS #8 in PEM.
  static absl::StatusOr<Secret> GeneratePem();

  // With kid = thumbprint (RFC 7638), alg and use.
  const PublicKey& public_key() const { return public_key_; }
  // The same as a JWK that begins with "kty": a text that begins with "alg" is taken for a token by those who scan for
  // them.
  std::string PublicJwk() const;
  // JWS in compact serialization with header alg, kid and typ. `kid`: what is put there; the thumbprint when empty.
  absl::StatusOr<std::string> SignJws(absl::string_view payload, absl::string_view typ,
                                      absl::string_view kid = "") const;

  AssertionKey(AssertionKey&&) noexcept;
  AssertionKey& operator=(AssertionKey&&) noexcept;
  ~AssertionKey();

 private:
  struct Rsa;
  // Exactly one of them.
  AssertionKey(std::unique_ptr<PrivateKey> p256, std::unique_ptr<Rsa> rsa, PublicKey public_key);

  std::unique_ptr<PrivateKey> p256_;
  std::unique_ptr<Rsa> rsa_;
  PublicKey public_key_;
};

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "common/crypto/openssl.h"
#include "common/jose/jwk.h"

// Inside of PublicKey and PrivateKey; for the files of common/jose only.
namespace sallyport {

enum class KeyKind { kRsa, kP256, kP384, kP521, kEd25519 };

struct CurveInfo {
  const char* crv;
  const char* group;       // OpenSSL's name.
  size_t coordinate_size;  // RFC 7518 section 6.2.1.2.
  JwsAlgorithm algorithm;
};
// Null for kinds without an ECDSA curve.
const CurveInfo* CurveOf(KeyKind kind);

struct PublicKey::Data {
  KeyKind kind;
  EvpPkeyPtr pkey;
  std::string kid;
  std::optional<JwsAlgorithm> pinned;
  // Required members in the order of RFC 7638, as they stand in the thumbprint's input: {"crv":…}.
  std::string canonical;
  std::string thumbprint;
};

struct PrivateKey::Data {
  EvpPkeyPtr pkey;
};

}  // namespace sallyport

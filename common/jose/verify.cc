// SPDX-License-Identifier: Apache-2.0
#include <tuple>
#include <utility>

#include "common/crypto/openssl.h"
#include "common/error.h"
#include "common/jose/jwk.h"
#include "common/jose/jwk_data.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

absl::Status BadSignature() {
  return WithReason(absl::UnauthenticatedError("signature does not verify"), "bad_signature");
}

const char* DigestNameOf(JwsAlgorithm algorithm) {
  switch (algorithm) {
    case JwsAlgorithm::kRs256:
    case JwsAlgorithm::kPs256:
    case JwsAlgorithm::kEs256:
      return "SHA256";
    case JwsAlgorithm::kRs384:
    case JwsAlgorithm::kPs384:
    case JwsAlgorithm::kEs384:
      return "SHA384";
    case JwsAlgorithm::kRs512:
    case JwsAlgorithm::kPs512:
    case JwsAlgorithm::kEs512:
      return "SHA512";
    case JwsAlgorithm::kEdDsa:
      return nullptr;  // Ed25519 hashes by itself.
  }
  return nullptr;
}

bool IsPss(JwsAlgorithm algorithm) {
  return algorithm == JwsAlgorithm::kPs256 || algorithm == JwsAlgorithm::kPs384 || algorithm == JwsAlgorithm::kPs512;
}

// RFC 7518 section 3.4: r and s, big-endian, each of the coordinate's length; OpenSSL wants DER.
absl::StatusOr<std::string> RawToDer(absl::string_view raw, size_t coordinate) {
  if (raw.size() != 2 * coordinate) return BadSignature();
  const int size = static_cast<int>(coordinate);
  EcdsaSigPtr parsed(ECDSA_SIG_new());
  BignumPtr r(BN_bin2bn(Bytes8(raw), size, nullptr));
  BignumPtr s(BN_bin2bn(Bytes8(raw) + coordinate, size, nullptr));
  if (parsed == nullptr || r == nullptr || s == nullptr || BN_is_zero(r.get()) || BN_is_zero(s.get())) {
    return BadSignature();
  }
  if (ECDSA_SIG_set0(parsed.get(), r.get(), s.get()) != 1) return BadSignature();
  std::ignore = r.release();  // Owned by `parsed` now.
  std::ignore = s.release();
  unsigned char* der = nullptr;
  const int length = i2d_ECDSA_SIG(parsed.get(), &der);
  if (length <= 0) return BadSignature();
  std::string out(reinterpret_cast<const char*>(der), static_cast<size_t>(length));
  OPENSSL_free(der);
  return out;
}

}  // namespace

absl::Status PublicKey::Verify(JwsAlgorithm algorithm, absl::string_view signing_input,
                               absl::string_view signature) const {
  if (!Supports(algorithm)) {
    return WithReason(absl::UnauthenticatedError("the key does not verify this algorithm"), "algorithm");
  }
  std::string der;
  if (const CurveInfo* curve = CurveOf(data_->kind); curve != nullptr) {
    ASSIGN_OR_RETURN(der, RawToDer(signature, curve->coordinate_size));
    signature = der;
  }
  EvpMdCtxPtr context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* pkey_context = nullptr;  // Owned by `context`.
  bool ok = context != nullptr && EVP_DigestVerifyInit_ex(context.get(), &pkey_context, DigestNameOf(algorithm),
                                                          nullptr, nullptr, data_->pkey.get(), nullptr) == 1;
  if (ok && IsPss(algorithm)) {
    // RFC 7518 section 3.5: MGF1 with the same hash (the default), salt as long as the hash.
    ok = EVP_PKEY_CTX_set_rsa_padding(pkey_context, RSA_PKCS1_PSS_PADDING) == 1 &&
         EVP_PKEY_CTX_set_rsa_pss_saltlen(pkey_context, RSA_PSS_SALTLEN_DIGEST) == 1;
  }
  ok = ok && EVP_DigestVerify(context.get(), Bytes8(signature), signature.size(), Bytes8(signing_input),
                              signing_input.size()) == 1;
  ERR_clear_error();
  return ok ? absl::OkStatus() : BadSignature();
}

}  // namespace sallyport

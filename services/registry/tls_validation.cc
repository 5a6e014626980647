// SPDX-License-Identifier: Apache-2.0
#include "services/registry/tls_validation.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/crypto/openssl.h"
#include "common/secret.h"

namespace sallyport::registry {
namespace {

constexpr size_t kMaxBundleBytes = 256 << 10;
constexpr int kMinRsaBits = 2048;

// What stands between two lines of PEM (RFC 7468).
struct PemBlock {
  std::string name;  // "CERTIFICATE"
  bool encrypted = false;
  Secret der;
  bool is_certificate() const { return name == PEM_STRING_X509 || name == PEM_STRING_X509_OLD; }
  bool is_private_key() const { return absl::EndsWith(name, "PRIVATE KEY"); }
};

// All blocks of the text; words around them are passed over. False: one of them is broken.
bool ReadPem(const std::string& text, std::vector<PemBlock>& blocks) {
  const BioPtr bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  CheckCrypto(bio != nullptr, "BIO_new_mem_buf");
  while (true) {
    char* name = nullptr;
    char* header = nullptr;
    unsigned char* data = nullptr;
    long size = 0;
    ERR_clear_error();
    if (PEM_read_bio(bio.get(), &name, &header, &data, &size) != 1) {
      const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
      ERR_clear_error();
      return at_end;
    }
    PemBlock& block = blocks.emplace_back();
    block.name = name;
    block.encrypted = absl::StrContains(name, "ENCRYPTED") || absl::StrContains(header, "ENCRYPTED");
    block.der = Secret::Copy({reinterpret_cast<const char*>(data), static_cast<size_t>(size)});
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_clear_free(data, static_cast<size_t>(size));
  }
}

X509Ptr ParseCertificate(const PemBlock& block) {
  const unsigned char* at = Bytes8(block.der.Expose());
  const unsigned char* const end = at + block.der.Expose().size();
  X509Ptr certificate(d2i_X509(nullptr, &at, static_cast<long>(block.der.Expose().size())));
  ERR_clear_error();
  return at == end ? std::move(certificate) : nullptr;
}

EvpPkeyPtr ParseKey(const PemBlock& block) {
  const unsigned char* at = Bytes8(block.der.Expose());
  EvpPkeyPtr key(d2i_AutoPrivateKey(nullptr, &at, static_cast<long>(block.der.Expose().size())));
  ERR_clear_error();
  return key;
}

bool HasExpired(const X509* certificate, absl::Time now) {
  std::time_t at = absl::ToTimeT(now);
  return X509_cmp_time(X509_get0_notAfter(certificate), &at) < 0;
}
bool HasBegun(const X509* certificate, absl::Time now) {
  std::time_t at = absl::ToTimeT(now);
  return X509_cmp_time(X509_get0_notBefore(certificate), &at) < 0;
}

void ValidateBundle(const std::string& pem, absl::Time now, Findings& findings) {
  const std::string field = "policy.tls.caBundle";
  if (pem.size() > kMaxBundleBytes) return findings.Refuse(field, "must not exceed 256 KiB");
  std::vector<PemBlock> blocks;
  if (!ReadPem(pem, blocks)) return findings.Refuse(field, "is no PEM from end to end: a block is cut off or damaged");
  if (blocks.empty()) {
    return findings.Refuse(field, "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)");
  }
  size_t expired = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].is_private_key()) {
      return findings.Refuse(field,
                             "holds a private key, which everybody who may read the server would see: give the "
                             "certificates alone");
    }
    if (!blocks[i].is_certificate()) return findings.Refuse(field, "holds something else than certificates");
    const X509Ptr certificate = ParseCertificate(blocks[i]);
    if (certificate == nullptr) {
      return findings.Refuse(field, absl::StrCat("certificate ", i + 1, " of ", blocks.size(), " cannot be read"));
    }
    if (HasExpired(certificate.get(), now)) ++expired;
  }
  if (expired > 0) {
    findings.Warn(field, absl::StrCat(expired, " of its ", blocks.size(), " certificates have expired"));
  }
}

// Empty if the key is strong enough.
std::string Weakness(const EVP_PKEY* key) {
  constexpr char kWanted[] = "RSA of at least 2048 bits, P-256, P-384, P-521 or Ed25519";
  switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
    case EVP_PKEY_RSA_PSS:
      if (EVP_PKEY_get_bits(key) >= kMinRsaBits) return "";
      return absl::StrCat("its RSA key has ", EVP_PKEY_get_bits(key), " bits: use ", kWanted);
    case EVP_PKEY_ED25519:
      return "";
    case EVP_PKEY_EC: {
      char group[64] = {};
      size_t size = 0;
      if (EVP_PKEY_get_group_name(key, group, sizeof(group), &size) == 1) {
        for (const char* known : {"prime256v1", "secp384r1", "secp521r1"}) {
          if (absl::string_view(group, size) == known) return "";
        }
      }
      return absl::StrCat("its key is of a curve that is not used with TLS: use ", kWanted);
    }
    default:
      return absl::StrCat("its key is of a kind that is not supported: use ", kWanted);
  }
}

struct Identity {
  std::vector<X509Ptr> chain;
  EvpPkeyPtr key;
};

// What is wrong; empty if nothing is.
std::string ReadIdentity(const std::string& pem, Identity& identity) {
  std::vector<PemBlock> blocks;
  if (!ReadPem(pem, blocks)) return "is no PEM from end to end: a block is cut off or damaged";
  size_t keys = 0;
  for (const PemBlock& block : blocks) {
    if (block.name == PEM_STRING_ECPARAMETERS) continue;  // Beside EC keys that `openssl ecparam -genkey` writes.
    if (block.is_private_key()) {
      if (block.encrypted) return "holds an encrypted private key: give it without a passphrase";
      identity.key = ParseKey(block);
      if (identity.key == nullptr) return "holds a private key that cannot be read";
      ++keys;
      continue;
    }
    if (!block.is_certificate()) return "holds something else than certificates and a private key";
    identity.chain.push_back(ParseCertificate(block));
    if (identity.chain.back() == nullptr) return "holds a certificate that cannot be read";
  }
  if (identity.chain.empty()) return "holds no certificate: give the chain in PEM, the client's own certificate first";
  if (keys != 1) {
    return keys == 0 ? "holds no private key: give the certificate chain and its key together"
                     : "holds more than one private key";
  }
  return "";
}

void ValidateClientCertificate(const std::string& pem, absl::Time now, Findings& findings) {
  const std::string field = "policy.tls.clientCert";
  if (pem.empty()) return;  // As any secret (draft.cc).
  Identity identity;
  if (const std::string fault = ReadIdentity(pem, identity); !fault.empty()) return findings.Refuse(field, fault);
  X509* const leaf = identity.chain.front().get();
  const bool matches = X509_check_private_key(leaf, identity.key.get()) == 1;
  ERR_clear_error();
  if (!matches) {
    return findings.Refuse(field,
                           "the private key does not belong to the first certificate: put the client's own first");
  }
  if (const std::string weakness = Weakness(identity.key.get()); !weakness.empty()) {
    return findings.Refuse(field, weakness);
  }
  if (HasExpired(leaf, now)) findings.Warn(field, "the certificate has expired");
  if (!HasBegun(leaf, now)) findings.Warn(field, "the certificate is not valid yet");
  if (X509_check_purpose(leaf, X509_PURPOSE_SSL_CLIENT, 0) != 1) {
    findings.Warn(field, "the certificate is not made for client authentication; upstreams may refuse it");
  }
  ERR_clear_error();
}

}  // namespace

void ValidateTls(const v1::McpServer& server, const ResourceUrls& urls, absl::Time now, Findings& findings) {
  if (!server.policy().has_tls()) return;
  const absl::StatusOr<Url>* upstream = urls.Upstream();
  if (upstream != nullptr && upstream->ok() && !(*upstream)->is_https()) {
    findings.Refuse("policy.tls", absl::StrCat("goes with an https upstream only: leave it out, or let ",
                                               urls.upstream_field(), " begin with https://"));
  }
  const v1::Policy::Tls& tls = server.policy().tls();
  if (!tls.ca_bundle().empty()) ValidateBundle(tls.ca_bundle(), now, findings);
  if (tls.client_cert().has_value()) ValidateClientCertificate(tls.client_cert().value(), now, findings);
}

}  // namespace sallyport::registry

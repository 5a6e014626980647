// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/certificates.h"

#include <algorithm>
#include <ctime>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/crypto/openssl.h"
#include "common/crypto/random.h"
#include "common/http/networks.h"
#include "common/status_macros.h"

namespace sallyport::cli {
namespace {

// Clocks of the pods may differ.
constexpr absl::Duration kBackdated = absl::Minutes(5);
constexpr size_t kSerialBytes = 16;

using Asn1IntegerPtr = OpenSslPtr<ASN1_INTEGER, ASN1_INTEGER_free>;
using ExtensionPtr = OpenSslPtr<X509_EXTENSION, X509_EXTENSION_free>;

absl::StatusOr<X509Ptr> ReadCertificate(absl::string_view pem) {
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  X509Ptr certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) {
    ERR_clear_error();
    return absl::InvalidArgumentError("is no certificate (PEM)");
  }
  return certificate;
}

absl::StatusOr<EvpPkeyPtr> ReadKey(const Secret& pem) {
  const absl::string_view text = pem.Expose();
  const BioPtr bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  EvpPkeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  if (key == nullptr) {
    ERR_clear_error();
    return absl::InvalidArgumentError("is no private key (PEM)");
  }
  return key;
}

absl::string_view Content(BIO* bio) {
  char* data = nullptr;
  const auto size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

CertificatePair ToPem(X509* certificate, EVP_PKEY* key) {
  const BioPtr certificate_bio(BIO_new(BIO_s_mem()));
  const BioPtr key_bio(BIO_new(BIO_s_secmem()));
  CheckCrypto(PEM_write_bio_X509(certificate_bio.get(), certificate) == 1, "writing a certificate");
  CheckCrypto(PEM_write_bio_PrivateKey(key_bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1,
              "writing a private key");
  return {std::string(Content(certificate_bio.get())), Secret::Copy(Content(key_bio.get()))};
}

// Version 3, a random serial number, the times, the key, the subject. The caller names the issuer.
X509Ptr Begin(EVP_PKEY* key, const char* common_name, absl::Time now, absl::Duration lifetime) {
  X509Ptr made(X509_new());
  X509* x509 = made.get();
  CheckCrypto(X509_set_version(x509, X509_VERSION_3) == 1, "making a certificate");
  std::string bytes = RandomBytes(kSerialBytes);
  bytes[0] = static_cast<char>(bytes[0] & 0x7F);  // Not negative.
  const BignumPtr number(BN_bin2bn(Bytes8(bytes), static_cast<int>(bytes.size()), nullptr));
  const Asn1IntegerPtr serial(BN_to_ASN1_INTEGER(number.get(), nullptr));
  CheckCrypto(serial != nullptr && X509_set_serialNumber(x509, serial.get()) == 1, "making a serial number");
  CheckCrypto(ASN1_TIME_set(X509_getm_notBefore(x509), absl::ToTimeT(now - kBackdated)) != nullptr &&
                  ASN1_TIME_set(X509_getm_notAfter(x509), absl::ToTimeT(now + lifetime)) != nullptr,
              "setting a certificate's times");
  CheckCrypto(X509_set_pubkey(x509, key) == 1, "setting a certificate's key");
  CheckCrypto(X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_ASC,
                                         reinterpret_cast<const unsigned char*>(common_name), -1, -1, 0) == 1,
              "setting a certificate's subject");
  return made;
}

absl::Status Extend(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()));
  if (extension == nullptr || X509_add_ext(certificate, extension.get(), -1) != 1) {
    return OpenSslError("adding to a certificate");
  }
  return absl::OkStatus();
}

// What OpenSSL would read as more than a name is in none of them.
bool IsPlain(absl::string_view name, absl::string_view others) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [&](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || others.find(c) != absl::string_view::npos;
  });
}

}  // namespace

absl::StatusOr<std::string> CertificateNames::ToString() const {
  std::vector<std::string> names;
  for (const std::string& uri : uris) {
    if (!IsPlain(uri, "._-:/")) return absl::InvalidArgumentError(absl::StrCat(uri, " is no SPIFFE id"));
    names.push_back(absl::StrCat("URI:", uri));
  }
  for (const std::string& host : hosts) {
    const bool address = IpAddress::Parse(host).ok();
    if (!address && !IsPlain(host, ".-")) return absl::InvalidArgumentError(absl::StrCat(host, " is no host name"));
    names.push_back(absl::StrCat(address ? "IP:" : "DNS:", host));
  }
  if (names.empty()) return absl::InvalidArgumentError("a certificate needs a name");
  return absl::StrJoin(names, ",");
}

absl::StatusOr<CertificatePair> MakeAuthority(absl::Time now, absl::Duration lifetime) {
  const EvpPkeyPtr key(EVP_EC_gen("P-256"));
  CheckCrypto(key != nullptr, "making a key");
  // Two authorities of one release must not be taken for each other.
  const std::string name = absl::StrCat("sallyport authority ", MakeUid(""));
  const X509Ptr made = Begin(key.get(), name.c_str(), now, lifetime);
  X509_set_issuer_name(made.get(), X509_get_subject_name(made.get()));
  RETURN_IF_ERROR(Extend(made.get(), made.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
  RETURN_IF_ERROR(Extend(made.get(), made.get(), NID_key_usage, "critical,keyCertSign,cRLSign"));
  RETURN_IF_ERROR(Extend(made.get(), made.get(), NID_subject_key_identifier, "hash"));
  if (X509_sign(made.get(), key.get(), GetAlgorithms().sha256) == 0) return OpenSslError("signing a certificate");
  return ToPem(made.get(), key.get());
}

absl::StatusOr<CertificatePair> MakeCertificate(const CertificatePair& authority, const CertificateNames& names,
                                                absl::Time now, absl::Duration lifetime) {
  ASSIGN_OR_RETURN(const std::string alternative, names.ToString());
  ASSIGN_OR_RETURN(const X509Ptr issuer, ReadCertificate(authority.certificate));
  ASSIGN_OR_RETURN(const EvpPkeyPtr issuer_key, ReadKey(authority.key));
  const EvpPkeyPtr key(EVP_EC_gen("P-256"));
  CheckCrypto(key != nullptr, "making a key");
  const X509Ptr made = Begin(key.get(), "sallyport", now, lifetime);
  X509_set_issuer_name(made.get(), X509_get_subject_name(issuer.get()));
  RETURN_IF_ERROR(Extend(made.get(), issuer.get(), NID_basic_constraints, "critical,CA:FALSE"));
  RETURN_IF_ERROR(Extend(made.get(), issuer.get(), NID_key_usage, "critical,digitalSignature"));
  RETURN_IF_ERROR(
      Extend(made.get(), issuer.get(), NID_ext_key_usage, names.client ? "serverAuth,clientAuth" : "serverAuth"));
  RETURN_IF_ERROR(Extend(made.get(), issuer.get(), NID_authority_key_identifier, "keyid"));
  RETURN_IF_ERROR(Extend(made.get(), issuer.get(), NID_subject_alt_name, alternative));
  if (X509_sign(made.get(), issuer_key.get(), GetAlgorithms().sha256) == 0) {
    return OpenSslError("signing a certificate");
  }
  return ToPem(made.get(), key.get());
}

absl::StatusOr<absl::Time> ExpiryOf(absl::string_view certificate) {
  ASSIGN_OR_RETURN(const X509Ptr read, ReadCertificate(certificate));
  std::tm parts{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(read.get()), &parts) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError("the certificate's end does not parse");
  }
  return absl::FromTM(parts, absl::UTCTimeZone());
}

bool IsSignedBy(absl::string_view certificate, absl::string_view authority) {
  const absl::StatusOr<X509Ptr> read = ReadCertificate(certificate);
  const absl::StatusOr<X509Ptr> issuer = ReadCertificate(authority);
  if (!read.ok() || !issuer.ok()) return false;
  const bool verified = X509_verify(read->get(), X509_get0_pubkey(issuer->get())) == 1;
  ERR_clear_error();
  return verified;
}

}  // namespace sallyport::cli

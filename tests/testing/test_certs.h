// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/crypto/openssl.h"
#include "common/crypto/random.h"

namespace sallyport::testing {

// A directory that is removed with all that is in it.
class TempDirectory {
 public:
  TempDirectory() : path_(std::filesystem::temp_directory_path() / ("sallyport-" + MakeUid(""))) {
    std::filesystem::create_directories(path_);
  }
  ~TempDirectory() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  std::string path() const { return path_.string(); }
  std::string File(const std::string& name) const { return (path_ / name).string(); }
  // Whole or not at all, as certificate managers do it.
  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(File(name + ".new"), std::ios::binary) << content;
    std::filesystem::rename(File(name + ".new"), File(name));
    return File(name);
  }

 private:
  std::filesystem::path path_;
};

struct TestCertificate {
  EvpPkeyPtr key;
  X509Ptr certificate;

  std::string KeyPem() const {
    const BioPtr bio(BIO_new(BIO_s_mem()));
    PEM_write_bio_PrivateKey(bio.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    return Text(bio.get());
  }
  std::string CertificatePem() const {
    const BioPtr bio(BIO_new(BIO_s_mem()));
    PEM_write_bio_X509(bio.get(), certificate.get());
    return Text(bio.get());
  }

 private:
  static std::string Text(BIO* bio) {
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio, &data);
    return std::string(data, static_cast<size_t>(size));
  }
};

// A P-256 certificate of one hour with these URI and DNS SANs, signed by `issuer`; a certificate authority if that is
// null.
inline TestCertificate MakeTestCertificate(const TestCertificate* issuer, const std::vector<std::string>& uris,
                                           const std::vector<std::string>& dns_names = {}) {
  TestCertificate made{EvpPkeyPtr(EVP_EC_gen("P-256")), X509Ptr(X509_new())};
  X509* x509 = made.certificate.get();
  X509_set_version(x509, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(x509), static_cast<long>(RandomUnit() * 1e9) + 1);
  X509_gmtime_adj(X509_getm_notBefore(x509), -60);
  X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
  X509_set_pubkey(x509, made.key.get());
  const std::string name = issuer == nullptr ? "test CA " + MakeUid("") : "test service";
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(x509, X509_get_subject_name(issuer == nullptr ? x509 : issuer->certificate.get()));
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer == nullptr ? x509 : issuer->certificate.get(), x509, nullptr, nullptr, 0);
  const auto extend = [&](int nid, const std::string& value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
    X509_add_ext(x509, extension, -1);
    X509_EXTENSION_free(extension);
  };
  if (issuer == nullptr) {
    extend(NID_basic_constraints, "critical,CA:TRUE");
  }
  std::string names;
  for (const std::string& uri : uris) {
    names += (names.empty() ? "URI:" : ",URI:") + uri;
  }
  for (const std::string& dns_name : dns_names) {
    names += (names.empty() ? "DNS:" : ",DNS:") + dns_name;
  }
  if (!names.empty()) {
    extend(NID_subject_alt_name, names);
  }
  X509_sign(x509, (issuer == nullptr ? made.key : issuer->key).get(), EVP_sha256());
  return made;
}

}  // namespace sallyport::testing

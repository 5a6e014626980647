// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/tls_context.h"

#include <cstring>

#include "absl/status/status.h"
#include <openssl/err.h>
#include <openssl/pem.h>

namespace sallyport::edge {
namespace {

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using Bio = std::unique_ptr<BIO, Free>;
using Certificate = std::unique_ptr<X509, Free>;
using Context = std::unique_ptr<SSL_CTX, Free>;

Bio ReadFrom(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

absl::Status Invalid(const char* what) {
  ERR_clear_error();
  return absl::InvalidArgumentError(what);
}

bool AddAuthorities(SSL_CTX* context, const std::string& pem) {
  const Bio bio = ReadFrom(pem);
  size_t added = 0;
  while (const Certificate certificate{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)}) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate.get());
    ++added;
  }
  ERR_clear_error();  // The end of the text is reported as an error.
  return added > 0;
}

bool UseCertificate(SSL_CTX* context, const std::string& certificate_pem, const std::string& key_pem) {
  const Bio chain = ReadFrom(certificate_pem);
  const Certificate leaf{PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr)};
  if (leaf == nullptr || SSL_CTX_use_certificate(context, leaf.get()) != 1) {
    return false;
  }
  while (const Certificate issuer{PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr)}) {
    if (SSL_CTX_add1_chain_cert(context, issuer.get()) != 1) {
      return false;
    }
  }
  ERR_clear_error();
  const Bio key_bio = ReadFrom(key_pem);
  const std::unique_ptr<EVP_PKEY, Free> key{PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr)};
  return key != nullptr && SSL_CTX_use_PrivateKey(context, key.get()) == 1 && SSL_CTX_check_private_key(context) == 1;
}

int ChooseHttp11(SSL* /*ssl*/, const unsigned char** out, unsigned char* out_size, const unsigned char* in,
                 unsigned int in_size, void* /*arg*/) {
  static constexpr unsigned char kHttp11[] = "\x08http/1.1";
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size, kHttp11, sizeof(kHttp11) - 1, in, in_size) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

ClientTls::~ClientTls() { SSL_CTX_free(context_); }

absl::StatusOr<std::shared_ptr<const ClientTls>> ClientTls::Make(const Options& options) {
  Context context(SSL_CTX_new(TLS_client_method()));
  if (context == nullptr) {
    return absl::InternalError("tls: no context");
  }
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  static constexpr unsigned char kHttp11[] = "\x08http/1.1";
  SSL_CTX_set_alpn_protos(context.get(), kHttp11, sizeof(kHttp11) - 1);
  if (options.system_authorities) {
    SSL_CTX_set_default_verify_paths(context.get());
  }
  if (!options.ca_pem.empty() && !AddAuthorities(context.get(), options.ca_pem)) {
    return Invalid("ca_bundle: holds no certificate in PEM form");
  }
  if (!options.certificate_pem.empty() &&
      !UseCertificate(context.get(), options.certificate_pem, options.private_key_pem)) {
    return Invalid("client_cert: certificate and private key do not load or do not match");
  }
  return std::shared_ptr<const ClientTls>(new ClientTls(context.release()));
}

absl::StatusOr<std::shared_ptr<SSL_CTX>> MakeServerContext(const std::string& certificate_file,
                                                           const std::string& private_key_file) {
  Context context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr) {
    return absl::InternalError("tls: no context");
  }
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_alpn_select_cb(context.get(), ChooseHttp11, nullptr);
  if (SSL_CTX_use_certificate_chain_file(context.get(), certificate_file.c_str()) != 1) {
    return Invalid("certificate: not a readable PEM file with a certificate chain");
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), private_key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    return Invalid("private_key: not a readable PEM file with the certificate's key");
  }
  if (SSL_CTX_check_private_key(context.get()) != 1) {
    return Invalid("private_key: does not match the certificate");
  }
  return std::shared_ptr<SSL_CTX>(context.release(), SSL_CTX_free);
}

}  // namespace sallyport::edge

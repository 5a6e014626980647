// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/tls_context.h"

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include <openssl/err.h>
#include <openssl/pem.h>

namespace sallyport::edge {
namespace {

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using Bio = std::unique_ptr<BIO, Free>;
using Certificate = std::unique_ptr<X509, Free>;
using Context = std::unique_ptr<SSL_CTX, Free>;

Bio ReadFrom(std::string_view text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

absl::Status Invalid(const char* what) {
  ERR_clear_error();
  return absl::InvalidArgumentError(what);
}

// Without one OpenSSL would ask at the terminal.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*arg*/) { return -1; }

bool AddAuthorities(SSL_CTX* context, const std::string& pem) {
  const Bio bio = ReadFrom(pem);
  size_t added = 0;
  while (const Certificate certificate{PEM_read_bio_X509(bio.get(), nullptr, &NoPassphrase, nullptr)}) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate.get());
    ++added;
  }
  ERR_clear_error();  // The end of the text is reported as an error.
  return added > 0;
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
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  static constexpr unsigned char kHttp11[] = "\x08http/1.1";
  SSL_CTX_set_alpn_protos(context.get(), kHttp11, sizeof(kHttp11) - 1);
  if (options.system_authorities) {
    SSL_CTX_set_default_verify_paths(context.get());
  } else {
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context.get()), X509_V_FLAG_PARTIAL_CHAIN);
  }
  if (!options.ca_pem.empty() && !AddAuthorities(context.get(), options.ca_pem)) {
    return Invalid("ca_bundle: holds no certificate in PEM form");
  }
  return std::shared_ptr<const ClientTls>(new ClientTls(context.release()));
}

ClientCertificate::~ClientCertificate() {
  X509_free(leaf_);
  EVP_PKEY_free(key_);
  sk_X509_pop_free(issuers_, X509_free);
}

absl::StatusOr<std::shared_ptr<const ClientCertificate>> ClientCertificate::FromPem(std::string_view pem) {
  std::shared_ptr<ClientCertificate> made(new ClientCertificate());
  const Bio chain = ReadFrom(pem);
  const Bio key = ReadFrom(pem);
  made->leaf_ = PEM_read_bio_X509(chain.get(), nullptr, NoPassphrase, nullptr);
  made->key_ = PEM_read_bio_PrivateKey(key.get(), nullptr, NoPassphrase, nullptr);
  made->issuers_ = sk_X509_new_null();
  if (made->leaf_ == nullptr || made->key_ == nullptr || made->issuers_ == nullptr ||
      X509_check_private_key(made->leaf_, made->key_) != 1) {
    return Invalid("client_cert: certificate and private key do not load or do not match");
  }
  while (Certificate issuer{PEM_read_bio_X509(chain.get(), nullptr, NoPassphrase, nullptr)}) {
    if (sk_X509_push(made->issuers_, issuer.get()) == 0) {
      return Invalid("client_cert: no memory for the chain");
    }
    issuer.release();  // NOLINT(bugprone-unused-return-value): the stack has it.
  }
  ERR_clear_error();
  return std::shared_ptr<const ClientCertificate>(std::move(made));
}

bool ClientCertificate::Use(SSL* ssl) const {
  const bool used = SSL_use_cert_and_key(ssl, leaf_, key_, issuers_, /*override=*/1) == 1;
  ERR_clear_error();
  return used;
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

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include <openssl/ssl.h>

namespace sallyport::edge {

// What an https upstream is verified against. Immutable, shared by all workers.
class ClientTls {
 public:
  struct Options {
    std::string ca_pem;  // In addition to the system's authorities; may be empty.
    // Without them an upstream may chain to any certificate of `ca_pem`, an intermediate one as well as a root.
    bool system_authorities = true;
  };
  // INVALID_ARGUMENT for PEM that does not parse.
  static absl::StatusOr<std::shared_ptr<const ClientTls>> Make(const Options& options);
  ~ClientTls();
  // TLS 1.2 or later, verification on; no session of one connection is resumed by another.
  SSL_CTX* context() const { return context_; }

 private:
  explicit ClientTls(SSL_CTX* context) : context_(context) {}
  SSL_CTX* context_;
};

// A certificate chain and its private key. Apart from ClientTls: it is a secret that comes later, and a context that
// does not hold it cannot show it to another upstream. Immutable, shared by all workers.
class ClientCertificate {
 public:
  // `pem` holds both, the client's own certificate first. INVALID_ARGUMENT if they do not load or do not match.
  static absl::StatusOr<std::shared_ptr<const ClientCertificate>> FromPem(std::string_view pem);
  ~ClientCertificate();
  // For this connection, before its handshake. False: it cannot be shown on it.
  bool Use(SSL* ssl) const;

 private:
  ClientCertificate() = default;
  X509* leaf_ = nullptr;
  EVP_PKEY* key_ = nullptr;
  STACK_OF(X509) * issuers_ = nullptr;
};

// The public listener's context: TLS 1.2 or later, ALPN http/1.1. INVALID_ARGUMENT for files that do not load or do not
// match.
absl::StatusOr<std::shared_ptr<SSL_CTX>> MakeServerContext(const std::string& certificate_file,
                                                           const std::string& private_key_file);

}  // namespace sallyport::edge

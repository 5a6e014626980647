// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include <openssl/ssl.h>

namespace sallyport::edge {

// What an https upstream is verified against, and how we introduce ourselves. Immutable, shared by all workers.
class ClientTls {
 public:
  struct Options {
    std::string ca_pem;  // In addition to the system's authorities; may be empty.
    bool system_authorities = true;
    std::string certificate_pem;  // Client certificate with key; both may be empty.
    std::string private_key_pem;
  };
  // INVALID_ARGUMENT for PEM that does not parse.
  static absl::StatusOr<std::shared_ptr<const ClientTls>> Make(const Options& options);
  ~ClientTls();
  // TLS 1.2 or later, verification on.
  SSL_CTX* context() const { return context_; }

 private:
  explicit ClientTls(SSL_CTX* context) : context_(context) {}
  SSL_CTX* context_;
};

// The public listener's context: TLS 1.2 or later, ALPN http/1.1. INVALID_ARGUMENT for files that do not load or do not
// match.
absl::StatusOr<std::shared_ptr<SSL_CTX>> MakeServerContext(const std::string& certificate_file,
                                                           const std::string& private_key_file);

}  // namespace sallyport::edge

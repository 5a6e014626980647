// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <openssl/ssl.h>

#include "common/crypto/openssl.h"
#include "common/mutex.h"

namespace sallyport {

class TlsStream;

// What OpenSSL reads from and writes to.
struct TlsSocket {
  int fd = -1;
  bool dry = false;  // The last read found nothing.
};

// What TLS connections to a server are verified against and shown. Files are looked at for every new connection and
// read again when they have changed; while they do not load the former ones are used. Thread-safe.
class RedisTls : public std::enable_shared_from_this<RedisTls> {
 public:
  struct Options {
    std::string ca_bundle;    // PEM file of the server's authorities; empty: the system's.
    std::string certificate;  // PEM file, the client's own certificate first; empty: none is shown.
    std::string private_key;  // PEM file; empty exactly if `certificate` is.
    std::string server_name;  // Name or address that the server's certificate must have; empty: the host dialled.
  };

  // INVALID_ARGUMENT naming `field`.caBundle, .certificate, .privateKey or .serverName.
  static absl::StatusOr<std::shared_ptr<RedisTls>> Create(Options options, const std::string& field);

  // A connection to `host` over a socket that is connected, does not block, and stays open as long as the stream; its
  // handshake is still to come. The session of the last one is offered, so that the server can leave its certificate
  // out.
  absl::StatusOr<std::unique_ptr<TlsStream>> Start(int fd, const std::string& host);

 private:
  friend class TlsStream;
  using ContextPtr = OpenSslPtr<SSL_CTX, SSL_CTX_free>;
  using SessionPtr = OpenSslPtr<SSL_SESSION, SSL_SESSION_free>;

  RedisTls(Options options, std::string field) : options_(std::move(options)), field_(std::move(field)) {}
  absl::StatusOr<ContextPtr> Load() const;
  std::string Identities() const;
  void Refresh() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static int KeepSession(SSL* ssl, SSL_SESSION* session);

  const Options options_;
  const std::string field_;
  Mutex mu_;
  ContextPtr context_ ABSL_GUARDED_BY(mu_);
  std::string loaded_ ABSL_GUARDED_BY(mu_);    // Identities of the files that context_ is made of.
  std::string rejected_ ABSL_GUARDED_BY(mu_);  // Those of files that did not load.
  SessionPtr session_ ABSL_GUARDED_BY(mu_);
  std::string session_name_ ABSL_GUARDED_BY(mu_);  // The name that was verified when it was made.
};

// One TLS connection, TLS 1.2 or later. One thread may read while another one writes.
class TlsStream {
 public:
  // Bytes moved; or what to poll the socket for (POLLIN, POLLOUT) before the same call is made again. Neither: the
  // server has closed the connection.
  struct Step {
    size_t bytes = 0;
    short wait_for = 0;
  };

  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // Done when there is nothing to wait for. The server's certificate is verified then.
  absl::StatusOr<Step> Handshake();
  absl::StatusOr<Step> Read(char* buffer, size_t size);
  absl::StatusOr<Step> Write(absl::string_view bytes);
  // Whether the server took the session that was offered.
  bool resumed() const;

 private:
  friend class RedisTls;
  TlsStream(std::shared_ptr<RedisTls> owner, std::string name, bool shows_certificate)
      : owner_(std::move(owner)), name_(std::move(name)), shows_certificate_(shows_certificate) {}
  // Of a call of OpenSSL that gave `result`, not 1.
  absl::StatusOr<Step> After(int result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Failure() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::shared_ptr<RedisTls> owner_;
  const std::string name_;
  const bool shows_certificate_;
  mutable Mutex mu_;
  TlsSocket socket_;               // Under mu_.
  OpenSslPtr<SSL, SSL_free> ssl_;  // Under mu_; set before anybody else has this.
};

}  // namespace sallyport

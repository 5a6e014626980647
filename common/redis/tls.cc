// SPDX-License-Identifier: Apache-2.0
#include "common/redis/tls.h"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <poll.h>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <arpa/inet.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include "common/error.h"
#include "common/file_identity.h"
#include "common/json_log.h"
#include "common/redis/failures.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

// A server has a few at a time: the tickets of a new connection.
constexpr int kMostRecordsWithoutData = 64;

// OpenSSL's own BIO for sockets writes with write(), which raises SIGPIPE.
TlsSocket& SocketOf(BIO* bio) { return *static_cast<TlsSocket*>(BIO_get_data(bio)); }

int WriteSocket(BIO* bio, const char* data, int size) {
  BIO_clear_retry_flags(bio);
  const ssize_t n = send(SocketOf(bio).fd, data, static_cast<size_t>(size), MSG_NOSIGNAL);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  return static_cast<int>(n);
}

int ReadSocket(BIO* bio, char* data, int size) {
  BIO_clear_retry_flags(bio);
  const ssize_t n = recv(SocketOf(bio).fd, data, static_cast<size_t>(size), 0);
  SocketOf(bio).dry = n < 0 && (errno == EAGAIN || errno == EINTR);
  if (SocketOf(bio).dry) BIO_set_retry_read(bio);
  if (n == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  return static_cast<int>(n);
}

long ControlSocket(BIO* bio, int command, long /*number*/, void* /*pointer*/) {
  if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

const BIO_METHOD* SocketMethod() {
  static const BIO_METHOD* method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket without SIGPIPE");
    CheckCrypto(made != nullptr && BIO_meth_set_write(made, WriteSocket) == 1 &&
                    BIO_meth_set_read(made, ReadSocket) == 1 && BIO_meth_set_ctrl(made, ControlSocket) == 1,
                "BIO_METHOD");
    return made;
  }();
  return method;
}

bool IsAddress(const std::string& host) {
  in6_addr parsed;
  return inet_pton(AF_INET, host.c_str(), &parsed) == 1 || inet_pton(AF_INET6, host.c_str(), &parsed) == 1;
}

// Name checks are OpenSSL's (RFC 6125); without them any certificate of a trusted authority would do.
bool ExpectName(SSL* ssl, const std::string& name) {
  if (IsAddress(name)) return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str()) == 1;
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  std::string copy = name;  // The control call takes no const.
  return SSL_set1_host(ssl, name.c_str()) == 1 &&
         SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, copy.data()) == 1;
}

std::string WhyNotVerified(long result, const std::string& name) {
  switch (result) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return absl::StrCat("the server's certificate is not for ", name.substr(0, 64),
                          ": set redis.tls.serverName to a name it has");
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "the server's certificate has expired or is not valid yet: renew it, or set the clock";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_UNTRUSTED:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return "the server's certificate is of an unknown authority: set redis.tls.caBundle to the authority's PEM file";
    default:
      return absl::StrCat("the server's certificate does not verify: ", X509_verify_cert_error_string(result));
  }
}

// What an alert (RFC 8446 section 6.2) about our certificate asks for.
bool IsAboutOurCertificate(int reason) {
  switch (reason) {
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:  // TLS 1.2 has no alert of its own for a missing one.
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
      return true;
    default:
      return false;
  }
}

int ClampSize(size_t size) { return static_cast<int>(std::min<size_t>(size, std::numeric_limits<int>::max())); }

// Without one OpenSSL would ask at the terminal.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*arg*/) { return -1; }

}  // namespace

absl::StatusOr<std::shared_ptr<RedisTls>> RedisTls::Create(Options options, const std::string& field) {
  if (options.certificate.empty() != options.private_key.empty()) {
    return options.certificate.empty()
               ? InvalidField(absl::StrCat(field, ".certificate"), "is required with privateKey")
               : InvalidField(absl::StrCat(field, ".privateKey"), "is required with certificate");
  }
  if (options.server_name.find_first_of(":/ ") != std::string::npos && !IsAddress(options.server_name)) {
    return InvalidField(absl::StrCat(field, ".serverName"), "must be a host name or an address, without a port");
  }
  std::shared_ptr<RedisTls> made(new RedisTls(std::move(options), field));
  MutexLock lock(made->mu_);
  made->loaded_ = made->Identities();
  ASSIGN_OR_RETURN(made->context_, made->Load());
  return made;
}

std::string RedisTls::Identities() const {
  std::string all;
  for (const std::string* path : {&options_.ca_bundle, &options_.certificate, &options_.private_key}) {
    absl::StrAppend(&all, path->empty() ? "" : FileIdentity(*path), "/");
  }
  return all;
}

absl::StatusOr<RedisTls::ContextPtr> RedisTls::Load() const {
  const auto invalid = [this](absl::string_view name, absl::string_view what) {
    ERR_clear_error();
    return InvalidField(absl::StrCat(field_, ".", name), what);
  };
  ContextPtr context(SSL_CTX_new(TLS_client_method()));
  if (context == nullptr) return OpenSslError("SSL_CTX_new");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // SSL_read returns after each record that is no data: else a server that sends nothing but tickets would hold it.
  SSL_CTX_clear_mode(context.get(), SSL_MODE_AUTO_RETRY);
  SSL_CTX_set_read_ahead(context.get(), 1);
  SSL_CTX_set_default_passwd_cb(context.get(), NoPassphrase);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context.get(), &RedisTls::KeepSession);
  if (options_.ca_bundle.empty()) {
    SSL_CTX_set_default_verify_paths(context.get());
  } else if (SSL_CTX_load_verify_file(context.get(), options_.ca_bundle.c_str()) != 1) {
    return invalid("caBundle", "is no readable PEM file with a certificate");
  }
  if (!options_.certificate.empty()) {
    if (SSL_CTX_use_certificate_chain_file(context.get(), options_.certificate.c_str()) != 1) {
      return invalid("certificate", "is no readable PEM file with a certificate chain");
    }
    if (SSL_CTX_use_PrivateKey_file(context.get(), options_.private_key.c_str(), SSL_FILETYPE_PEM) != 1) {
      return invalid("privateKey", "is no readable PEM file with the certificate's private key, without a passphrase");
    }
    if (SSL_CTX_check_private_key(context.get()) != 1) {
      return invalid("privateKey", "does not match the certificate");
    }
  }
  ERR_clear_error();
  return context;
}

void RedisTls::Refresh() {
  // Read before the files are: a change in between is seen the next time.
  std::string now = Identities();
  if (now == loaded_ || now == rejected_) return;
  absl::StatusOr<ContextPtr> context = Load();
  if (!context.ok()) {
    rejected_ = std::move(now);
    Log(LogLevel::kWarning, "redis_tls_files_not_reloaded", {{"error", context.status()}});
    return;
  }
  context_ = *std::move(context);
  session_.reset();  // It was made with the former authorities and certificate.
  loaded_ = std::move(now);
  rejected_.clear();
  Log(LogLevel::kInfo, "redis_tls_files_reloaded");
}

absl::StatusOr<std::unique_ptr<TlsStream>> RedisTls::Start(int fd, const std::string& host) {
  std::string name = options_.server_name.empty() ? host : options_.server_name;
  if (absl::EndsWith(name, ".")) name.pop_back();  // Of an absolute name; certificates are without it.
  std::unique_ptr<TlsStream> stream(new TlsStream(shared_from_this(), name, !options_.certificate.empty()));
  MutexLock lock(mu_);
  Refresh();
  stream->ssl_.reset(SSL_new(context_.get()));
  SSL* ssl = stream->ssl_.get();
  BIO* bio = BIO_new(SocketMethod());
  if (ssl == nullptr || bio == nullptr || !ExpectName(ssl, name)) {
    BIO_free(bio);
    return OpenSslError("SSL_new");
  }
  stream->socket_.fd = fd;
  BIO_set_data(bio, &stream->socket_);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
  SSL_set_app_data(ssl, stream.get());
  if (session_ != nullptr && session_name_ == name && SSL_SESSION_is_resumable(session_.get()) == 1) {
    SSL_set_session(ssl, session_.get());
  }
  SSL_set_connect_state(ssl);
  return stream;
}

// Called by OpenSSL for each session, or ticket, that the server gives: after it was verified.
int RedisTls::KeepSession(SSL* ssl, SSL_SESSION* session) {
  auto* stream = static_cast<TlsStream*>(SSL_get_app_data(ssl));
  RedisTls& owner = *stream->owner_;
  MutexLock lock(owner.mu_);
  if (SSL_get_SSL_CTX(ssl) != owner.context_.get()) return 0;  // Of files that have been replaced.
  owner.session_.reset(session);
  owner.session_name_ = stream->name_;
  return 1;  // The reference is ours now.
}

TlsStream::~TlsStream() {
  // Else SSL_free takes the connection for one that failed, and its session would not be resumed.
  if (ssl_ != nullptr) SSL_set_shutdown(ssl_.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
}

absl::StatusOr<TlsStream::Step> TlsStream::Handshake() {
  MutexLock lock(mu_);
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  if (result == 1) return Step{};
  ASSIGN_OR_RETURN(const Step step, After(result));
  if (step.wait_for == 0) {
    return RedisFailed(RedisFailure::kTls,
                       "the server closed the connection in the TLS handshake: does this port speak TLS (tls-port)?");
  }
  return step;
}

absl::StatusOr<TlsStream::Step> TlsStream::Read(char* buffer, size_t size) {
  MutexLock lock(mu_);
  ERR_clear_error();
  for (int i = 0; i < kMostRecordsWithoutData; ++i) {
    socket_.dry = false;
    const int n = SSL_read(ssl_.get(), buffer, ClampSize(size));
    if (n > 0) return Step{.bytes = static_cast<size_t>(n)};
    // Unless the socket is empty, a record without data is what was read, and poll() does not see what was read ahead.
    if (SSL_get_error(ssl_.get(), n) != SSL_ERROR_WANT_READ || socket_.dry) return After(n);
  }
  return RedisFailed(RedisFailure::kProtocol, "the server sends TLS records without data");
}

absl::StatusOr<TlsStream::Step> TlsStream::Write(absl::string_view bytes) {
  MutexLock lock(mu_);
  ERR_clear_error();
  int n = SSL_write(ssl_.get(), bytes.data(), ClampSize(bytes.size()));
  if (n > 0) return Step{.bytes = static_cast<size_t>(n)};
  const bool failed = SSL_get_error(ssl_.get(), n) == SSL_ERROR_SYSCALL;
  if (failed) {
    // A server that refuses us after the handshake (TLS 1.3) says why before it closes; what it said is still there.
    ERR_clear_error();
    char byte = 0;
    n = SSL_read(ssl_.get(), &byte, 1);
    if (n > 0) n = -1;
  }
  ASSIGN_OR_RETURN(const Step step, After(n));
  if (failed || step.wait_for == 0) return RedisFailed(RedisFailure::kBroken, "the connection broke");
  return step;
}

bool TlsStream::resumed() const {
  MutexLock lock(mu_);
  return SSL_session_reused(ssl_.get()) == 1;
}

absl::StatusOr<TlsStream::Step> TlsStream::After(int result) {
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return Step{.wait_for = POLLIN};
    case SSL_ERROR_WANT_WRITE:
      return Step{.wait_for = POLLOUT};
    case SSL_ERROR_ZERO_RETURN:
    case SSL_ERROR_SYSCALL:
      ERR_clear_error();
      return Step{};
    default:
      return Failure();
  }
}

absl::Status TlsStream::Failure() {
  const unsigned long error = ERR_peek_error();
  ERR_clear_error();
  const int reason = ERR_GET_REASON(error);
  if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING && SSL_is_init_finished(ssl_.get()) == 1) {
    return RedisFailed(RedisFailure::kBroken, "the server closed the connection");
  }
  std::string why;
  if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    why = WhyNotVerified(SSL_get_verify_result(ssl_.get()), name_);
  } else if (IsAboutOurCertificate(reason)) {
    why = shows_certificate_
              ? "the server refuses the client certificate: its authority must be in the server's "
                "tls-ca-cert-file, and redis.tls.certificate must not have expired"
              : "the server wants a client certificate: set redis.tls.certificate and redis.tls.privateKey";
  } else if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    why = "the server does not answer with TLS: use its tls-port, or leave redis.tls out";
  } else if (reason == SSL_R_TLSV1_ALERT_PROTOCOL_VERSION || reason == SSL_R_UNSUPPORTED_PROTOCOL) {
    why = "the server has no TLS 1.2 or later: set its tls-protocols";
  } else {
    const char* text = ERR_reason_error_string(error);
    why = absl::StrCat("TLS failed: ", text == nullptr ? "unknown reason" : text);
  }
  return RedisFailed(RedisFailure::kTls, why);
}

}  // namespace sallyport

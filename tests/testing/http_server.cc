// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/http_server.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include "common/crypto/openssl.h"

namespace sallyport::testing {
namespace {

using SslCtxPtr = OpenSslPtr<SSL_CTX, SSL_CTX_free>;
using SslPtr = OpenSslPtr<SSL, SSL_free>;
using ExtensionPtr = OpenSslPtr<X509_EXTENSION, X509_EXTENSION_free>;

void AddExtension(X509* certificate, int nid, const char* value) {
  ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, nullptr, nid, value));
  if (extension == nullptr || X509_add_ext(certificate, extension.get(), -1) != 1) std::abort();
}

// A self-signed certificate for 127.0.0.1 and one name that does not resolve, which is its own authority.
X509Ptr MakeCertificate(EVP_PKEY* key) {
  X509Ptr certificate(X509_new());
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 86'400);
  X509_NAME* name = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, Bytes8("sallyport test"), -1, -1, 0);
  X509_set_issuer_name(certificate.get(), name);
  X509_set_pubkey(certificate.get(), key);
  AddExtension(certificate.get(), NID_basic_constraints, "critical,CA:TRUE");
  AddExtension(certificate.get(), NID_subject_alt_name, "IP:127.0.0.1,DNS:tunnel.example");
  if (X509_sign(certificate.get(), key, EVP_sha256()) == 0) std::abort();
  return certificate;
}

// The connection's bytes, with or without TLS.
class Stream {
 public:
  Stream(int fd, SSL* ssl) : fd_(fd), ssl_(ssl) {}
  bool ReadMore(std::string& buffer) {
    char chunk[8 << 10];
    const auto n =
        ssl_ != nullptr ? SSL_read(ssl_, chunk, sizeof(chunk)) : static_cast<int>(recv(fd_, chunk, sizeof(chunk), 0));
    if (n <= 0) return false;
    buffer.append(chunk, static_cast<size_t>(n));
    return true;
  }
  bool Write(const std::string& text) {
    size_t sent = 0;
    while (sent < text.size()) {
      const size_t left = text.size() - sent;
      const auto n = ssl_ != nullptr ? SSL_write(ssl_, text.data() + sent, static_cast<int>(left))
                                     : static_cast<int>(send(fd_, text.data() + sent, left, MSG_NOSIGNAL));
      if (n <= 0) return false;
      sent += static_cast<size_t>(n);
    }
    return true;
  }

 private:
  int fd_;
  SSL* ssl_;
};

bool ReadRequest(Stream& stream, std::string& buffer, TestHttpServer::Request& request) {
  size_t end = buffer.find("\r\n\r\n");
  while (end == std::string::npos) {
    if (!stream.ReadMore(buffer)) return false;
    end = buffer.find("\r\n\r\n");
  }
  std::string head = buffer.substr(0, end + 2);
  buffer.erase(0, end + 4);
  const size_t line_end = head.find("\r\n");
  const std::string line = head.substr(0, line_end);
  request.method = line.substr(0, line.find(' '));
  const size_t target = line.find(' ') + 1;
  request.target = line.substr(target, line.rfind(' ') - target);
  for (size_t at = line_end + 2; at < head.size();) {
    const size_t next = head.find("\r\n", at);
    const std::string field = head.substr(at, next - at);
    const size_t colon = field.find(':');
    request.headers[absl::AsciiStrToLower(field.substr(0, colon))] =
        std::string(absl::StripAsciiWhitespace(field.substr(colon + 1)));
    at = next + 2;
  }
  size_t length = 0;
  if (!absl::SimpleAtoi(request.headers["content-length"], &length)) length = 0;
  while (buffer.size() < length) {
    if (!stream.ReadMore(buffer)) return false;
  }
  request.body = buffer.substr(0, length);
  buffer.erase(0, length);
  return true;
}

std::string Render(const TestHttpServer::Response& response) {
  std::string text = absl::StrCat("HTTP/1.1 ", response.status, " Test\r\n");
  for (const auto& [name, value] : response.headers) absl::StrAppend(&text, name, ": ", value, "\r\n");
  absl::StrAppend(&text, "Content-Length: ", response.body.size(), "\r\n\r\n", response.body);
  return text;
}

}  // namespace

struct TestHttpServer::Tls {
  SslCtxPtr context;
};

TestHttpServer::TestHttpServer(Handler handler, bool tls) : handler_(std::move(handler)) {
  // OpenSSL writes with write(): a client that left would end the test program.
  std::signal(SIGPIPE, SIG_IGN);
  if (tls) {
    tls_ = std::make_unique<Tls>();
    tls_->context.reset(SSL_CTX_new(TLS_server_method()));
    EvpPkeyPtr key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
    X509Ptr certificate = MakeCertificate(key.get());
    SSL_CTX_use_certificate(tls_->context.get(), certificate.get());
    SSL_CTX_use_PrivateKey(tls_->context.get(), key.get());
    BioPtr bio(BIO_new(BIO_s_mem()));
    PEM_write_bio_X509(bio.get(), certificate.get());
    char* pem = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &pem);
    ca_pem_.assign(pem, static_cast<size_t>(size));
  }
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) != 0 || listen(listener_, 64) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  accepting_ = std::thread([this] { Accept(); });
}

TestHttpServer::~TestHttpServer() {
  std::vector<std::thread> serving;
  {
    MutexLock lock(mu_);
    stopping_ = true;
    for (const int fd : open_) shutdown(fd, SHUT_RDWR);
    serving.swap(serving_);
  }
  shutdown(listener_, SHUT_RDWR);
  accepting_.join();
  for (std::thread& thread : serving) thread.join();
  close(listener_);
}

std::string TestHttpServer::origin() const {
  return absl::StrCat(tls_ != nullptr ? "https" : "http", "://127.0.0.1:", port_);
}

void TestHttpServer::Accept() {
  while (true) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    MutexLock lock(mu_);
    if (stopping_) {
      close(fd);
      return;
    }
    ++connections_;
    open_.push_back(fd);
    serving_.emplace_back([this, fd] { Serve(fd); });
  }
}

void TestHttpServer::Serve(int fd) {
  SslPtr ssl;
  bool ready = true;
  if (tls_ != nullptr) {
    ssl.reset(SSL_new(tls_->context.get()));
    SSL_set_fd(ssl.get(), fd);
    ready = SSL_accept(ssl.get()) == 1;
  }
  Stream stream(fd, ssl.get());
  std::string buffer;
  Request request;
  while (ready && ReadRequest(stream, buffer, request)) {
    ++requests_;
    const Response response = handler_(request);
    if (response.hang_up) break;
    ready = stream.Write(response.raw.empty() ? Render(response) : response.raw) && response.raw.empty();
    request = Request();
  }
  ssl.reset();
  MutexLock lock(mu_);
  open_.erase(std::remove(open_.begin(), open_.end(), fd), open_.end());
  close(fd);
}

}  // namespace sallyport::testing

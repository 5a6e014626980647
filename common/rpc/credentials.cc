// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/credentials.h"

#include <functional>
#include <unistd.h>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include "common/error.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

constexpr unsigned kCertificateRefreshSeconds = 1;

absl::Status CheckFile(const char* field, const std::string& path) {
  if (path.empty()) {
    return InvalidField(field, "is required");
  }
  return access(path.c_str(), R_OK) == 0 ? absl::OkStatus() : InvalidField(field, absl::StrCat("cannot read ", path));
}

// Both directions watch the same three files. Key before certificate, as the constructor has it.
template <typename Options>
void WatchFiles(Options& options) {
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
}

std::shared_ptr<grpc::experimental::CertificateProviderInterface> MakeProvider(const TlsFiles& tls) {
  return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      tls.private_key, tls.certificate, tls.ca_bundle, kCertificateRefreshSeconds);
}

// Takes the place of the host name check: who the server is, not where.
class SpiffeVerifier final : public grpc::experimental::ExternalCertificateVerifier {
 public:
  explicit SpiffeVerifier(std::string expected) : expected_(std::move(expected)) {}

  bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest* request,
              std::function<void(grpc::Status)> /*callback*/, grpc::Status* sync_status) override {
    const std::vector<grpc::string_ref> uris = request->uri_names();
    const bool good = uris.size() == 1 && std::string(uris[0].data(), uris[0].size()) == expected_;
    *sync_status = good ? grpc::Status::OK
                        : grpc::Status(grpc::StatusCode::UNAUTHENTICATED,
                                       absl::StrCat("the server's certificate must name exactly ", expected_));
    return true;  // Decided here; the callback is not used.
  }
  void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest* /*request*/) override {}

 private:
  const std::string expected_;
};

}  // namespace

absl::Status CheckTlsFiles(const TlsFiles& tls) {
  RETURN_IF_ERROR(CheckFile("server.tls.certificate", tls.certificate));
  RETURN_IF_ERROR(CheckFile("server.tls.privateKey", tls.private_key));
  RETURN_IF_ERROR(CheckFile("server.tls.caBundle", tls.ca_bundle));
  if (tls.trust_domain.empty()) {
    return InvalidField("server.tls.trustDomain", "is required");
  }
  return absl::OkStatus();
}

absl::Status CheckOutsideTlsFiles(const TlsFiles& tls) {
  RETURN_IF_ERROR(CheckFile("certificate", tls.certificate));
  RETURN_IF_ERROR(CheckFile("privateKey", tls.private_key));
  return tls.ca_bundle.empty() ? absl::OkStatus() : CheckFile("clientCaBundle", tls.ca_bundle);
}

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const TlsFiles& tls) {
  grpc::experimental::TlsServerCredentialsOptions options(MakeProvider(tls));
  WatchFiles(options);
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> MakeOutsideCredentials(const TlsFiles& tls) {
  grpc::experimental::TlsServerCredentialsOptions options(MakeProvider(tls));
  options.watch_identity_key_cert_pairs();
  if (tls.ca_bundle.empty()) {
    options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  } else {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> MakeChannelCredentials(const TlsFiles& tls, const std::string& service) {
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(MakeProvider(tls));
  WatchFiles(options);
  options.set_verify_server_certs(true);
  options.set_check_call_host(false);
  options.set_certificate_verifier(grpc::experimental::ExternalCertificateVerifier::Create<SpiffeVerifier>(
      absl::StrCat("spiffe://", tls.trust_domain, "/", service)));
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace sallyport

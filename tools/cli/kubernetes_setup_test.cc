// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/kubernetes_setup.h"

#include <map>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/crypto/openssl.h"
#include "common/mutex.h"
#include "common/text/base64url.h"
#include "common/text/json.h"
#include "tests/testing/status_matchers.h"
#include "tools/cli/certificates.h"
#include "tools/cli/cli_testing.h"

namespace sallyport::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kSecrets[] = "/api/v1/namespaces/gateway/secrets";

// The Secrets of a namespace, as an API server keeps them: names are unique, a replacement names the version it
// replaces.
class TestSecrets {
 public:
  using Response = ::sallyport::testing::TestHttpServer::Response;
  using Request = ::sallyport::testing::TestHttpServer::Request;

  TestSecrets() : server_([this](const Request& request) { return Answer(request); }, /*tls=*/true) {}

  int port() const { return server_.port(); }
  const std::string& ca_pem() const { return server_.ca_pem(); }
  // A value of a Secret; empty if it is not there.
  std::string Value(const std::string& name, const std::string& key) {
    MutexLock lock(mu_);
    const auto found = secrets_.find(name);
    if (found == secrets_.end() || !found->second["data"].contains(key)) return "";
    return *Base64Decode(found->second["data"][key].get<std::string>());
  }
  void Set(const std::string& name, const std::string& key, const std::string& value) {
    MutexLock lock(mu_);
    secrets_[name]["data"][key] = Base64Encode(value);
  }
  void Forbid(const std::string& method) {
    MutexLock lock(mu_);
    forbidden_ = method;
  }

 private:
  Response Answer(const Request& request) {
    MutexLock lock(mu_);
    if (request.headers.at("authorization") != "Bearer account-token") return Status(401, "Unauthorized");
    if (request.method == forbidden_) return Status(403, "secrets is forbidden");
    const absl::StatusOr<nlohmann::json> body = ParseJsonObject(request.body);
    if (request.method == "POST" && request.target == kSecrets) {
      const std::string name = (*body)["metadata"]["name"];
      if (secrets_.contains(name)) return Status(409, "already exists");
      return Store(name, *body, 201);
    }
    const std::string prefix = absl::StrCat(kSecrets, "/");
    if (!absl::StartsWith(request.target, prefix)) return Status(404, "no such path");
    const std::string name = request.target.substr(prefix.size());
    const auto found = secrets_.find(name);
    if (found == secrets_.end()) return Status(404, "not found");
    if (request.method == "GET") return Json(200, found->second);
    if ((*body)["metadata"].value("resourceVersion", "") != found->second["metadata"]["resourceVersion"]) {
      return Status(409, "the object has been modified");
    }
    return Store(name, *body, 200);
  }
  Response Store(const std::string& name, nlohmann::json secret, int status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    secret["metadata"]["resourceVersion"] = std::to_string(++version_);
    secrets_[name] = std::move(secret);
    return Json(status, secrets_[name]);
  }
  static Response Json(int status, const nlohmann::json& body) {
    return {.status = status, .headers = {{"Content-Type", "application/json"}}, .body = DumpJson(body), .raw = ""};
  }
  static Response Status(int code, const char* message) {
    return Json(code, {{"kind", "Status"}, {"message", message}});
  }

  Mutex mu_;
  std::map<std::string, nlohmann::json> secrets_ ABSL_GUARDED_BY(mu_);
  std::string forbidden_ ABSL_GUARDED_BY(mu_);
  int version_ ABSL_GUARDED_BY(mu_) = 0;
  ::sallyport::testing::TestHttpServer server_;  // Last: its threads use what stands above.
};

class KubernetesSetupTest : public CliTest {
 protected:
  KubernetesSetupTest() {
    environment_["KUBERNETES_SERVICE_HOST"] = "127.0.0.1";
    environment_["KUBERNETES_SERVICE_PORT_HTTPS"] = std::to_string(secrets_.port());
    environment_["POD_NAMESPACE"] = "gateway";
    WriteHome("token", "account-token");
    WriteHome("ca.crt", secrets_.ca_pem());
  }
  int SetUpAll(std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"kubernetes-setup",
                                          "--prefix=gw",
                                          "--credentials=" + home_,
                                          "--service=edge",
                                          "--service=token_broker",
                                          "--trust-domain=example.org",
                                          "--public-name=gw.example.com",
                                          "--kek-secret=gw-kek",
                                          "--password-secret=gw-db"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  }
  // Subject alternative names, as OpenSSL prints them.
  static std::string NamesIn(const std::string& pem) {
    const BioPtr in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
    const X509Ptr certificate(PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr));
    if (certificate == nullptr) return "no certificate";
    const int at = X509_get_ext_by_NID(certificate.get(), NID_subject_alt_name, -1);
    const BioPtr out(BIO_new(BIO_s_mem()));
    X509V3_EXT_print(out.get(), X509_get_ext(certificate.get(), at), 0, 0);
    char* data = nullptr;
    const auto size = BIO_get_mem_data(out.get(), &data);
    return {data, static_cast<size_t>(size)};
  }

  TestSecrets secrets_;
};

TEST_F(KubernetesSetupTest, EachServiceHasACertificateWithItsSpiffeIdAlone) {
  ASSERT_EQ(SetUpAll(), kDone) << err_.str();

  const std::string authority = secrets_.Value("gw-ca", "tls.crt");
  for (const auto& [secret, name] : {std::pair("gw-edge-tls", "URI:spiffe://example.org/edge"),
                                     std::pair("gw-token-broker-tls", "URI:spiffe://example.org/token_broker"),
                                     std::pair("gw-public-tls", "DNS:gw.example.com")}) {
    const std::string certificate = secrets_.Value(secret, "tls.crt");
    EXPECT_EQ(NamesIn(certificate), name);
    EXPECT_TRUE(IsSignedBy(certificate, authority));
    EXPECT_EQ(secrets_.Value(secret, "ca.crt"), authority);
    EXPECT_THAT(secrets_.Value(secret, "tls.key"), HasSubstr("PRIVATE KEY"));
  }
  EXPECT_EQ(*ExpiryOf(secrets_.Value("gw-edge-tls", "tls.crt")), now_ + 90 * absl::Hours(24));
  EXPECT_EQ(secrets_.Value("gw-kek", "current").size(), 32U);
  EXPECT_GE(secrets_.Value("gw-db", "password").size(), 40U);
}

TEST_F(KubernetesSetupTest, AgainNothingChanges) {
  ASSERT_EQ(SetUpAll(), kDone) << err_.str();
  const auto all = [this] {
    return std::vector<std::string>{secrets_.Value("gw-ca", "tls.crt"), secrets_.Value("gw-edge-tls", "tls.crt"),
                                    secrets_.Value("gw-public-tls", "tls.crt"), secrets_.Value("gw-kek", "current"),
                                    secrets_.Value("gw-db", "password")};
  };
  const std::vector<std::string> before = all();
  out_.str("");

  ASSERT_EQ(SetUpAll(), kDone) << err_.str();

  EXPECT_EQ(all(), before);
  EXPECT_THAT(out_.str(), Not(HasSubstr("made")));
  EXPECT_THAT(out_.str(), Not(HasSubstr("renewed")));
}

TEST_F(KubernetesSetupTest, ACertificateNearItsEndIsRenewedAndKeysThatAreMadeOnceStay) {
  ASSERT_EQ(SetUpAll(), kDone) << err_.str();
  const std::string kek = secrets_.Value("gw-kek", "current");
  const std::string authority = secrets_.Value("gw-ca", "tls.crt");
  const std::string before = secrets_.Value("gw-edge-tls", "tls.crt");
  now_ += 61 * absl::Hours(24);

  ASSERT_EQ(SetUpAll(), kDone) << err_.str();

  const std::string renewed = secrets_.Value("gw-edge-tls", "tls.crt");
  EXPECT_NE(renewed, before);
  EXPECT_EQ(*ExpiryOf(renewed), now_ + 90 * absl::Hours(24));
  EXPECT_EQ(secrets_.Value("gw-ca", "tls.crt"), authority);
  EXPECT_EQ(secrets_.Value("gw-kek", "current"), kek);
}

TEST_F(KubernetesSetupTest, AnotherNameMakesANewCertificate) {
  ASSERT_EQ(SetUpAll(), kDone) << err_.str();

  ASSERT_EQ(SetUpAll({"--public-name=gw.internal"}), kDone) << err_.str();

  EXPECT_EQ(NamesIn(secrets_.Value("gw-public-tls", "tls.crt")), "DNS:gw.example.com, DNS:gw.internal");
}

TEST_F(KubernetesSetupTest, ANewAuthorityVouchesBesideTheOldOne) {
  ASSERT_EQ(SetUpAll(), kDone) << err_.str();
  const std::string old = secrets_.Value("gw-ca", "tls.crt");
  now_ += 3600 * absl::Hours(24);

  ASSERT_EQ(SetUpAll(), kDone) << err_.str();

  const std::string authority = secrets_.Value("gw-ca", "tls.crt");
  EXPECT_NE(authority, old);
  EXPECT_TRUE(IsSignedBy(secrets_.Value("gw-edge-tls", "tls.crt"), authority));
  EXPECT_EQ(secrets_.Value("gw-edge-tls", "ca.crt"), authority + old);
}

TEST_F(KubernetesSetupTest, ACertificateOfAnotherAuthorityIsReplaced) {
  ASSERT_EQ(SetUpAll(), kDone) << err_.str();
  ASSERT_OK_AND_ASSIGN(const CertificatePair stranger, MakeAuthority(now_, absl::Hours(24 * 365)));
  CertificateNames names;
  names.uris = {"spiffe://example.org/edge"};
  ASSERT_OK_AND_ASSIGN(const CertificatePair foreign, MakeCertificate(stranger, names, now_, absl::Hours(24 * 90)));
  secrets_.Set("gw-edge-tls", "tls.crt", foreign.certificate);

  ASSERT_EQ(SetUpAll(), kDone) << err_.str();

  EXPECT_TRUE(IsSignedBy(secrets_.Value("gw-edge-tls", "tls.crt"), secrets_.Value("gw-ca", "tls.crt")));
}

TEST_F(KubernetesSetupTest, NothingSecretIsPrinted) {
  ASSERT_EQ(SetUpAll(), kDone) << err_.str();
  EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr("PRIVATE")));
  EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr(secrets_.Value("gw-db", "password"))));
  EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr("account-token")));
}

TEST_F(KubernetesSetupTest, ARefusalNamesTheSecret) {
  secrets_.Forbid("POST");
  EXPECT_EQ(SetUpAll(), kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("making the Secret gw-kek: the API server answered HTTP 403 secrets is forbidden"));
}

TEST_F(KubernetesSetupTest, OutsideAPodItSaysSo) {
  environment_.erase("KUBERNETES_SERVICE_HOST");
  EXPECT_EQ(SetUpAll(), kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("KUBERNETES_SERVICE_HOST is not set: this command runs in a pod"));
}

TEST_F(KubernetesSetupTest, AnApiServerOfAnotherAuthorityIsNotSpokenTo) {
  const TestSecrets other;
  WriteHome("ca.crt", other.ca_pem());
  EXPECT_EQ(SetUpAll(), kFailed);
  EXPECT_EQ(secrets_.Value("gw-kek", "current"), "");
}

TEST_F(KubernetesSetupTest, BadUsageIsRefused) {
  EXPECT_EQ(SetUpAll({"--days=10"}), kBadUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--renew-before-days must be less than --days"));
  EXPECT_EQ(SetUpAll({"--public-name=gw.example.com,DNS:evil.example"}), kBadUsage);
  EXPECT_THAT(err_.str(), HasSubstr("is no host name"));
}

}  // namespace
}  // namespace sallyport::cli

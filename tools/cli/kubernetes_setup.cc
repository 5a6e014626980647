// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/kubernetes_setup.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#include "common/crypto/random.h"
#include "common/status_macros.h"
#include "tools/cli/certificates.h"
#include "tools/cli/kubernetes_secrets.h"

namespace sallyport::cli {
namespace {

constexpr absl::Duration kDay = absl::Hours(24);
constexpr absl::Duration kAuthorityLifetime = absl::Hours(24 * 3650);
constexpr size_t kKekSize = 32;
constexpr char kTls[] = "kubernetes.io/tls";
constexpr char kCertificate[] = "tls.crt";
constexpr char kKey[] = "tls.key";
constexpr char kAuthorities[] = "ca.crt";
constexpr char kPrevious[] = "previous.crt";  // The authority before this one, for what it still vouches for.
constexpr char kNames[] = "sallyport/names";

class Setup {
 public:
  Setup(const KubernetesSetupOptions& options, KubernetesSecrets secrets, const Terminal& terminal)
      : options_(options), secrets_(std::move(secrets)), terminal_(terminal), now_(terminal.now()) {}

  absl::Status Run() {
    if (!options_.kek_secret.empty()) {
      RETURN_IF_ERROR(MakeOnce(options_.kek_secret, "current", RandomSecret(kKekSize)));
    }
    if (!options_.password_secret.empty()) {
      RETURN_IF_ERROR(MakeOnce(options_.password_secret, "password", Secret(RandomToken(""))));
    }
    if (options_.services.empty() && options_.public_names.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(HaveAuthority());
    for (const std::string& service : options_.services) {
      RETURN_IF_ERROR(HaveCertificate(
          absl::StrReplaceAll(service, {{"_", "-"}}),
          {.uris = {absl::StrCat("spiffe://", options_.trust_domain, "/", service)}, .hosts = {}, .client = true}));
    }
    return options_.public_names.empty()
               ? absl::OkStatus()
               : HaveCertificate("public", {.uris = {}, .hosts = options_.public_names, .client = false});
  }

 private:
  void Say(const std::string& name, const char* what) { terminal_.out << "Secret " << name << ": " << what << "\n"; }

  absl::Status MakeOnce(const std::string& name, const char* key, Secret value) {
    KubernetesSecret secret;
    secret.name = name;
    secret.data[key] = std::move(value);
    ASSIGN_OR_RETURN(const bool made, secrets_.Create(secret));
    Say(name, made ? "made" : "kept");
    return absl::OkStatus();
  }

  // Ends before what it would sign.
  bool IsOld(absl::string_view authority) const {
    const absl::StatusOr<absl::Time> expiry = ExpiryOf(authority);
    return !expiry.ok() || *expiry < now_ + options_.days * kDay + kDay;
  }

  absl::Status HaveAuthority() {
    const std::string name = options_.prefix + "-ca";
    // Once more to read what was written, which may be somebody else's who was faster.
    for (int attempt = 0; attempt < 3; ++attempt) {
      ASSIGN_OR_RETURN(std::optional<KubernetesSecret> found, secrets_.Get(name));
      if (found.has_value() && !IsOld(found->Get(kCertificate))) {
        authority_ = {std::string(found->Get(kCertificate)), Secret::Copy(found->Get(kKey))};
        bundle_ = absl::StrCat(found->Get(kCertificate), found->Get(kPrevious));
        if (attempt == 0) Say(name, "kept");
        return absl::OkStatus();
      }
      ASSIGN_OR_RETURN(const CertificatePair made, MakeAuthority(now_, kAuthorityLifetime));
      KubernetesSecret secret = found.has_value() ? *std::move(found) : KubernetesSecret();
      const bool is_new = secret.resource_version.empty();
      secret.name = name;
      if (is_new) secret.type = kTls;
      if (!is_new) secret.data[kPrevious] = Secret::Copy(secret.Get(kCertificate));
      secret.data[kCertificate] = Secret::Copy(made.certificate);
      secret.data[kKey] = made.key.Clone();
      if (is_new) {
        ASSIGN_OR_RETURN(const bool created, secrets_.Create(secret));
        if (created) Say(name, "made");
      } else {
        RETURN_IF_ERROR(secrets_.Replace(secret));
        Say(name, "renewed");
      }
    }
    return absl::DataLossError(
        absl::StrCat("the Secret ", name, " is not what was written: does somebody else write it?"));
  }

  bool IsGood(const KubernetesSecret& secret, const std::string& names) const {
    const absl::StatusOr<absl::Time> expiry = ExpiryOf(secret.Get(kCertificate));
    const auto named = secret.annotations.find(kNames);
    return expiry.ok() && *expiry > now_ + options_.renew_before_days * kDay && !secret.Get(kKey).empty() &&
           secret.Get(kAuthorities) == bundle_ && IsSignedBy(secret.Get(kCertificate), authority_.certificate) &&
           named != secret.annotations.end() && named->second == names;
  }

  absl::Status HaveCertificate(const std::string& service, const CertificateNames& names) {
    const std::string name = absl::StrCat(options_.prefix, "-", service, "-tls");
    ASSIGN_OR_RETURN(const std::string text, names.ToString());
    ASSIGN_OR_RETURN(std::optional<KubernetesSecret> found, secrets_.Get(name));
    if (found.has_value() && IsGood(*found, text)) {
      Say(name, "kept");
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(CertificatePair made, MakeCertificate(authority_, names, now_, options_.days * kDay));
    KubernetesSecret secret = found.has_value() ? *std::move(found) : KubernetesSecret();
    const bool is_new = secret.resource_version.empty();
    secret.name = name;
    if (is_new) secret.type = kTls;
    secret.annotations[kNames] = text;
    secret.data[kCertificate] = Secret::Copy(made.certificate);
    secret.data[kKey] = std::move(made.key);
    secret.data[kAuthorities] = Secret::Copy(bundle_);
    if (!is_new) {
      RETURN_IF_ERROR(secrets_.Replace(secret));
      Say(name, "renewed");
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const bool created, secrets_.Create(secret));
    // Of the same authority, so it is as good.
    Say(name, created ? "made" : "kept");
    return absl::OkStatus();
  }

  const KubernetesSetupOptions& options_;
  KubernetesSecrets secrets_;
  const Terminal& terminal_;
  const absl::Time now_;
  CertificatePair authority_;
  std::string bundle_;  // What `ca.crt` of each Secret holds.
};

absl::Status Validate(const KubernetesSetupOptions& options) {
  if (options.prefix.empty()) return absl::InvalidArgumentError("--prefix is required");
  if (!options.services.empty() && options.trust_domain.empty()) {
    return absl::InvalidArgumentError("--trust-domain is required with --service");
  }
  if (options.days < 1 || options.days > 825) return absl::InvalidArgumentError("--days must be 1 to 825");
  if (options.renew_before_days < 0 || options.renew_before_days >= options.days) {
    return absl::InvalidArgumentError("--renew-before-days must be less than --days");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status KubernetesSetup(const KubernetesSetupOptions& options, const Terminal& terminal) {
  RETURN_IF_ERROR(Validate(options));
  ASSIGN_OR_RETURN(KubernetesSecrets secrets, KubernetesSecrets::Create(options.credentials, terminal));
  return Setup(options, std::move(secrets), terminal).Run();
}

}  // namespace sallyport::cli

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/secret_target.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include <openssl/crypto.h>

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/http/url.h"
#include "common/status_macros.h"
#include "common/text/string_view.h"
#include "services/edge/http/tls_context.h"

namespace sallyport::edge {
namespace {

absl::Status Missing(absl::string_view what) {
  return WithReason(absl::FailedPreconditionError(what), "credential_missing");
}

void Wipe(const UpstreamTarget* target) {
  std::unique_ptr<UpstreamTarget> owned(const_cast<UpstreamTarget*>(target));  // NOLINT: it was made non-const below.
  OPENSSL_cleanse(owned->path.data(), owned->path.size());
  OPENSSL_cleanse(owned->query.data(), owned->query.size());
}

}  // namespace

absl::StatusOr<std::shared_ptr<const UpstreamTarget>> SecretTarget::Make(std::string_view url,
                                                                         std::string_view certificate_pem) {
  if (wanted_.url != !url.empty()) return Missing("the address of this server was not resolved");
  if (wanted_.certificate != !certificate_pem.empty()) return Missing("the client certificate was not resolved");
  const std::string digest = Sha256(absl::StrCat(Sha256(ToAbsl(url)), Sha256(ToAbsl(certificate_pem))));
  MutexLock lock(mu_);
  if (std::shared_ptr<const UpstreamTarget> last = last_.lock(); last != nullptr && digest == digest_) return last;
  ASSIGN_OR_RETURN(UpstreamTarget target, Build(url, certificate_pem));
  target.pool_key = absl::StrCat(base_.pool_key, "/", ++made_);
  std::shared_ptr<const UpstreamTarget> made(new UpstreamTarget(std::move(target)), Wipe);
  last_ = made;
  digest_ = digest;
  return made;
}

absl::StatusOr<UpstreamTarget> SecretTarget::Build(std::string_view url, std::string_view certificate_pem) const {
  UpstreamTarget target = base_;
  if (wanted_.url) {
    // The origin is as the services write it; what is dialled is as this edge reads it.
    const auto parsed = Url::Parse(ToAbsl(url));
    auto dialled = ParseUpstreamUrl(url);
    if (!parsed.ok() || parsed->origin() != base_.origin || !dialled.ok()) {
      return WithReason(absl::PermissionDeniedError("a secret address is not of the origin that the server names"),
                        "origin_not_allowed");
    }
    target.tls = dialled->tls;
    target.host = std::move(dialled->host);
    target.port = dialled->port;
    target.host_header = std::move(dialled->host_header);
    target.path = std::move(dialled->path);
    target.query = std::move(dialled->query);
  }
  if (wanted_.certificate) {
    auto certificate = ClientCertificate::FromPem(certificate_pem);
    if (!certificate.ok()) return Missing("the client certificate cannot be used");
    target.client_certificate = *std::move(certificate);
  }
  return target;
}

}  // namespace sallyport::edge

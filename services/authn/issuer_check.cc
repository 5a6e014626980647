// SPDX-License-Identifier: Apache-2.0
#include "services/authn/issuer_check.h"

#include <vector>

#include "absl/strings/str_cat.h"

#include "common/config/service_config.h"
#include "common/error.h"
#include "common/http/url.h"
#include "common/json_log.h"
#include "services/authn/errors.h"

namespace sallyport::authn {
namespace {

std::string IssuerField(int index) { return absl::StrCat("connectors[", index, "].oidc.issuer"); }

// Would the URL be refused whatever networks are named? A port, a metadata service, plain http.
bool IsRefusedAnywhere(const Url& url) {
  const EgressPolicy everywhere({*Network::Parse("0.0.0.0/0"), *Network::Parse("::/0")},
                                EgressPolicy::PlainHttp::kLoopback);
  return !everywhere.CheckUrl(url).ok();
}

}  // namespace

absl::Status CheckNetwork(const std::string& field, const Url& url, const EgressPolicy& policy) {
  const absl::Status allowed = policy.CheckUrl(url);
  if (allowed.ok()) {
    return allowed;
  }
  return InvalidField(field, IsRefusedAnywhere(url)
                                 ? std::string(allowed.message())
                                 : absl::StrCat(allowed.message(), ": name it in deployment.egress.oauthNetworks"));
}

absl::Status CheckIssuerNetworks(const google::protobuf::RepeatedPtrField<config::v1::Connector>& config,
                                 const EgressPolicy& policy) {
  std::vector<absl::Status> checks;
  for (int i = 0; i < config.size(); ++i) {
    // The keys of a connector with a file are there; its issuer is only compared.
    if (!config[i].has_oidc() || !config[i].oidc().jwks_file().empty()) {
      continue;
    }
    const absl::StatusOr<Url> url = Url::Parse(config[i].oidc().issuer());
    if (url.ok()) {  // Else ValidateConnectors says it.
      checks.push_back(CheckNetwork(IssuerField(i), *url, policy));
    }
  }
  return MergeViolations(checks);
}

void IssuerCheck::Run(const Connectors& connectors, absl::Time now) {
  absl::Status refused;
  for (size_t i = 0; i < connectors.all().size(); ++i) {
    const Connector& connector = *connectors.all()[i];
    if (connector.type() != Connector::Type::kOidc || !connector.config().oidc().jwks_file().empty()) {
      continue;
    }
    {
      MutexLock lock(mu_);
      if (settled_.contains(connector.id())) {
        continue;
      }
    }
    const absl::Status asked = connector.GetDiscovery(now).status();
    if (IsNetworkNotAllowed(asked)) {
      if (refused.ok()) {
        refused = absl::UnavailableError(absl::StrCat(IssuerField(static_cast<int>(i)), ": ", asked.message()));
      }
      continue;
    }
    MutexLock lock(mu_);
    settled_.insert(connector.id());
  }
  MutexLock lock(mu_);
  if (refused != refused_ && !refused.ok()) {
    Log(LogLevel::kError, "issuer_not_allowed", {{"status", refused}});
  }
  refused_ = refused;
}

absl::Status IssuerCheck::Ready() const {
  MutexLock lock(mu_);
  return refused_;
}

}  // namespace sallyport::authn

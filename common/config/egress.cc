// SPDX-License-Identifier: Apache-2.0
#include "common/config/egress.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/config/service_config.h"
#include "common/error.h"
#include "common/files.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

constexpr char kProxy[] = "deployment.egress.proxy";
constexpr char kPasswordFile[] = "deployment.egress.proxy.passwordFile";

EgressProxy::Options OptionsFrom(const config::v1::EgressProxy& proxy) {
  EgressProxy::Options options;
  options.url = proxy.url();
  options.no_proxy.assign(proxy.no_proxy().begin(), proxy.no_proxy().end());
  options.username = proxy.username();
  return options;
}

}  // namespace

absl::Status ValidateEgressProxy(const config::v1::Egress& egress) {
  if (!egress.has_proxy()) return absl::OkStatus();
  const config::v1::EgressProxy& proxy = egress.proxy();
  absl::Status pair;
  if (proxy.username().empty() && !proxy.password_file().empty()) {
    pair = InvalidField(absl::StrCat(kProxy, ".username"), "is required with passwordFile");
  } else if (!proxy.username().empty() && proxy.password_file().empty()) {
    pair = InvalidField(kPasswordFile, "is required with username");
  }
  return MergeViolations({EgressProxy::Create(OptionsFrom(proxy), kProxy).status(), pair});
}

absl::Status CheckEgressFiles(const config::v1::Egress& egress) {
  std::vector<absl::Status> checks = {CheckReadable("deployment.egress.caBundle", egress.ca_bundle()),
                                      CheckSecretFile(kPasswordFile, egress.proxy().password_file())};
  // Only then does the password's form say something of its own.
  if (MergeViolations(checks).ok() && ValidateEgressProxy(egress).ok()) {
    checks.push_back(EgressProxyFrom(egress).status());
  }
  return MergeViolations(checks);
}

absl::StatusOr<std::shared_ptr<const EgressProxy>> EgressProxyFrom(const config::v1::Egress& egress) {
  if (!egress.has_proxy()) return nullptr;
  EgressProxy::Options options = OptionsFrom(egress.proxy());
  if (!egress.proxy().password_file().empty()) {
    absl::StatusOr<Secret> password = ReadSecretFile(egress.proxy().password_file());
    if (!password.ok()) return InvalidField(kPasswordFile, password.status().message());
    options.password = *std::move(password);
  }
  return EgressProxy::Create(options, kProxy);
}

absl::StatusOr<std::shared_ptr<const EgressProxy>> EgressProxyWithoutPassword(const config::v1::Egress& egress) {
  if (!egress.has_proxy()) return nullptr;
  return EgressProxy::Create(OptionsFrom(egress.proxy()), kProxy);
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/http/egress_proxy.h"
#include "sallyport/config/v1/common.pb.h"

// `deployment.egress` of a service's configuration. Errors name fields by their path in the file.
namespace sallyport {

// `egress.proxy` without its password file.
absl::Status ValidateEgressProxy(const config::v1::Egress& egress);
// The files that `egress` names. Only services that make outgoing connections open them.
absl::Status CheckEgressFiles(const config::v1::Egress& egress);
// Reads the password file. Null if no proxy is configured.
absl::StatusOr<std::shared_ptr<const EgressProxy>> EgressProxyFrom(const config::v1::Egress& egress);
// The same without reading the password: for services that only need to know what goes through the proxy.
absl::StatusOr<std::shared_ptr<const EgressProxy>> EgressProxyWithoutPassword(const config::v1::Egress& egress);

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include <google/protobuf/repeated_ptr_field.h>

#include "common/http/networks.h"
#include "sallyport/config/v1/services.pb.h"

namespace sallyport::authn::platforms {

// INVALID_ARGUMENT naming the fields of `platforms`, each with what to write instead.
absl::Status ValidatePlatforms(const config::v1::AuthnConfig& config);

// The same of `kubernetes`. Opens the files it names.
absl::Status ValidateClusters(const google::protobuf::RepeatedPtrField<config::v1::KubernetesCluster>& config);
// Whether the clusters' addresses may be reached, as far as that can be said without resolving names.
absl::Status CheckClusterNetworks(const google::protobuf::RepeatedPtrField<config::v1::KubernetesCluster>& config,
                                  const EgressPolicy& policy);

}  // namespace sallyport::authn::platforms

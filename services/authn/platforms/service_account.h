// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/jose/jwt.h"

namespace sallyport::authn::platforms {

// A Kubernetes service account. No part holds ':' or '/', so that no two accounts are written alike.
struct ServiceAccount {
  std::string cluster;  // Id of the configuration.
  std::string ns;
  std::string name;

  // "<cluster>:<namespace>/<name>", as the configuration has it.
  std::string ToString() const;
  friend auto operator<=>(const ServiceAccount&, const ServiceAccount&) = default;
};

// 1 to 63 of a-z, 0-9 and '-': ids of platforms and clusters, slugs of apps.
bool IsName(absl::string_view text);

// "<cluster>:<namespace>/<name>", or without the cluster if `only_cluster` is not empty. Nothing for what Kubernetes
// does not take for the names of a namespace and of a service account (RFC 1123).
std::optional<ServiceAccount> ParseServiceAccount(absl::string_view text, absl::string_view only_cluster);

// Of "system:serviceaccount:<namespace>:<name>", the user name that Kubernetes gives a service account.
std::optional<ServiceAccount> ServiceAccountOfUsername(absl::string_view cluster, absl::string_view username);

// Of the claims of a service-account token: `sub`, with which `kubernetes.io` must agree when it is there.
// UNAUTHENTICATED (invalid_token, reason "bad_subject").
absl::StatusOr<ServiceAccount> ServiceAccountOfClaims(absl::string_view cluster, const Jwt& jwt);

}  // namespace sallyport::authn::platforms

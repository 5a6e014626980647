// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

#include "tools/cli/terminal.h"

namespace sallyport::cli {

struct KubernetesSetupOptions {
  std::string prefix;                     // Of the names of Secrets.
  std::vector<std::string> services;      // Each gets <prefix>-<service>-tls, with '-' for '_'.
  std::vector<std::string> public_names;  // Not empty: hosts of <prefix>-public-tls.
  std::string trust_domain;
  int days = 90;
  int renew_before_days = 30;
  std::string kek_secret;       // Made once, never changed; key `current`.
  std::string password_secret;  // Likewise; key `password`.
  std::string credentials = "/var/run/secrets/kubernetes.io/serviceaccount";
};

// Makes the Secrets that a release on Kubernetes starts from: an authority (<prefix>-ca), a certificate for each
// service with the single URI SAN spiffe://<trust domain>/<service>, one for the public port, the key-encryption key, a
// database's password. What is there stays, but for certificates that end within `renew_before_days`, are of another
// authority or have other names. Running it again does no harm, and so do two at once.
absl::Status KubernetesSetup(const KubernetesSetupOptions& options, const Terminal& terminal);

}  // namespace sallyport::cli

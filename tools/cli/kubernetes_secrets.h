// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/http/client.h"
#include "common/secret.h"
#include "tools/cli/terminal.h"

namespace sallyport::cli {

// An object of the kind Secret (core/v1).
struct KubernetesSecret {
  std::string name;
  std::string type = "Opaque";  // Or "kubernetes.io/tls".
  std::map<std::string, std::string> annotations;
  std::map<std::string, Secret> data;  // Bytes by key.
  std::string resource_version;        // Of what was read; empty for what is new.

  // Empty if there is none.
  absl::string_view Get(const std::string& key) const;
};

// Secrets of the pod's own namespace, with the pod's own service account.
class KubernetesSecrets {
 public:
  // The API server is $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT_HTTPS; `credentials` is the directory with
  // `token` and `ca.crt`, the namespace is $POD_NAMESPACE. FAILED_PRECONDITION if one of them is missing: this is no
  // pod.
  static absl::StatusOr<KubernetesSecrets> Create(const std::string& credentials, const Terminal& terminal);

  // Nothing if there is none. PERMISSION_DENIED: the account may not; UNAVAILABLE.
  absl::StatusOr<std::optional<KubernetesSecret>> Get(const std::string& name);
  // False if there is one of that name, which stays as it is.
  absl::StatusOr<bool> Create(const KubernetesSecret& secret);
  // Replaces the version that was read. ABORTED if it has changed since.
  absl::Status Replace(const KubernetesSecret& secret);

 private:
  KubernetesSecrets(std::string url, std::string token_file, std::unique_ptr<HttpClient> http)
      : url_(std::move(url)), token_file_(std::move(token_file)), http_(std::move(http)) {}
  absl::StatusOr<HttpResponse> Send(const std::string& method, const std::string& url, std::string body);

  std::string url_;  // Of the namespace's Secrets.
  std::string token_file_;
  std::unique_ptr<HttpClient> http_;
};

}  // namespace sallyport::cli

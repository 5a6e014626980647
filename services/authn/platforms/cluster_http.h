// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/http/client.h"
#include "common/oauth/document_fetcher.h"

namespace sallyport::authn::platforms {

// How one Kubernetes cluster is asked: with authorities and a bearer token of its own, which go to no other. No
// redirects. Thread-safe.
class ClusterHttp final : public oauth::DocumentFetcher {
 public:
  struct Options {
    EgressPolicy policy;
    std::string ca_bundle;   // PEM file; empty: the system's authorities.
    std::string token_file;  // Empty: no bearer token.
    absl::Duration timeout = absl::Seconds(5);
  };
  static absl::StatusOr<std::unique_ptr<ClusterHttp>> Create(Options options);

  // The cluster's key set. Errors as DocumentFetcher.
  absl::StatusOr<std::string> Fetch(const std::string& url, size_t max_bytes) override;
  // The body of the answer (200 or 201) to this JSON. UNAVAILABLE for any other answer; else as HttpClient.
  absl::StatusOr<std::string> Post(const std::string& url, std::string json, size_t max_bytes);

 private:
  ClusterHttp(Options options, std::unique_ptr<HttpClient> client)
      : options_(std::move(options)), client_(std::move(client)) {}
  // Read with every request, which is rare: kubelet replaces the file long before the token in it ends.
  absl::Status AddToken(HttpRequest& request) const;

  const Options options_;
  const std::unique_ptr<HttpClient> client_;
};

}  // namespace sallyport::authn::platforms

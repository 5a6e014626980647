// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include <prometheus/counter.h>

#include "common/http/client.h"

namespace sallyport::oauth {

// Fetches a JSON document (GET, at most `max_bytes`, no redirects). The network seam of key sets and issuer metadata.
class DocumentFetcher {
 public:
  virtual ~DocumentFetcher() = default;
  // UNAVAILABLE, DEADLINE_EXCEEDED or RESOURCE_EXHAUSTED if it cannot be fetched now; PERMISSION_DENIED if the address
  // may not be reached; NOT_FOUND if there is none (404, 410); FAILED_PRECONDITION if the answer is something else.
  virtual absl::StatusOr<std::string> Fetch(const std::string& url, size_t max_bytes) = 0;
};

// Documents that could not be fetched, or were no use: sallyport_oauth_fetch_failures_total{document}. Whoever fetches
// a kind of document asks for its counter at the start, so that the first failure is seen as a rise from 0.
prometheus::Counter& FetchFailures(const std::string& document);

// DocumentFetcher over the guarded HTTP client: 200 only, 5 s, no redirects.
class HttpFetcher final : public DocumentFetcher {
 public:
  // `client` outlives this.
  explicit HttpFetcher(HttpClient& client) : client_(client) {}
  absl::StatusOr<std::string> Fetch(const std::string& url, size_t max_bytes) override;

 private:
  HttpClient& client_;
};

}  // namespace sallyport::oauth

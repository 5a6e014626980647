// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/http_client.h"
#include "services/authn/jwks_cache.h"

namespace sallyport::authn {

// DocumentFetcher over the guarded HTTP client: 200 only, 5 s, no redirects.
class HttpFetcher final : public DocumentFetcher {
 public:
  // `client` outlives this.
  explicit HttpFetcher(HttpClient& client) : client_(client) {}
  absl::StatusOr<std::string> Fetch(const std::string& url, size_t max_bytes) override;

 private:
  HttpClient& client_;
};

}  // namespace sallyport::authn

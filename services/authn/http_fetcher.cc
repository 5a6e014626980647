// SPDX-License-Identifier: Apache-2.0
#include "services/authn/http_fetcher.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/status_macros.h"

namespace sallyport::authn {

absl::StatusOr<std::string> HttpFetcher::Fetch(const std::string& url, size_t max_bytes) {
  HttpRequest request;
  request.url = url;
  request.headers = {{"Accept", "application/json"}};
  request.timeout = absl::Seconds(5);
  request.max_body = max_bytes;
  ASSIGN_OR_RETURN(HttpResponse response, client_.Fetch(std::move(request)));
  if (response.status != 200) {
    return absl::UnavailableError(absl::StrCat("the issuer answered ", response.status));
  }
  return std::move(response.body);
}

}  // namespace sallyport::authn

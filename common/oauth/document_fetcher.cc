// SPDX-License-Identifier: Apache-2.0
#include "common/oauth/document_fetcher.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/metrics.h"
#include "common/status_macros.h"

namespace sallyport::oauth {
namespace {

// Nothing there (RFC 9110 section 15.5.5).
bool IsGone(int http_status) { return http_status == 404 || http_status == 410; }

// Says nothing about whether there is a document: another one must not be taken in its place.
bool IsPassing(int http_status) {
  return http_status >= 500 || http_status == 408 || http_status == 425 || http_status == 429;
}

constexpr CounterInfo kFetchFailures = {
    .name = "sallyport_oauth_fetch_failures_total",
    .help = "Key sets and issuer metadata that could not be fetched or used",
    .unit = "documents",
    .labels = {{"document", "jwks, issuer_metadata"}},
    .rise =
        "An identity provider or an app's provider cannot be reached, or serves a document that is no use. What was "
        "fetched before stays in use for a while; then tokens of that issuer are refused",
    .action =
        "The log says which document and why; fetch it from where the service runs, through the same egress "
        "proxy and CA bundle",
};

}  // namespace

prometheus::Counter& FetchFailures(const std::string& document) {
  return MetricCounter(kFetchFailures, {{"document", document}});
}

absl::StatusOr<std::string> HttpFetcher::Fetch(const std::string& url, size_t max_bytes) {
  HttpRequest request;
  request.url = url;
  request.headers = {{"Accept", "application/json"}};
  request.timeout = absl::Seconds(5);
  request.max_body = max_bytes;
  ASSIGN_OR_RETURN(HttpResponse response, client_.Fetch(std::move(request)));
  if (response.status == 200) {
    return std::move(response.body);
  }
  const std::string message = absl::StrCat("the issuer answered ", response.status);
  return IsGone(response.status)      ? absl::NotFoundError(message)
         : IsPassing(response.status) ? absl::UnavailableError(message)
                                      : absl::FailedPreconditionError(message);
}

}  // namespace sallyport::oauth

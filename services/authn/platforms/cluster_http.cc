// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/cluster_http.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/files.h"
#include "common/secret.h"
#include "common/status_macros.h"

namespace sallyport::authn::platforms {
namespace {

constexpr size_t kMaxToken = 16 << 10;
// The API server offers its key set as this type only, and answers 406 to a request that does not take it.
constexpr char kJwksTypes[] = "application/jwk-set+json, application/json";
constexpr char kJson[] = "application/json";

absl::Status Answered(int status) {
  const std::string message = absl::StrCat("the cluster answered ", status);
  if (status == 404 || status == 410) {
    return absl::NotFoundError(message);
  }
  const bool ours = status == 401 || status == 403;
  return absl::UnavailableError(ours ? message + ": tokenFile holds no token that it lets do this" : message);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ClusterHttp>> ClusterHttp::Create(Options options) {
  HttpClient::Options client;
  client.policy = options.policy;
  client.ca_bundle = options.ca_bundle;
  client.connect_timeout = options.timeout;
  ASSIGN_OR_RETURN(auto http, HttpClient::Create(std::move(client)));
  return std::unique_ptr<ClusterHttp>(new ClusterHttp(std::move(options), std::move(http)));
}

absl::Status ClusterHttp::AddToken(HttpRequest& request) const {
  if (options_.token_file.empty()) {
    return absl::OkStatus();
  }
  // Not ReadSecretFile: kubelet mounts a pod's own token readable by every user of the pod.
  absl::StatusOr<std::string> read = ReadFile(options_.token_file, kMaxToken);
  if (!read.ok()) {
    return absl::UnavailableError(absl::StrCat("tokenFile: ", read.status().message()));
  }
  const Secret text(*std::move(read));
  const absl::string_view token = absl::StripAsciiWhitespace(text.Expose());
  if (token.empty()) {
    return absl::UnavailableError(absl::StrCat("tokenFile: ", options_.token_file, " is empty"));
  }
  request.headers.emplace_back("Authorization", absl::StrCat("Bearer ", token));
  return absl::OkStatus();
}

absl::StatusOr<std::string> ClusterHttp::Fetch(const std::string& url, size_t max_bytes) {
  HttpRequest request;
  request.url = url;
  request.headers = {{"Accept", kJwksTypes}};
  request.timeout = options_.timeout;
  request.max_body = max_bytes;
  RETURN_IF_ERROR(AddToken(request));
  ASSIGN_OR_RETURN(HttpResponse response, client_->Fetch(std::move(request)));
  return response.status == 200 ? absl::StatusOr<std::string>(std::move(response.body)) : Answered(response.status);
}

absl::StatusOr<std::string> ClusterHttp::Post(const std::string& url, std::string json, size_t max_bytes) {
  HttpRequest request;
  request.method = "POST";
  request.url = url;
  request.headers = {{"Accept", kJson}, {"Content-Type", kJson}};
  request.body = std::move(json);
  request.timeout = options_.timeout;
  request.max_body = max_bytes;
  RETURN_IF_ERROR(AddToken(request));
  ASSIGN_OR_RETURN(HttpResponse response, client_->Fetch(std::move(request)));
  if (response.status == 200 || response.status == 201) {
    return std::move(response.body);
  }
  return absl::UnavailableError(Answered(response.status).message());
}

}  // namespace sallyport::authn::platforms

// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/kubernetes_secrets.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/files.h"
#include "common/http/networks.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/json.h"

namespace sallyport::cli {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(15);
constexpr size_t kMaxAnswer = 4 << 20;

// The API server's own sentence (kind Status), which holds no data of a Secret.
std::string MessageOf(const HttpResponse& response) {
  const absl::StatusOr<nlohmann::json> body = ParseJsonObject(response.body);
  return body.ok() ? JsonString(*body, "message").value_or("") : "";
}

absl::Status ErrorFrom(const HttpResponse& response, const std::string& what) {
  const std::string text =
      absl::StrCat(what, ": the API server answered HTTP ", response.status, " ", MessageOf(response));
  switch (response.status) {
    case 401:
    case 403:
      return absl::PermissionDeniedError(text);
    case 409:
      return absl::AbortedError(text);
    default:
      return absl::UnavailableError(text);
  }
}

nlohmann::json ToJson(const KubernetesSecret& secret) {
  nlohmann::json metadata = {{"name", secret.name}, {"labels", {{"app.kubernetes.io/part-of", "sallyport"}}}};
  if (!secret.annotations.empty()) metadata["annotations"] = secret.annotations;
  if (!secret.resource_version.empty()) metadata["resourceVersion"] = secret.resource_version;
  nlohmann::json data = nlohmann::json::object();
  for (const auto& [key, value] : secret.data) data[key] = Base64Encode(value.Expose());
  return {{"apiVersion", "v1"}, {"kind", "Secret"}, {"metadata", metadata}, {"type", secret.type}, {"data", data}};
}

absl::StatusOr<KubernetesSecret> FromJson(absl::string_view text) {
  ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(text));
  const nlohmann::json* metadata = JsonMember(body, "metadata");
  const std::optional<std::string> type = JsonString(body, "type");
  if (metadata == nullptr || !type.has_value()) return absl::DataLossError("the API server's answer is no Secret");
  KubernetesSecret secret;
  secret.name = JsonString(*metadata, "name").value_or("");
  secret.resource_version = JsonString(*metadata, "resourceVersion").value_or("");
  secret.type = *type;
  if (const nlohmann::json* annotations = JsonMember(*metadata, "annotations"); annotations != nullptr) {
    for (const auto& [name, value] : annotations->items()) {
      if (value.is_string()) secret.annotations[name] = value.get<std::string>();
    }
  }
  if (const nlohmann::json* data = JsonMember(body, "data"); data != nullptr) {
    for (const auto& [key, value] : data->items()) {
      if (!value.is_string()) return absl::DataLossError("the API server's answer is no Secret");
      ASSIGN_OR_RETURN(std::string bytes, Base64Decode(value.get<std::string>()));
      secret.data[key] = Secret(std::move(bytes));
    }
  }
  return secret;
}

}  // namespace

absl::string_view KubernetesSecret::Get(const std::string& key) const {
  const auto found = data.find(key);
  return found == data.end() ? absl::string_view() : found->second.Expose();
}

absl::StatusOr<KubernetesSecrets> KubernetesSecrets::Create(const std::string& credentials, const Terminal& terminal) {
  const auto wanted = [&](const char* name) -> absl::StatusOr<std::string> {
    std::string value = terminal.environment(name);
    if (value.empty()) {
      return absl::FailedPreconditionError(absl::StrCat(name, " is not set: this command runs in a pod"));
    }
    return value;
  };
  ASSIGN_OR_RETURN(std::string host, wanted("KUBERNETES_SERVICE_HOST"));
  ASSIGN_OR_RETURN(const std::string port, wanted("KUBERNETES_SERVICE_PORT_HTTPS"));
  ASSIGN_OR_RETURN(const std::string ns, wanted("POD_NAMESPACE"));
  if (absl::StrContains(host, ':')) host = absl::StrCat("[", host, "]");
  HttpClient::Options options;
  ASSIGN_OR_RETURN(std::vector<Network> everywhere, ParseNetworks({"0.0.0.0/0", "::/0"}, "networks"));
  options.policy = EgressPolicy(std::move(everywhere), EgressPolicy::PlainHttp::kLoopback);
  options.ca_bundle = credentials + "/ca.crt";
  ASSIGN_OR_RETURN(std::unique_ptr<HttpClient> http, HttpClient::Create(std::move(options)));
  return KubernetesSecrets(absl::StrCat("https://", host, ":", port, "/api/v1/namespaces/", ns, "/secrets"),
                           credentials + "/token", std::move(http));
}

absl::StatusOr<HttpResponse> KubernetesSecrets::Send(const std::string& method, const std::string& url,
                                                     std::string body) {
  ASSIGN_OR_RETURN(const Secret token, ReadSecretFile(token_file_));
  HttpRequest request{.method = method, .url = url};
  request.headers = {{"Accept", "application/json"}, {"Authorization", absl::StrCat("Bearer ", token.Expose())}};
  if (!body.empty()) request.headers.emplace_back("Content-Type", "application/json");
  request.body = std::move(body);
  request.timeout = kTimeout;
  request.max_body = kMaxAnswer;
  return http_->Fetch(std::move(request));
}

absl::StatusOr<std::optional<KubernetesSecret>> KubernetesSecrets::Get(const std::string& name) {
  ASSIGN_OR_RETURN(const HttpResponse answer, Send("GET", absl::StrCat(url_, "/", name), ""));
  if (answer.status == 404) return std::optional<KubernetesSecret>();
  if (answer.status != 200) return ErrorFrom(answer, absl::StrCat("reading the Secret ", name));
  ASSIGN_OR_RETURN(KubernetesSecret secret, FromJson(answer.body));
  return std::optional<KubernetesSecret>(std::move(secret));
}

absl::StatusOr<bool> KubernetesSecrets::Create(const KubernetesSecret& secret) {
  ASSIGN_OR_RETURN(const HttpResponse answer, Send("POST", url_, DumpJson(ToJson(secret))));
  if (answer.status == 409) return false;
  if (answer.status != 201) return ErrorFrom(answer, absl::StrCat("making the Secret ", secret.name));
  return true;
}

absl::Status KubernetesSecrets::Replace(const KubernetesSecret& secret) {
  ASSIGN_OR_RETURN(const HttpResponse answer,
                   Send("PUT", absl::StrCat(url_, "/", secret.name), DumpJson(ToJson(secret))));
  return answer.status == 200 ? absl::OkStatus()
                              : ErrorFrom(answer, absl::StrCat("replacing the Secret ", secret.name));
}

}  // namespace sallyport::cli

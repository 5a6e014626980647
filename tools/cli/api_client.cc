// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/api_client.h"

#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>

#include "common/error.h"
#include "common/http/networks.h"
#include "common/status_macros.h"
#include "common/text/json.h"

namespace sallyport::cli {
namespace {

constexpr char kClientId[] = "sallyport-cli";
constexpr absl::Duration kTimeout = absl::Seconds(30);
constexpr absl::Duration kRenewBefore = absl::Seconds(30);
constexpr size_t kMaxAnswer = 32 << 20;
constexpr char kSignIn[] = "run `sallyport login`";

absl::StatusOr<std::string> PickUrl(const Target& target, const Terminal& terminal, const std::string& saved) {
  std::string text = target.url;
  if (text.empty()) text = terminal.environment("SALLYPORT_URL");
  if (text.empty()) text = saved;
  if (text.empty()) {
    return absl::InvalidArgumentError("which gateway? give --url URL, set SALLYPORT_URL, or run `sallyport login`");
  }
  const absl::StatusOr<Url> url = Url::Parse(text);
  if (!url.ok() || url->target() != "/") {
    return absl::InvalidArgumentError(
        absl::StrCat("the gateway's URL must be a bare origin such as https://gw.example.com, not ", text));
  }
  return url->origin();
}

absl::StatusCode CodeOf(int http_status) {
  switch (http_status) {
    case 400:
      return absl::StatusCode::kInvalidArgument;
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 409:
      return absl::StatusCode::kAborted;
    case 429:
      return absl::StatusCode::kResourceExhausted;
    case 501:
      return absl::StatusCode::kUnimplemented;
    case 503:
      return absl::StatusCode::kUnavailable;
    case 504:
      return absl::StatusCode::kDeadlineExceeded;
    default:
      return absl::StatusCode::kInternal;
  }
}

// The gateway's JSON error body as a status.
absl::Status ErrorFrom(const HttpResponse& response, const std::string& url) {
  const absl::StatusOr<nlohmann::json> body = ParseJsonObject(response.body);
  if (!body.ok()) {
    return absl::Status(CodeOf(response.status),
                        absl::StrCat(url, " answered HTTP ", response.status, ": is this a sallyport gateway?"));
  }
  // "message" from the API, "error_description" from the OAuth endpoints (RFC 6749 section 5.2).
  std::string message = JsonString(*body, "message").value_or(JsonString(*body, "error_description").value_or(""));
  ErrorDetail detail;
  detail.reason = JsonString(*body, "error").value_or("");
  if (message.empty()) message = absl::StrCat("HTTP ", response.status, " ", detail.reason);
  if (response.status == 401) absl::StrAppend(&message, ": ", kSignIn);
  if (response.status == 403 && detail.reason == "permission_denied") {
    absl::StrAppend(&message, " (`sallyport whoami` shows your roles)");
  }
  if (const nlohmann::json* violations = JsonMember(*body, "violations"); violations != nullptr) {
    for (const nlohmann::json& violation : *violations) {
      detail.violations.push_back(
          {JsonString(violation, "field").value_or(""), JsonString(violation, "message").value_or("")});
    }
  }
  return WithDetail(absl::Status(CodeOf(response.status), message), detail);
}

}  // namespace

absl::StatusOr<ApiClient> ApiClient::Create(const Target& target, const Terminal& terminal) {
  ASSIGN_OR_RETURN(const std::string path, CredentialsPath(terminal));
  ASSIGN_OR_RETURN(const Credentials credentials, LoadCredentials(path));
  ASSIGN_OR_RETURN(const std::string url, PickUrl(target, terminal, credentials.url));
  HttpClient::Options options;
  ASSIGN_OR_RETURN(std::vector<Network> everywhere, ParseNetworks({"0.0.0.0/0", "::/0"}, "networks"));
  // The user names the gateway: any address will do, but plain http only where nobody can listen.
  options.policy = EgressPolicy(std::move(everywhere), EgressPolicy::PlainHttp::kLoopback);
  options.ca_bundle = target.ca_file.empty() ? terminal.environment("SALLYPORT_CA_FILE") : target.ca_file;
  ASSIGN_OR_RETURN(const Url parsed, Url::Parse(url));
  if (!parsed.is_https() && !options.policy.CheckUrl(parsed).ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        url, " would carry your token in the clear: use https (plain http is for 127.0.0.1 and localhost only)"));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<HttpClient> http, HttpClient::Create(std::move(options)));
  return ApiClient(url, path, std::move(http), terminal);
}

absl::StatusOr<HttpResponse> ApiClient::Exchange(const std::string& path, HttpRequest request) {
  request.url = url_ + path;
  request.timeout = kTimeout;
  request.max_body = kMaxAnswer;
  sent_ = true;
  absl::StatusOr<HttpResponse> response = http_->Fetch(std::move(request));
  if (!response.ok()) {
    return absl::Status(response.status().code(),
                        absl::StrCat("cannot reach ", url_, ": ", response.status().message()));
  }
  return response;
}

absl::StatusOr<HttpResponse> ApiClient::Send(const std::string& path, HttpRequest request) {
  absl::StatusOr<HttpResponse> response = Exchange(path, std::move(request));
  if (response.ok() && response->status != 200) return ErrorFrom(*response, url_);
  return response;
}

absl::Status ApiClient::Post(const std::string& method, const Secret& token, const google::protobuf::Message& request,
                             google::protobuf::Message* response) {
  HttpRequest http{.method = "POST"};
  http.headers = {{"Content-Type", "application/json"}, {"Accept", "application/json"}};
  if (!token.empty()) http.headers.emplace_back("Authorization", absl::StrCat("Bearer ", token.Expose()));
  if (!google::protobuf::util::MessageToJsonString(request, &http.body).ok()) {
    return absl::InternalError("the request does not become JSON");
  }
  ASSIGN_OR_RETURN(const HttpResponse answer, Send(absl::StrCat("/api/", method), std::move(http)));
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;  // A newer gateway may say more.
  if (!google::protobuf::util::JsonStringToMessage(answer.body, response, options).ok()) {
    return absl::DataLossError(absl::StrCat("the answer of ", url_, " to ", method, " does not parse"));
  }
  return absl::OkStatus();
}

absl::Status ApiClient::CallAnonymously(const std::string& method, const google::protobuf::Message& request,
                                        google::protobuf::Message* response) {
  return Post(method, Secret(), request, response);
}

absl::Status ApiClient::Call(const std::string& method, const google::protobuf::Message& request,
                             google::protobuf::Message* response) {
  ASSIGN_OR_RETURN(const Secret token, Token());
  return Post(method, token, request, response);
}

absl::StatusOr<Secret> ApiClient::Token() {
  ASSIGN_OR_RETURN(Credentials credentials, LoadCredentials(credentials_path_));
  const auto found = credentials.logins.find(url_);
  if (found == credentials.logins.end()) {
    return absl::UnauthenticatedError(absl::StrCat("you are not signed in at ", url_, ": ", kSignIn));
  }
  Login& login = found->second;
  if (terminal_->now() + kRenewBefore < login.expires_at) return std::move(login.access_token);
  if (login.refresh_token.empty()) {
    return absl::UnauthenticatedError(absl::StrCat("your sign-in at ", url_, " has ended: ", kSignIn));
  }
  ASSIGN_OR_RETURN(const std::string body,
                   PostForm("/oauth/token", {{"grant_type", "refresh_token"},
                                             {"client_id", kClientId},
                                             {"refresh_token", std::string(login.refresh_token.Expose())}}));
  ASSIGN_OR_RETURN(login, ParseTokens(body, std::move(login.refresh_token)));
  Secret token = login.access_token.Clone();
  RETURN_IF_ERROR(SaveCredentials(credentials_path_, credentials));
  return token;
}

absl::StatusOr<std::string> ApiClient::PostForm(const std::string& path, const FormFields& fields) {
  HttpRequest http{.method = "POST"};
  http.headers = {{"Content-Type", "application/x-www-form-urlencoded"}, {"Accept", "application/json"}};
  http.body = FormEncode(fields);
  absl::StatusOr<HttpResponse> answer = Send(path, std::move(http));
  if (!answer.ok() && ReasonOf(answer.status()) == "invalid_grant") {
    return absl::UnauthenticatedError(absl::StrCat("your sign-in at ", url_, " has ended: ", kSignIn));
  }
  RETURN_IF_ERROR(answer.status());
  return std::move(answer->body);
}

absl::StatusOr<Login> ApiClient::ParseTokens(const std::string& body, Secret old_refresh_token) const {
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonObject(body));
  Login login;
  login.access_token = Secret(JsonString(json, "access_token").value_or(""));
  if (login.access_token.empty()) return absl::DataLossError(absl::StrCat(url_, " gave no access token"));
  login.refresh_token = Secret(JsonString(json, "refresh_token").value_or(""));
  if (login.refresh_token.empty()) login.refresh_token = std::move(old_refresh_token);
  login.expires_at = terminal_->now() + absl::Seconds(JsonInt(json, "expires_in").value_or(300));
  return login;
}

absl::Status ApiClient::Save(Login login) {
  ASSIGN_OR_RETURN(Credentials credentials, LoadCredentials(credentials_path_));
  credentials.url = url_;
  credentials.logins[url_] = std::move(login);
  return SaveCredentials(credentials_path_, credentials);
}

absl::StatusOr<Login> ApiClient::Forget() {
  ASSIGN_OR_RETURN(Credentials credentials, LoadCredentials(credentials_path_));
  const auto found = credentials.logins.find(url_);
  if (found == credentials.logins.end()) return Login();
  Login login = std::move(found->second);
  credentials.logins.erase(found);
  RETURN_IF_ERROR(SaveCredentials(credentials_path_, credentials));
  return login;
}

}  // namespace sallyport::cli

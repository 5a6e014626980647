// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/responses.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/text/json.h"

namespace sallyport::authn::web {

WebResponse PublicJson(std::string json, absl::Duration max_age) {
  WebResponse response;
  response.set_status(200);
  AddHeader(response, "content-type", "application/json");
  AddHeader(response, "cache-control", absl::StrCat("public, max-age=", absl::ToInt64Seconds(max_age)));
  AddHeader(response, "access-control-allow-origin", "*");
  AddHeader(response, "x-content-type-options", "nosniff");
  response.set_body(std::move(json));
  return response;
}

WebResponse PrivateJson(int status, std::string json) {
  WebResponse response;
  response.set_status(status);
  AddHeader(response, "content-type", "application/json");
  AddHeader(response, "cache-control", "no-store");
  AddHeader(response, "pragma", "no-cache");
  AddHeader(response, "x-content-type-options", "nosniff");
  response.set_body(std::move(json));
  return response;
}

WebResponse OAuthErrorJson(int status, absl::string_view error, absl::string_view description) {
  const nlohmann::json body = {{"error", std::string(error)}, {"error_description", std::string(description)}};
  WebResponse response = PrivateJson(status, DumpJson(body));
  if (status == 401) {
    AddHeader(response, "www-authenticate", "Basic realm=\"sallyport\"");
  }
  return response;
}

WebResponse MethodNotAllowed(absl::string_view allow) {
  WebResponse response = OAuthErrorJson(405, "invalid_request", "this address does not take this method");
  AddHeader(response, "allow", allow);
  return response;
}

void SetCookie(WebResponse& response, absl::string_view name, absl::string_view value, absl::Duration max_age) {
  AddHeader(response, "set-cookie",
            absl::StrCat(name, "=", value, "; Path=/; Max-Age=", absl::ToInt64Seconds(max_age),
                         "; HttpOnly; Secure; SameSite=Lax"));
}

bool IsFormContent(const WebRequest& request) {
  const std::string content_type = absl::AsciiStrToLower(HeaderOf(request, "content-type"));
  std::vector<std::string> parts = absl::StrSplit(content_type, ';');
  if (absl::StripAsciiWhitespace(parts[0]) != "application/x-www-form-urlencoded") {
    return false;
  }
  for (size_t i = 1; i < parts.size(); ++i) {
    const absl::string_view part = absl::StripAsciiWhitespace(parts[i]);
    if (absl::StartsWith(part, "charset=") && part != "charset=utf-8" && part != "charset=\"utf-8\"") {
      return false;
    }
  }
  return true;
}

}  // namespace sallyport::authn::web

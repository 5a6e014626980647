// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/authn_web.h"

#include "absl/strings/match.h"
#include "absl/strings/strip.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/oauth/error.h"
#include "common/status_macros.h"
#include "common/web/page.h"
#include "services/authn/errors.h"
#include "services/authn/web/pages.h"

namespace sallyport::authn::web {
namespace {

constexpr char kCallbackPrefix[] = "/oauth/callback/";

// Addresses that clients call and that therefore answer in JSON.
bool IsEndpoint(absl::string_view path) {
  return absl::StartsWith(path, "/.well-known/") || path == "/oauth/token" || path == "/oauth/register" ||
         path == "/oauth/revoke" || path == "/oauth/jwks";
}

WebResponse FailedEndpoint(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return OAuthErrorJson(404, "not_found", "there is no such document");
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted: {
      Log(LogLevel::kWarning, "endpoint_unavailable", {{"status", status}});
      WebResponse response =
          OAuthErrorJson(503, oauth::kTemporarilyUnavailable, "not available right now, try again in a few seconds");
      AddHeader(response, "retry-after", "2");
      return response;
    }
    default:
      Log(LogLevel::kError, "endpoint_failed", {{"status", status}});
      return OAuthErrorJson(500, oauth::kServerError, "internal error");
  }
}

WebResponse StyleSheetResponse() {
  WebResponse response;
  response.set_status(200);
  AddHeader(response, "content-type", "text/css; charset=utf-8");
  AddHeader(response, "cache-control", "public, max-age=3600");
  AddHeader(response, "x-content-type-options", "nosniff");
  response.set_body(std::string(page::StyleSheet()));
  return response;
}

}  // namespace

AuthnWeb::AuthnWeb(const Parts& parts)
    : context_(parts), metadata_(context_), endpoints_(context_), authorize_(context_), login_(context_, authorize_) {}

WebResponse AuthnWeb::Handle(const WebRequest& request) {
  const absl::Time now = context_.parts.clock.Now();
  if (IsEndpoint(request.path())) {
    absl::StatusOr<WebResponse> response = Endpoint(request, now);
    return response.ok() ? *std::move(response) : FailedEndpoint(response.status());
  }
  absl::StatusOr<WebResponse> response = Page(request, now);
  return response.ok() ? *std::move(response) : StatusPage(context_, response.status());
}

absl::StatusOr<WebResponse> AuthnWeb::Endpoint(const WebRequest& request, absl::Time now) {
  const std::string& path = request.path();
  if (path == "/oauth/token") {
    return endpoints_.Token(request, now);
  }
  if (path == "/oauth/register") {
    return endpoints_.Register(request, now);
  }
  if (path == "/oauth/revoke") {
    return endpoints_.Revoke(request, now);
  }
  if (request.method() != "GET") {
    return MethodNotAllowed("GET");
  }
  return path == "/oauth/jwks" ? metadata_.Jwks() : metadata_.WellKnown(path);
}

absl::StatusOr<WebResponse> AuthnWeb::Page(const WebRequest& request, absl::Time now) {
  const std::string& path = request.path();
  const bool post = request.method() == "POST";
  if (!post && request.method() != "GET") {
    return MethodNotAllowed("GET, POST");
  }
  if (path == "/login/local") {
    return post ? login_.LocalSubmit(request, now) : login_.LocalForm(request, now);
  }
  if (path == "/logout") {
    return post ? login_.LogoutSubmit(request, now) : login_.LogoutForm(request, now);
  }
  if (path == "/oauth/consent") {
    return post ? authorize_.DecideConsent(request, now) : authorize_.ShowConsent(request, now);
  }
  if (post) {
    return MethodNotAllowed("GET");
  }
  if (path == "/login") {
    return login_.Login(request, now);
  }
  if (path == "/") {
    return login_.Home(request, now);
  }
  if (path == "/login/style.css") {
    return StyleSheetResponse();
  }
  if (path == "/signed-out") {
    return HtmlResponse(200, SignedOutPage({}, context_.host));
  }
  if (path == "/oauth/authorize") {
    return authorize_.Authorize(request, now);
  }
  if (path == "/oauth/continue") {
    return authorize_.Continue(request, now);
  }
  if (absl::StartsWith(path, kCallbackPrefix)) {
    return login_.Callback(absl::string_view(path).substr(sizeof(kCallbackPrefix) - 1), request, now);
  }
  return NoSuchPage("no such page");
}

absl::Status AuthnWeb::Prune(absl::Time now) {
  RETURN_IF_ERROR(context_.transactions.Prune(now).status());
  return context_.attempts.Prune(now).status();
}

grpc::Status WebService::Handle(grpc::ServerContext* context, const WebRequest* request, WebResponse* response) {
  return rpc_.Handle("Handle", context, response,
                     [&](const Caller& /*caller*/) -> absl::StatusOr<WebResponse> { return web_.Handle(*request); });
}

}  // namespace sallyport::authn::web

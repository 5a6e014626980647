// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "sallyport/web/v1/web.pb.h"

namespace sallyport::authn::web {

using sallyport::web::v1::WebRequest;
using sallyport::web::v1::WebResponse;

// The value of a request header ("cookie"), empty when absent.
std::string HeaderOf(const WebRequest& request, absl::string_view name);
void AddHeader(WebResponse& response, absl::string_view name, absl::string_view value);

// An HTML document with the headers every page has.
WebResponse HtmlResponse(int status, std::string document);
// 303 See Other, never cached. `location` is a path of ours, or an address that has been checked.
WebResponse Redirect(absl::string_view location);
// JSON that any origin may read and caches may keep for `max_age`: metadata, keys.
WebResponse PublicJson(std::string json, absl::Duration max_age);
// JSON of the token endpoint and its like: no-store (RFC 6749 section 5.1).
WebResponse PrivateJson(int status, std::string json);
// RFC 6749 section 5.2. 401 carries a Basic challenge if the client tried Basic.
WebResponse OAuthErrorJson(int status, absl::string_view error, absl::string_view description);
// 405 with Allow.
WebResponse MethodNotAllowed(absl::string_view allow);

// Set-Cookie with HttpOnly, Secure, SameSite=Lax, Path=/. Max-Age 0 removes it.
void SetCookie(WebResponse& response, absl::string_view name, absl::string_view value, absl::Duration max_age);

// A POST from a page of ours: `origin` (always sent by browsers with POST) equals `public_url`, `sec-fetch-site` is
// same-origin when present. PERMISSION_DENIED otherwise.
absl::Status CheckSameOrigin(const WebRequest& request, absl::string_view public_url);
// The body is application/x-www-form-urlencoded; a charset other than UTF-8 is refused.
bool IsFormContent(const WebRequest& request);

}  // namespace sallyport::authn::web

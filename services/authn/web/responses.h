// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/web/responses.h"

namespace sallyport::authn::web {

using sallyport::web::AddHeader;
using sallyport::web::HeaderOf;
using sallyport::web::HtmlResponse;
using sallyport::web::Redirect;
using sallyport::web::WebRequest;
using sallyport::web::WebResponse;

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

// The body is application/x-www-form-urlencoded; a charset other than UTF-8 is refused.
bool IsFormContent(const WebRequest& request);

}  // namespace sallyport::authn::web

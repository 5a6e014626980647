// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"

#include "sallyport/web/v1/web.pb.h"

namespace sallyport::web {

using v1::WebRequest;
using v1::WebResponse;

// The first value of a request header ("cookie"), empty when absent.
std::string HeaderOf(const WebRequest& request, absl::string_view name);
void AddHeader(WebResponse& response, absl::string_view name, absl::string_view value);

// An HTML document with the headers every page has (page::Headers).
WebResponse HtmlResponse(int status, std::string document);
// 303 See Other unless told otherwise; never cached, no referrer. `location` is a path of ours, or an address that has
// been checked.
WebResponse Redirect(absl::string_view location, int status = 303);

}  // namespace sallyport::web

// SPDX-License-Identifier: Apache-2.0
#include "common/web/responses.h"

#include <utility>

#include "common/web/page.h"

namespace sallyport::web {

std::string HeaderOf(const WebRequest& request, absl::string_view name) {
  for (const auto& header : request.headers()) {
    if (header.name() == name) {
      return header.value();
    }
  }
  return "";
}

void AddHeader(WebResponse& response, absl::string_view name, absl::string_view value) {
  auto* header = response.add_headers();
  header->set_name(std::string(name));
  header->set_value(std::string(value));
}

WebResponse HtmlResponse(int status, std::string document) {
  WebResponse response;
  response.set_status(status);
  for (const auto& [name, value] : page::Headers()) {
    AddHeader(response, name, value);
  }
  response.set_body(std::move(document));
  return response;
}

WebResponse Redirect(absl::string_view location, int status) {
  WebResponse response;
  response.set_status(status);
  AddHeader(response, "location", location);
  AddHeader(response, "cache-control", "no-store");
  AddHeader(response, "referrer-policy", "no-referrer");
  return response;
}

}  // namespace sallyport::web

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/error_pages.h"

#include "absl/strings/str_cat.h"

#include "common/http/url.h"
#include "common/oauth/error.h"
#include "common/web/responses.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {

std::string ContinueUrl(const std::string& txn) { return absl::StrCat("/oauth/continue?txn=", PercentEncode(txn)); }

page::Html BackLink(const std::string& txn) {
  return txn.empty() ? page::Html() : page::ButtonLink(ContinueUrl(txn), "Continue without it", false);
}

web::WebResponse Message(int status, const std::string& host, absl::string_view title, absl::string_view text,
                         const page::Html& extra) {
  page::Page page;
  page.title = std::string(title);
  page.place = page::Place::kInside;
  page.host = host;
  page.body = page::Fill("<h1>{}</h1>", {title});
  page.body += page::Lead(text);
  page.body += extra;
  return web::HtmlResponse(status, page::Render(page));
}

page::Html BackToPlatform(const std::string& return_to) {
  return return_to.empty() ? page::Html() : page::QuietLink(return_to, "Back to where you came from");
}

web::WebResponse FormTooOld(const std::string& host, const std::string& target) {
  return Message(403, host, "Begin again", "This form is too old, or it was not sent from our page.",
                 page::ButtonLink(target, "Begin again"));
}

web::WebResponse NotNow(const std::string& host, const page::Html& extra) {
  web::WebResponse response =
      Message(503, host, "Not now", "Connecting is not possible at the moment. Try again in a minute.", extra);
  web::AddHeader(response, "retry-after", "2");
  return response;
}

web::WebResponse ProviderFailed(const std::string& host, const std::string& app, const std::string& code,
                                const page::Html& again, const page::Html& back) {
  const int status = code == kMetadataUnavailable ? 503 : 502;
  page::Html links = again;
  links += back;
  if (IsSilence(code)) {
    return Message(status, host, absl::StrCat(app, " does not answer"), "Nothing was stored. Try again in a minute.",
                   links);
  }
  if (code == "network_not_allowed") {
    return Message(status, host, absl::StrCat(app, " could not be connected"),
                   "It is in a network that this gateway may not reach (network_not_allowed). Nothing was stored. An "
                   "administrator can allow the network in egress.oauthNetworks; until then it does not help to come "
                   "back.",
                   back);
  }
  if (RejectsClient(code) || code == oauth::kUnauthorizedClient) {
    return Message(status, host, absl::StrCat(app, " does not accept this gateway"),
                   absl::StrCat("It refused the gateway's own client ID or secret (", code,
                                "). Nothing was stored. An administrator must correct the app; until then it does not "
                                "help to come back."),
                   back);
  }
  return Message(status, host, absl::StrCat(app, " could not be connected"),
                 absl::StrCat("Its answer could not be used (", code, "). Nothing was stored."), links);
}

web::WebResponse Misconfigured(const std::string& host, const std::string& app, const page::Html& back) {
  return Message(502, host, absl::StrCat(app, " could not be connected"),
                 "The app is not configured correctly. Nothing was stored. Its administrator finds the reason in the "
                 "log; until then it does not help to come back.",
                 back);
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/provider_pages.h"

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#include "common/error.h"
#include "common/json_log.h"
#include "services/authn/web/pages.h"
#include "services/authn/web/urls.h"

namespace sallyport::authn::web {
namespace {

// What a provider's failure is called on the page, with `{}` for its name; nothing if the failure is not the
// provider's.
struct ProviderWording {
  int status;
  const char* title;
  const char* lead;
  bool again;  // Trying again may help.
};

std::optional<ProviderWording> WordingOf(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (reason == "client_refused") {
    return ProviderWording{502, "{} does not accept this gateway",
                           "It refused the client id or the client secret that this gateway has for it. Nothing you do "
                           "changes that: an administrator has to correct them.",
                           false};
  }
  if (reason == "network_not_allowed") {
    return ProviderWording{503, "{} cannot be reached",
                           "This gateway may not connect to the network it is in. Nothing you do changes that: an "
                           "administrator has to allow the network.",
                           false};
  }
  if (reason == "provider_unavailable" || reason == "keys_unavailable") {
    return ProviderWording{503, "{} does not answer", "Signing in needs it. Try again in a minute.", true};
  }
  if (absl::IsFailedPrecondition(status)) {
    return ProviderWording{502, "{} cannot be used",
                           "What it says about itself does not fit what this gateway was told of it. An administrator "
                           "has to look at its settings.",
                           false};
  }
  if (absl::IsUnauthenticated(status)) {
    return ProviderWording{401, "{} did not sign you in",
                           "Its answer could not be verified, or it took the sign-in back. You are not signed in here.",
                           true};
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<WebResponse> ProviderFailure(const Context& context, const Connector& connector,
                                            const absl::Status& status, absl::string_view return_to) {
  const ErrorDetail detail = DetailOf(status);
  Log(LogLevel::kWarning, "sign_in_failed",
      {{"connector", connector.id()},
       {"status", status},
       {"reason", detail.reason},
       {"provider_error", detail.oauth_error}});
  const std::optional<ProviderWording> wording = WordingOf(status);
  if (!wording.has_value()) {
    return status;
  }
  const std::string reason = detail.reason.empty() ? "provider_misconfigured" : detail.reason;
  Problem problem;
  problem.title = absl::StrReplaceAll(wording->title, {{"{}", connector.display_name()}});
  problem.lead = wording->lead;
  problem.code =
      ReportCode(context, detail.oauth_error.empty() ? reason : absl::StrCat(reason, " (", detail.oauth_error, ")"));
  if (wording->again) {
    problem.href = WithParameters("/login", {{"connector", connector.id()}, {"return_to", std::string(return_to)}});
    problem.label = "Try again";
  }
  WebResponse response = HtmlResponse(wording->status, ErrorPage(problem, context.host));
  if (wording->status == 503 && wording->again) {
    AddHeader(response, "retry-after", "2");
  }
  return response;
}

WebResponse SignedOut(const Context& context, const Browser& browser, absl::Time now) {
  const Connector* connector =
      browser.session.has_value() ? context.parts.connectors.Find(browser.session->user.connector) : nullptr;
  if (connector == nullptr || connector->type() != Connector::Type::kOidc) {
    return Redirect("/signed-out");
  }
  // A provider that cannot be asked offers nothing; the page says that the session there goes on either way.
  const absl::StatusOr<std::string> sign_out = context.oidc.SignOutUrl(*connector, now);
  return HtmlResponse(200, SignedOutPage({connector->display_name(), sign_out.value_or("")}, context.host));
}

}  // namespace sallyport::authn::web

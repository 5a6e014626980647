// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/sign_in_step.h"

#include <memory>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/oauth/claims_parameter.h"
#include "common/status_macros.h"
#include "common/text/json.h"
#include "services/authn/web/pages.h"

namespace sallyport::authn::web {
namespace {

absl::Status NotPossible() {
  return WithReason(absl::PermissionDeniedError("this person has nothing to agree to for that server"),
                    "consent_not_possible");
}

}  // namespace

std::string SignInStep::ToPayload() const {
  nlohmann::json payload = {{"connector", connector}, {"return_to", return_to}};
  if (asks_consent()) {
    payload["consent"] = {{"server", consent_server_uid}, {"subject", consent_subject}, {"more_scopes", more_scopes}};
  }
  return DumpJson(payload);
}

absl::StatusOr<SignInStep> SignInStep::FromPayload(const std::string& payload) {
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonObject(payload));
  SignInStep step;
  step.connector = JsonString(json, "connector").value_or("");
  step.return_to = SafeReturnTo(JsonString(json, "return_to").value_or("/"));
  if (const nlohmann::json* consent = JsonMember(json, "consent"); consent != nullptr) {
    step.consent_server_uid = JsonString(*consent, "server").value_or("");
    step.consent_subject = JsonString(*consent, "subject").value_or("");
    step.more_scopes = JsonBool(*consent, "more_scopes").value_or(false);
  }
  return step;
}

absl::StatusOr<ConsentRequest> ConsentRequestOf(const Context& context, const Form& query, const Browser& browser,
                                                const Connector* connector) {
  if (!query.Duplicate().empty()) {
    return absl::InvalidArgumentError("a parameter occurs twice");
  }
  if (!browser.session.has_value()) {
    return WithReason(absl::UnauthenticatedError("nobody is signed in"), "session_ended");
  }
  const Identity& user = browser.session->user;
  const std::shared_ptr<const ServerView> server = context.parts.servers.FindBySlug(query.Get("consent"));
  const bool same_connector = connector != nullptr && connector->type() == Connector::Type::kOidc &&
                              connector->can_sign_in() && user.connector == connector->id();
  if (!same_connector || server == nullptr || !server->interactive || !server->exchanges_sign_in_token ||
      !server->policy.Decide(user, context.parts.connectors.SpeaksFor(user)).allowed) {
    return NotPossible();
  }
  ConsentRequest request;
  request.step.connector = connector->id();
  request.step.return_to = SafeReturnTo(query.Get("return_to"));
  request.step.consent_server_uid = server->uid();
  request.step.consent_subject = user.subject;
  request.step.more_scopes = !server->consent_scopes.empty();
  request.wish = {"consent", server->consent_scopes, oauth::ClaimsParameter(query.Get("claims"))};
  return request;
}

WebResponse ConsentRefusedPage(const Context& context, const Connector& connector, const std::string& said) {
  return HtmlResponse(400,
                      ErrorPage({absl::StrCat("You have not agreed at ", connector.display_name()),
                                 // Not with a link of ours: the one they came with says what is wanted and leads back.
                                 "Nothing was changed, and you are still signed in here. To try again, make the call "
                                 "again: it gives you a new link. The provider gave this reason:",
                                 said, "", ""},
                                context.host));
}

}  // namespace sallyport::authn::web

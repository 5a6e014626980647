// SPDX-License-Identifier: Apache-2.0
#include "services/registry/resource.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "services/registry/credentials/credentials.h"
#include "services/registry/draft.h"
#include "services/registry/group_names.h"
#include "services/registry/header_names.h"

namespace sallyport::registry {
namespace {

constexpr char kUserinfoUrl[] = "accountIdentity.userinfoUrl";

Origins OriginsOf(const google::protobuf::RepeatedPtrField<std::string>& origins) {
  return MakeOrigins({origins.begin(), origins.end()});
}

template <typename T>
void CheckWhoSetsOrigins(const Draft<T>& draft, Findings& findings) {
  const Origins before = draft.before != nullptr ? OriginsOf(draft.before->allowed_upstream_origins()) : Origins();
  const Origins after = OriginsOf(draft.after.allowed_upstream_origins());
  if (before != after && !draft.credential_admin) {
    findings.Deny(kRoleRule, "allowedUpstreamOrigins", "only a credential-admin may say where a credential goes");
  }
}

// Which field moved the secrets of an app.
std::string MovedField(const Draft<v1::App>& draft) {
  const auto moved = [&draft](const std::string& field) {
    return draft.before_urls.Origin(field) != draft.urls.Origin(field);
  };
  if (moved("tokenUrl")) return "tokenUrl";
  return moved("issuer") ? "issuer" : "revocationUrl";
}

// The codes and tokens of a public client are good for whoever receives them: no secret that somebody would have to
// enter again binds them to where they go, so a role does.
void CheckEndpoints(const v1::App& before, const v1::App& after, bool has_secret, Findings& findings) {
  const bool was_public = !before.client_secret().set() || before.client_auth() == v1::NONE;
  const bool is_public = !has_secret || after.client_auth() == v1::NONE;
  if (!was_public && !is_public) return;
  const auto check = [&findings](const std::string& was, const std::string& is, absl::string_view field) {
    if (was == is) return;
    findings.Deny(kRoleRule, field,
                  "only a credential-admin may change it: without a client secret the app's codes and tokens are good "
                  "for whoever receives them");
  };
  check(before.issuer(), after.issuer(), "issuer");
  check(before.authorization_url(), after.authorization_url(), "authorizationUrl");
  check(before.token_url(), after.token_url(), "tokenUrl");
  check(before.revocation_url(), after.revocation_url(), "revocationUrl");
  // Otherwise any word would do as the secret that is to be entered again.
  if (!is_public) {
    findings.Deny(
        kRoleRule, "clientSecret",
        "only a credential-admin may give one to an app that had none: what the app holds is good without it");
  }
}

// No secret of the app's goes there that would have to be entered again, if it is a public one: so a role says.
void CheckWhoAsksForAccounts(const Draft<v1::App>& draft, Findings& findings) {
  if (draft.before == nullptr || draft.credential_admin ||
      draft.before->account_identity().userinfo_url() == draft.after.account_identity().userinfo_url()) {
    return;
  }
  findings.Deny(kRoleRule, kUserinfoUrl,
                "only a credential-admin may change it once the app exists: the access tokens of its users are sent "
                "there");
}

// The field beside it that names the token endpoint a client's credential is for; empty for other secrets.
std::string TokenEndpointOf(const SecretField& field) {
  const size_t dot = field.json_path.rfind('.');
  const std::string name = field.json_path.substr(dot + 1);
  if (dot == std::string::npos || (name != "clientSecret" && name != "privateKey")) return "";
  const std::string parent = field.json_path.substr(0, dot);
  return absl::StrCat(parent, absl::EndsWith(parent, ".onBehalfOf") ? ".exchangeUrl" : ".tokenUrl");
}

// Whichever of them moved: the message names both.
MoveRule MovedFieldsOf(const SecretField& field, const std::string& upstream) {
  const std::string endpoint = TokenEndpointOf(field);
  return {endpoint.empty() ? upstream : endpoint, MoveRule::kGiveAgain, endpoint.empty() ? "" : upstream};
}

// The origin of a secret address, which is all of it that is stored outside the vault; of one that is kept, as it was
// when it was entered. Empty where the address is none.
std::string OriginOfSecretUrl(const v1::McpServer* before, const v1::McpServer& after) {
  if (!after.has_secret_upstream_url()) return "";
  if (!after.secret_upstream_url().has_value()) {
    return before != nullptr && before->has_secret_upstream_url() ? before->upstream_origin() : "";
  }
  const absl::StatusOr<Url> url = Url::Parse(after.secret_upstream_url().value());
  return url.ok() ? url->origin() : "";
}

// Asks issuers, which may be slow or down: only of apps whose issuer or client_auth this write sets.
void CompareWithIssuer(const Draft<v1::App>& draft, Findings& findings) {
  const v1::App& app = draft.after;
  const bool set_now = draft.before == nullptr || draft.before->issuer() != app.issuer() ||
                       draft.before->client_auth() != app.client_auth();
  if (!set_now || app.issuer().empty() || app.client_auth() == v1::CLIENT_AUTH_UNSPECIFIED) return;
  if (const auto announced = draft.context.announced_methods(app.issuer())) WarnOfClientAuth(app, *announced, findings);
}

}  // namespace

SecretReach ResourceTraits<v1::McpServer>::ReachOf(const SecretField& field, const v1::McpServer& /*server*/,
                                                   const ResourceUrls& urls) {
  const Origins upstream = MakeOrigins({urls.UpstreamOrigin()});
  const std::string endpoint = TokenEndpointOf(field);
  if (endpoint.empty()) return {upstream, {}};
  return {MakeOrigins({urls.Origin(endpoint)}), upstream};
}

Origins ResourceTraits<v1::McpServer>::BindingOrigins(const v1::McpServer& server, const ResourceUrls& urls) {
  const v1::CredentialPlan plan = LowerCredentials(server);
  const bool sends_tokens = std::any_of(plan.pieces().begin(), plan.pieces().end(), [](const auto& piece) {
    return piece.has_sign_in_token() || piece.has_service_token() || piece.has_exchanged_token();
  });
  // A server of an earlier release that forwards what callers present has one, too: taking it away would change
  // nothing.
  const bool forwards = std::any_of(server.outbound_headers().begin(), server.outbound_headers().end(),
                                    [](const auto& header) { return header.has_forward_caller_token(); });
  return sends_tokens || forwards ? MakeOrigins({urls.UpstreamOrigin()}) : Origins();
}

void ResourceTraits<v1::McpServer>::Normalize(const std::optional<Connectors>& connectors, const v1::McpServer* before,
                                              v1::McpServer& after, Findings& findings) {
  if (!after.has_enabled()) after.set_enabled(true);
  after.set_upstream_origin(OriginOfSecretUrl(before, after));
  for (v1::OutboundHeader& header : *after.mutable_outbound_headers()) {
    header.set_prefix(WithSchemeSpace(header.prefix()));
  }
  if (after.app_auth().has_api_key()) {
    auto* key = after.mutable_app_auth()->mutable_api_key();
    key->set_prefix(WithSchemeSpace(key->prefix()));
  }
  QualifyGroups(connectors, after, findings);
}

void ResourceTraits<v1::McpServer>::NormalizeStored(const std::optional<Connectors>& connectors,
                                                    v1::McpServer& server) {
  QualifyStoredGroups(connectors, server);
}

SecretPlan ResourceTraits<v1::McpServer>::Check(const Draft<v1::McpServer>& draft, Findings& findings) {
  ValidateMcpServer(draft.after, draft.urls, draft.context, findings);
  return PlanSecrets(
      draft, [&](const SecretField& field) { return MovedFieldsOf(field, draft.urls.upstream_field()); }, findings);
}

// The client's secret, codes and refresh tokens go where the app's own URLs say, and where its issuer's metadata does.
SecretReach ResourceTraits<v1::App>::ReachOf(const SecretField& /*field*/, const v1::App& /*app*/,
                                             const ResourceUrls& urls) {
  SecretReach reach;
  reach.origins = MakeOrigins({urls.Origin("issuer"), urls.Origin("tokenUrl"), urls.Origin("revocationUrl")});
  // The access token that is got with it. Whoever is given the secret itself needs no second look.
  const std::string userinfo = urls.Origin(kUserinfoUrl);
  const bool known = std::find(reach.origins.begin(), reach.origins.end(), userinfo) != reach.origins.end();
  if (!known) reach.onward = MakeOrigins({userinfo});
  return reach;
}

// Where users' tokens may go, and where the broker asks with them whose they are. None before the first server: it
// makes the binding, which only a credential-admin may change then.
Origins ResourceTraits<v1::App>::BindingOrigins(const v1::App& app, const ResourceUrls& /*urls*/) {
  if (app.allowed_upstream_origins().empty()) return {};
  std::vector<std::string> origins(app.allowed_upstream_origins().begin(), app.allowed_upstream_origins().end());
  if (const absl::StatusOr<Url> userinfo = Url::Parse(app.account_identity().userinfo_url()); userinfo.ok()) {
    origins.push_back(userinfo->origin());
  }
  return MakeOrigins(origins);
}

// A file that does not list an app's origins keeps them: most were filled in by the app's first server, and a second
// apply of the same file must not take them away.
void ResourceTraits<v1::App>::Normalize(const std::optional<Connectors>& /*connectors*/, const v1::App* before,
                                        v1::App& after, Findings& /*findings*/) {
  if (before != nullptr && after.allowed_upstream_origins().empty()) {
    *after.mutable_allowed_upstream_origins() = before->allowed_upstream_origins();
  }
}

SecretPlan ResourceTraits<v1::App>::Check(const Draft<v1::App>& draft, Findings& findings) {
  ValidateApp(draft.after, draft.urls, draft.context, findings);
  CheckWhoSetsOrigins(draft, findings);
  SecretPlan plan = PlanSecrets(
      draft,
      [&](const SecretField&) {
        return MoveRule{MovedField(draft), MoveRule::kGiveAgain, kUserinfoUrl};
      },
      findings);
  CheckWhoAsksForAccounts(draft, findings);
  const bool has_secret = draft.after.client_secret().set() || !plan.puts.empty();
  ValidateAppClient(draft.after, has_secret, findings);
  if (draft.before != nullptr && !draft.credential_admin) {
    CheckEndpoints(*draft.before, draft.after, has_secret, findings);
  }
  if (findings.violations.empty()) CompareWithIssuer(draft, findings);
  return plan;
}

SecretReach ResourceTraits<v1::Credential>::ReachOf(const SecretField& /*field*/, const v1::Credential& credential,
                                                    const ResourceUrls& /*urls*/) {
  return {OriginsOf(credential.allowed_upstream_origins()), {}};
}

SecretPlan ResourceTraits<v1::Credential>::Check(const Draft<v1::Credential>& draft, Findings& findings) {
  ValidateCredential(draft.after, findings);
  CheckWhoSetsOrigins(draft, findings);
  SecretPlan plan = PlanSecrets(
      draft,
      [](const SecretField&) {
        return MoveRule{"allowedUpstreamOrigins", MoveRule::kRebind};
      },
      findings);
  const bool own = draft.after.owner() == v1::Credential::USER;
  if (own && (draft.after.value().set() || !plan.puts.empty())) {
    findings.Refuse("value", "owner USER: each user enters their own, at /connect/<server>; leave it out");
  }
  if (draft.before != nullptr && own != (draft.before->owner() == v1::Credential::USER)) {
    findings.Refuse("owner", "cannot be changed: create another credential, and let the servers refer to that");
  }
  return plan;
}

}  // namespace sallyport::registry

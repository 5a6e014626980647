// SPDX-License-Identifier: Apache-2.0
#include "services/registry/resource.h"

#include "services/registry/draft.h"
#include "services/registry/group_names.h"

namespace sallyport::registry {
namespace {

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

// Asks issuers, which may be slow or down: only of apps whose issuer or client_auth this write sets.
void CompareWithIssuer(const Draft<v1::App>& draft, Findings& findings) {
  const v1::App& app = draft.after;
  const bool set_now = draft.before == nullptr || draft.before->issuer() != app.issuer() ||
                       draft.before->client_auth() != app.client_auth();
  if (!set_now || app.issuer().empty() || app.client_auth() == v1::CLIENT_AUTH_UNSPECIFIED) return;
  if (const auto announced = draft.context.announced_methods(app.issuer())) WarnOfClientAuth(app, *announced, findings);
}

}  // namespace

Origins ResourceTraits<v1::McpServer>::SecretOrigins(const v1::McpServer& /*server*/, const ResourceUrls& urls) {
  return MakeOrigins({urls.Origin("upstreamUrl")});
}

Origins ResourceTraits<v1::McpServer>::BindingOrigins(const v1::McpServer& server, const ResourceUrls& urls) {
  for (const v1::OutboundHeader& header : server.outbound_headers()) {
    if (header.has_forward_caller_token()) return MakeOrigins({urls.Origin("upstreamUrl")});
  }
  return {};
}

void ResourceTraits<v1::McpServer>::Normalize(const std::optional<Connectors>& connectors,
                                              const v1::McpServer* /*before*/, v1::McpServer& after,
                                              Findings& findings) {
  if (!after.has_enabled()) after.set_enabled(true);
  QualifyGroups(connectors, after, findings);
}

void ResourceTraits<v1::McpServer>::NormalizeStored(const std::optional<Connectors>& connectors,
                                                    v1::McpServer& server) {
  QualifyStoredGroups(connectors, server);
}

SecretPlan ResourceTraits<v1::McpServer>::Check(const Draft<v1::McpServer>& draft, Findings& findings) {
  ValidateMcpServer(draft.after, draft.urls, draft.context, findings);
  return PlanSecrets(draft, {"upstreamUrl"}, findings);
}

// The client's secret, codes and refresh tokens go where the app's own URLs say, and where its issuer's metadata does.
Origins ResourceTraits<v1::App>::SecretOrigins(const v1::App& /*app*/, const ResourceUrls& urls) {
  return MakeOrigins({urls.Origin("issuer"), urls.Origin("tokenUrl"), urls.Origin("revocationUrl")});
}

Origins ResourceTraits<v1::App>::BindingOrigins(const v1::App& app, const ResourceUrls& /*urls*/) {
  return OriginsOf(app.allowed_upstream_origins());
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
  SecretPlan plan = PlanSecrets(draft, {MovedField(draft)}, findings);
  const bool has_secret = draft.after.client_secret().set() || !plan.puts.empty();
  ValidateAppClient(draft.after, has_secret, findings);
  if (draft.before != nullptr && !draft.credential_admin) {
    CheckEndpoints(*draft.before, draft.after, has_secret, findings);
  }
  if (findings.violations.empty()) CompareWithIssuer(draft, findings);
  return plan;
}

Origins ResourceTraits<v1::Credential>::SecretOrigins(const v1::Credential& credential, const ResourceUrls& /*urls*/) {
  return OriginsOf(credential.allowed_upstream_origins());
}

SecretPlan ResourceTraits<v1::Credential>::Check(const Draft<v1::Credential>& draft, Findings& findings) {
  ValidateCredential(draft.after, findings);
  CheckWhoSetsOrigins(draft, findings);
  return PlanSecrets(draft, {"allowedUpstreamOrigins", MoveRule::kRebind}, findings);
}

}  // namespace sallyport::registry

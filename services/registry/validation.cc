// SPDX-License-Identifier: Apache-2.0
#include "services/registry/validation.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "common/http/field.h"
#include "services/registry/validation_parts.h"

namespace sallyport::registry {
namespace {

// What the vault seals with one value.
constexpr int kMaxOrigins = 64;

bool IsSlug(absl::string_view slug) {
  if (slug.empty() || slug.size() > 63 || !absl::ascii_islower(static_cast<unsigned char>(slug.front()))) return false;
  return std::all_of(slug.begin(), slug.end(), [](char c) {
    return absl::ascii_islower(static_cast<unsigned char>(c)) || absl::ascii_isdigit(static_cast<unsigned char>(c)) ||
           c == '-';
  });
}

// Characters, not bytes: protobuf has already refused text that is no UTF-8.
int64_t Characters(absl::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

// RFC 6749 section 3.3, and no comma either: providers answer with lists parted by blanks or commas, and a scope that
// falls in two there would never count as granted.
bool IsScope(absl::string_view scope) {
  return !scope.empty() && std::all_of(scope.begin(), scope.end(),
                                       [](char c) { return c > ' ' && c < 0x7f && c != '"' && c != '\\' && c != ','; });
}

void ValidateOrigins(const google::protobuf::RepeatedPtrField<std::string>& origins, Findings& findings) {
  if (origins.size() > kMaxOrigins) findings.Refuse("allowedUpstreamOrigins", "holds more than 64 origins");
  for (int i = 0; i < origins.size(); ++i) {
    if (const auto url = Url::Parse(origins.Get(i)); !url.ok() || url->origin() != origins.Get(i)) {
      findings.Refuse(absl::StrCat("allowedUpstreamOrigins[", i, "]"),
                      "must be an origin: scheme, host and port only, such as https://api.example.com");
    }
  }
}

// "data.user.id": each part is a member of the object that the one before it leads to.
bool IsMemberPath(absl::string_view path) {
  constexpr size_t kMaxMemberPath = 128;
  if (path.empty() || path.size() > kMaxMemberPath) return false;
  for (absl::string_view part : absl::StrSplit(path, '.')) {
    const bool plain = std::all_of(part.begin(), part.end(), [](char c) {
      return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
    });
    if (part.empty() || !plain) return false;
  }
  return true;
}

// A link is refused where the app must know whose account it is and nothing says so.
void ValidateWhoSays(const v1::App& app, Findings& findings) {
  const v1::App::AccountIdentity& identity = app.account_identity();
  const bool required = identity.same_account() == v1::App::REQUIRED;
  if (!required && identity.account_domain() != v1::App::SAME_AS_SIGN_IN) return;
  const auto& scopes = app.default_scopes();
  if (!identity.userinfo_url().empty() || std::find(scopes.begin(), scopes.end(), "openid") != scopes.end()) return;
  const char* const field = required ? "accountIdentity.sameAccount" : "accountIdentity.accountDomain";
  if (app.issuer().empty()) {
    return findings.Refuse(field,
                           "must know which account is linked: set accountIdentity.userinfoUrl, or ask for an ID token "
                           "with the scope openid in defaultScopes");
  }
  findings.Warn(field,
                "refuses every link without an ID token, which a provider sends for the scope openid: add it to "
                "defaultScopes, or set accountIdentity.userinfoUrl");
}

void ValidateAccountIdentity(const v1::App& app, const ResourceUrls& urls, const ValidationContext& context,
                             Findings& findings) {
  if (!app.has_account_identity()) return;
  const v1::App::AccountIdentity& identity = app.account_identity();
  const std::string url = "accountIdentity.userinfoUrl";
  if (const auto* found = urls.Find(url); found != nullptr) {
    ValidateOAuthUrl(*found, url, context.oauth_networks, findings);
  }
  const auto member = [&findings](const std::string& path, absl::string_view field) {
    if (path.empty() || IsMemberPath(path)) return;
    findings.Refuse(absl::StrCat("accountIdentity.", field),
                    "must be 1 to 128 letters, digits, '_' or '-', with a dot between the members that lead there: id, "
                    "data.user.id");
  };
  member(identity.id_member(), "idMember");
  member(identity.name_member(), "nameMember");
  member(identity.email_member(), "emailMember");
  member(identity.email_verified_member(), "emailVerifiedMember");
  ValidateWhoSays(app, findings);
}

}  // namespace

void Findings::Warn(absl::string_view field, absl::string_view message) {
  v1::Warning warning;
  warning.set_field(std::string(field));
  warning.set_message(std::string(message));
  warnings.push_back(std::move(warning));
}

void ValidateSlug(absl::string_view slug, Findings& findings) {
  static constexpr std::array<absl::string_view, 7> kReserved = {"api",    "callback", "connect",   "console",
                                                                 "health", "oauth",    "well-known"};
  if (slug.empty()) return findings.Refuse("slug", "is required");
  if (!IsSlug(slug)) {
    return findings.Refuse("slug", "must be 1 to 63 of a-z, 0-9 and '-', beginning with a letter");
  }
  if (std::find(kReserved.begin(), kReserved.end(), slug) != kReserved.end()) {
    findings.Refuse("slug", "is reserved: choose another name");
  }
}

void ValidateTexts(absl::string_view display_name, absl::string_view description, Findings& findings) {
  if (Characters(display_name) > 100) findings.Refuse("displayName", "must not exceed 100 characters");
  if (Characters(description) > 1000) findings.Refuse("description", "must not exceed 1000 characters");
}

void ValidateScopes(const google::protobuf::RepeatedPtrField<std::string>& scopes, const std::string& field,
                    Findings& findings) {
  for (int i = 0; i < scopes.size(); ++i) {
    if (IsScope(scopes.Get(i))) continue;
    findings.Refuse(absl::StrCat(field, "[", i, "]"),
                    "must be one scope (RFC 6749 section 3.3), without blank, comma, quote or backslash: write several "
                    "as a list");
  }
}

void ValidateParams(const google::protobuf::Map<std::string, std::string>& params, const std::string& field,
                    Findings& findings) {
  static constexpr std::array<absl::string_view, 14> kOurs = {
      "client_id", "client_secret", "code",  "code_challenge", "code_challenge_method", "code_verifier", "grant_type",
      "nonce",     "redirect_uri",  "scope", "state",          "refresh_token",         "response_type", "assertion"};
  for (const auto& [name, value] : params) {
    if (std::find(kOurs.begin(), kOurs.end(), name) != kOurs.end()) {
      findings.Refuse(absl::StrCat(field, ".", name), "is set by the protocol and may not be given");
    }
  }
}

void ValidateApp(const v1::App& app, const ResourceUrls& urls, const ValidationContext& context, Findings& findings) {
  RefuseUnsupported(app, "", findings);
  ValidateSlug(app.slug(), findings);
  ValidateTexts(app.display_name(), "", findings);
  if (!app.issuer().empty()) ValidateIssuer(app.issuer(), *urls.Find("issuer"), context.oauth_networks, findings);
  const std::string remedy = "is required unless issuer is given";
  const auto endpoint = [&](const std::string& field, bool required) {
    const auto* url = urls.Find(field);
    if (url != nullptr) return ValidateOAuthUrl(*url, field, context.oauth_networks, findings);
    if (required && app.issuer().empty()) findings.Refuse(field, remedy);
  };
  endpoint("authorizationUrl", true);
  endpoint("tokenUrl", true);
  endpoint("revocationUrl", false);
  if (app.client_id().empty()) findings.Refuse("clientId", "is required");
  if (app.client_auth() == v1::PRIVATE_KEY_JWT) {
    findings.Refuse("clientAuth", "must be BASIC, POST or NONE: an app has no private key");
  }
  if (app.scope_separator().size() > 1) findings.Refuse("scopeSeparator", "must be one character");
  ValidateScopes(app.default_scopes(), "defaultScopes", findings);
  ValidateParams(app.authorization_params(), "authorizationParams", findings);
  ValidateParams(app.token_params(), "tokenParams", findings);
  ValidateOrigins(app.allowed_upstream_origins(), findings);
  ValidateAccountIdentity(app, urls, context, findings);
}

void ValidateAppClient(const v1::App& app, bool has_secret, Findings& findings) {
  const v1::ClientAuth auth = app.client_auth();
  if (auth == v1::NONE && has_secret) {
    findings.Refuse("clientSecret",
                    "is never sent with clientAuth NONE: leave clientAuth out, or remove the secret (clear: true)");
  }
  if ((auth == v1::BASIC || auth == v1::POST) && !has_secret) {
    findings.Refuse("clientAuth", "needs a clientSecret: give one, or leave clientAuth out for a public client");
  }
  if ((auth == v1::NONE || !has_secret) && app.pkce() == v1::OFF) {
    findings.Refuse("pkce", "a public client needs PKCE: set S256, or give a client secret");
  }
}

void WarnOfClientAuth(const v1::App& app, const std::vector<std::string>& announced, Findings& findings) {
  const char* method = nullptr;
  switch (app.client_auth()) {
    case v1::BASIC:
      method = "client_secret_basic";
      break;
    case v1::POST:
      method = "client_secret_post";
      break;
    case v1::NONE:
      method = "none";
      break;
    default:
      return;
  }
  if (std::find(announced.begin(), announced.end(), method) != announced.end()) return;
  // Another party's words: what is no name of RFC 7591's registry is not repeated.
  std::vector<std::string> names;
  for (const std::string& name : announced) {
    const bool shown = name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
                         return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
                       });
    if (shown && names.size() < 8) names.push_back(name);
  }
  findings.Warn("clientAuth",
                absl::StrCat("the issuer announces ", names.empty() ? "other ways" : absl::StrJoin(names, ", "),
                             " and not ", method, ": leave clientAuth out to use what it announces"));
}

void ValidateCredential(const v1::Credential& credential, Findings& findings) {
  RefuseUnsupported(credential, "", findings);
  ValidateSlug(credential.slug(), findings);
  ValidateTexts(credential.display_name(), "", findings);
  if (credential.kind() == v1::Credential::KIND_UNSPECIFIED) {
    findings.Refuse("kind", "is required: API_KEY, BEARER_TOKEN or PASSWORD");
  }
  if (credential.allowed_upstream_origins().empty()) {
    findings.Refuse("allowedUpstreamOrigins", "is required: the origins this credential may be sent to");
  }
  ValidateOrigins(credential.allowed_upstream_origins(), findings);
  const std::string& username = credential.username();
  if (!username.empty() && credential.kind() != v1::Credential::PASSWORD) {
    findings.Refuse("username", "goes with kind PASSWORD only: leave it out");
  }
  if (!username.empty() && credential.owner() == v1::Credential::USER) {
    findings.Refuse("username", "owner USER: each user enters their own; leave it out");
  }
  if (username.find(':') != std::string::npos || !IsTrimmedFieldValue(username)) {
    findings.Refuse("username", "must not hold ':' or control characters (RFC 7617 section 2)");
  }
}

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/connectors.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/config/service_config.h"
#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/files.h"
#include "common/http/networks.h"
#include "common/http/url.h"
#include "common/oauth/subject_claim.h"
#include "common/status_macros.h"
#include "common/text/json.h"
#include "services/authn/claims.h"
#include "services/authn/errors.h"
#include "services/authn/groups_overage.h"

namespace sallyport::authn {
namespace {

constexpr size_t kMaxGroups = 1000;
constexpr size_t kMaxGroupBytes = 256;
constexpr absl::Duration kSecretKept = absl::Minutes(1);
constexpr oauth::FetchTiming kDiscoveryTiming = {absl::Hours(1), absl::Seconds(60), absl::Seconds(5), absl::Hours(24)};

using config::v1::OidcConnector;

bool IsGoodId(const std::string& id) {
  const auto good = [](char c) {
    return absl::ascii_islower(static_cast<unsigned char>(c)) || absl::ascii_isdigit(static_cast<unsigned char>(c)) ||
           c == '-';
  };
  return !id.empty() && id.size() <= 63 && std::all_of(id.begin(), id.end(), good) &&
         !absl::StartsWith(id, "server-") && id != "server" && id != "sallyport";
}

absl::Status CheckIssuer(const std::string& field, const OidcConnector& oidc) {
  const absl::StatusOr<Url> url = Url::Parse(oidc.issuer());
  if (!url.ok()) {
    return InvalidField(field, "must be an absolute https URL");
  }
  if (!url->query().empty()) {
    return InvalidField(field, "must have no query");
  }
  // Nothing is fetched for a connector whose keys are in a file: its issuer is only compared.
  if (!url->is_https() && oidc.jwks_file().empty()) {
    const absl::StatusOr<IpAddress> address = IpAddress::Parse(url->host());
    if (url->host() != "localhost" && (!address.ok() || !address->is_loopback())) {
      return InvalidField(field, "must be https, except on loopback");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<JwkSet> ReadKeys(const std::string& file) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  return JwkSet::Parse(text);
}

absl::Status CheckSubjectClaims(const std::string& field, const OidcConnector& oidc) {
  std::vector<absl::Status> checks;
  for (const auto& [name, claim] : {std::pair("idTokenSubjectClaim", &oidc.id_token_subject_claim()),
                                    std::pair("accessTokenSubjectClaim", &oidc.access_token_subject_claim())}) {
    if (const std::optional<std::string> fault = oauth::MutableSubjectClaim(*claim); fault.has_value()) {
      checks.push_back(InvalidField(absl::StrCat(field, ".oidc.", name), *fault));
    }
  }
  return MergeViolations(checks);
}

absl::Status CheckOidc(const std::string& field, const OidcConnector& oidc) {
  RETURN_IF_ERROR(CheckIssuer(field + ".oidc.issuer", oidc));
  RETURN_IF_ERROR(CheckSubjectClaims(field, oidc));
  if (!oidc.jwks_file().empty() && !oidc.client_id().empty()) {
    return InvalidField(field + ".oidc.jwksFile", "is for connectors that only verify tokens: drop it or clientId");
  }
  if (!oidc.client_secret_file().empty() && oidc.client_id().empty()) {
    return InvalidField(field + ".oidc.clientSecretFile", "needs clientId");
  }
  for (int kind : oidc.accept()) {
    if (kind == OidcConnector::INTROSPECTION) {
      return InvalidField(field + ".oidc.accept", "not yet supported: INTROSPECTION");
    }
    if (kind != OidcConnector::JWT_ACCESS && kind != OidcConnector::ID_TOKEN) {
      return InvalidField(field + ".oidc.accept", "must be JWT_ACCESS or ID_TOKEN");
    }
  }
  if (!oidc.jwks_file().empty()) {
    if (const auto keys = ReadKeys(oidc.jwks_file()); !keys.ok()) {
      return InvalidField(field + ".oidc.jwksFile", keys.status().message());
    }
  }
  return CheckSecretFile(field + ".oidc.clientSecretFile", oidc.client_secret_file());
}

absl::Status CheckLocal(const std::string& field, const config::v1::LocalConnector& local) {
  std::set<std::string> names;
  for (int i = 0; i < local.users_size(); ++i) {
    const auto& user = local.users(i);
    const std::string path = absl::StrCat(field, ".local.users[", i, "]");
    if (user.username().empty() || user.username().size() > 255 ||
        std::any_of(user.username().begin(), user.username().end(),
                    [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); })) {
      return InvalidField(path + ".username", "must be 1 to 255 bytes without control characters");
    }
    if (user.password_hash().empty()) {
      return InvalidField(path + ".passwordHash", "is required: see `sallyport hash-password`");
    }
    if (const absl::Status usable = CheckPasswordHash(user.password_hash()); !usable.ok()) {
      return InvalidField(path + ".passwordHash",
                          absl::StrCat(usable.message(), ": write what `sallyport hash-password` prints"));
    }
    if (!names.insert(user.username()).second) {
      return InvalidField(path + ".username", "occurs twice");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckConnector(const std::string& field, const config::v1::Connector& config, std::set<std::string>& ids) {
  if (!IsGoodId(config.id())) {
    return InvalidField(field + ".id",
                        "must be 1 to 63 of a-z, 0-9 and '-', not 'sallyport', 'server' or beginning with 'server-'");
  }
  if (!ids.insert(config.id()).second) {
    return InvalidField(field + ".id", "occurs twice");
  }
  switch (config.type_case()) {
    case config::v1::Connector::kOidc:
      return CheckOidc(field, config.oidc());
    case config::v1::Connector::kLocal:
      return CheckLocal(field, config.local());
    default:
      return InvalidField(field, "needs oidc or local");
  }
}

// RFC 9068 section 2.1 and what other kinds of JWT say of themselves. An empty or plain "jwt" type says nothing.
bool LooksLikeIdToken(const Jwt& jwt) {
  return jwt.typ() == "id+jwt" || jwt.Has("nonce") || jwt.Has("at_hash") || jwt.Has("c_hash") ||
         jwt.String("typ") == "ID";
}

bool LooksLikeAccessToken(const Jwt& jwt) {
  return jwt.typ() == "at+jwt" || jwt.Has("scope") || jwt.Has("scp") || jwt.String("typ") == "Bearer";
}

bool IsKnownType(const std::string& typ) { return typ.empty() || typ == "jwt" || typ == "at+jwt" || typ == "id+jwt"; }

// A token that is neither, or both, is not taken for anything. `cnf` binds a token to a key its presenter must prove
// (RFC 7800): as a plain bearer it is worth nothing. `events` marks security events and logout tokens (RFC 8417).
absl::StatusOr<AcceptedKind> KindOf(const Jwt& jwt, bool take_access, bool take_id) {
  if (!IsKnownType(jwt.typ()) || jwt.Has("events") || jwt.Has("cnf")) {
    return InvalidToken("wrong_type");
  }
  const bool id = LooksLikeIdToken(jwt);
  const bool access = LooksLikeAccessToken(jwt);
  if (take_access && !id) {
    return AcceptedKind::kAccessToken;
  }
  if (take_id && !access) {
    return AcceptedKind::kIdToken;
  }
  return InvalidToken("wrong_type");
}

std::vector<std::string> Groups(const nlohmann::json& claims, const std::string& claim) {
  std::vector<std::string> groups = JsonStrings(claims, claim.c_str()).value_or(std::vector<std::string>{});
  if (const std::optional<std::string> single = JsonString(claims, claim.c_str()); single.has_value()) {
    groups = {*single};
  }
  groups.erase(std::remove_if(groups.begin(), groups.end(),
                              [](const std::string& group) { return group.empty() || group.size() > kMaxGroupBytes; }),
               groups.end());
  groups.resize(std::min(groups.size(), kMaxGroups));
  return groups;
}

std::vector<std::string> Scopes(const Jwt& jwt) {
  for (const char* claim : {"scope", "scp"}) {
    if (const auto text = jwt.String(claim); text.has_value()) {
      return absl::StrSplit(*text, ' ', absl::SkipEmpty());
    }
    if (auto list = jwt.Strings(claim); list.has_value()) {
      return *std::move(list);
    }
  }
  return {};
}

const std::string& GroupsClaim(const OidcConnector& oidc) {
  static const auto& standard = *new std::string("groups");
  return oidc.groups_claim().empty() ? standard : oidc.groups_claim();
}

// Some issuers send the boolean as a string.
bool EmailVerified(const nlohmann::json& claims) {
  return JsonBool(claims, "email_verified").value_or(false) || JsonString(claims, "email_verified") == "true";
}

// The client the token was issued to: RFC 9068, OpenID Connect, Entra v1, Okta.
std::string ClientId(const Jwt& jwt) {
  for (const char* claim : {"client_id", "azp", "appid", "cid"}) {
    if (auto id = jwt.String(claim); id.has_value()) {
      return *id;
    }
  }
  return "";
}

}  // namespace

struct Connector::State {
  State(std::optional<JwkSet> file_keys, JwksCache& jwks_cache, oauth::MetadataCache& metadata_cache,
        VaultClient& vault_client)
      : keys(std::move(file_keys)), jwks(jwks_cache), metadata(metadata_cache), vault(vault_client) {}

  const std::optional<JwkSet> keys;  // Of jwks_file.
  JwksCache& jwks;
  oauth::MetadataCache& metadata;
  VaultClient& vault;
  Mutex mu;
  Secret secret ABSL_GUARDED_BY(mu);
  absl::Time secret_at ABSL_GUARDED_BY(mu) = absl::InfinitePast();
};

Connector::Connector(config::v1::Connector config, std::optional<JwkSet> keys, JwksCache& jwks,
                     oauth::MetadataCache& metadata, VaultClient& vault)
    : config_(std::move(config)),
      display_name_(config_.display_name().empty() ? config_.id() : config_.display_name()),
      state_(std::make_unique<State>(std::move(keys), jwks, metadata, vault)) {}

Connector::~Connector() = default;

vault::v1::RecordName Connector::ClientSecretRecord() const {
  return SystemRecord("connector_secret", absl::StrCat(id(), "/client_secret"));
}

absl::StatusOr<std::shared_ptr<const Discovery>> Connector::GetDiscovery(absl::Time now) const {
  if (type() != Type::kOidc || state_->keys.has_value()) {
    return absl::FailedPreconditionError("this connector has no endpoints");
  }
  absl::StatusOr<std::shared_ptr<const Discovery>> discovery = state_->metadata.Get(issuer(), now);
  if (discovery.ok() || absl::IsFailedPrecondition(discovery.status())) {
    return discovery;
  }
  const absl::Status failed = IsNetworkNotAllowed(discovery.status())
                                  ? NetworkNotAllowed(id(), discovery.status())
                                  : KeysUnavailable(absl::StrCat("the metadata of connector ", id(), " cannot be had"));
  return WithRetryAfter(failed, DetailOf(discovery.status()).retry_after);
}

absl::StatusOr<Secret> Connector::GetClientSecret(absl::Time now) const {
  if (!has_client_secret()) {
    return Secret();
  }
  {
    MutexLock lock(state_->mu);
    if (now < state_->secret_at + kSecretKept) {
      return state_->secret.Clone();
    }
  }
  ASSIGN_OR_RETURN(VaultClient::Value value, state_->vault.Get(ClientSecretRecord()));
  MutexLock lock(state_->mu);
  state_->secret = value.payload.Clone();
  state_->secret_at = now;
  return std::move(value.payload);
}

absl::StatusOr<Jwt> Connector::VerifySigned(absl::string_view token, const JwtValidator& validator, absl::Time now,
                                            size_t max_size) const {
  if (type() != Type::kOidc) {
    return InvalidToken("wrong_issuer");
  }
  absl::StatusOr<Jwt> jwt = absl::UnknownError("");
  if (state_->keys.has_value()) {
    jwt = VerifyJwt(token, *state_->keys, validator, now, max_size);
  } else {
    ASSIGN_OR_RETURN(auto discovery, GetDiscovery(now));
    jwt = state_->jwks.Verify(token, discovery->jwks_uri, validator, now, max_size);
  }
  if (!jwt.ok()) {
    return TokenError(jwt.status());
  }
  if (now >= jwt->expires_at()) {
    return InvalidToken("expired");
  }
  return jwt;
}

absl::StatusOr<AcceptedToken> Connector::VerifyPresented(absl::string_view token, const TokenRule& rule,
                                                         absl::Time now) const {
  JwtValidator::Builder builder;
  builder.ExpectIssuer(issuer()).IgnoreType().IgnoreSubject();
  if (rule.audiences.empty()) {
    builder.IgnoreAudience();
  } else {
    builder.ExpectAnyAudience(rule.audiences);
  }
  ASSIGN_OR_RETURN(JwtValidator validator, builder.Build());
  ASSIGN_OR_RETURN(Jwt jwt, VerifySigned(token, validator, now));
  for (const auto& [claim, value] : rule.required_claims) {
    if (!ClaimHolds(jwt, claim, value)) {
      return InvalidToken("required_claim");
    }
  }
  const auto& accept = config_.oidc().accept();
  const auto takes = [&accept](OidcConnector::Accept kind) {
    return std::find(accept.begin(), accept.end(), kind) != accept.end();
  };
  const bool take_access = accept.empty() || takes(OidcConnector::JWT_ACCESS);
  ASSIGN_OR_RETURN(AcceptedKind kind, KindOf(jwt, take_access, takes(OidcConnector::ID_TOKEN)));
  ASSIGN_OR_RETURN(Identity identity, IdentityFromClaims(jwt, kind));
  return AcceptedToken{std::move(identity), kind, ClientId(jwt), Scopes(jwt), jwt.expires_at(), jwt};
}

absl::StatusOr<Identity> Connector::IdentityFromClaims(const Jwt& jwt, AcceptedKind kind) const {
  const OidcConnector& oidc = config_.oidc();
  const std::string& configured =
      kind == AcceptedKind::kIdToken ? oidc.id_token_subject_claim() : oidc.access_token_subject_claim();
  ASSIGN_OR_RETURN(std::string value, SubjectClaim(jwt, configured));
  Identity identity;
  identity.subject = absl::StrCat(id(), ":", value);
  identity.connector = id();
  identity.issuer = issuer();
  identity.email = jwt.String("email").value_or("");
  identity.email_verified = EmailVerified(jwt.json());
  identity.name = jwt.String("name").value_or("");
  identity.groups = Groups(jwt.json(), GroupsClaim(oidc));
  identity.groups_overage = identity.groups.empty() && GroupsLeftOut(jwt.json(), GroupsClaim(oidc));
  return identity;
}

bool Connector::NeedsUserInfo(const Identity& identity) const {
  return identity.email.empty() || identity.name.empty() || identity.groups.empty();
}

bool Connector::AddUserInfo(absl::string_view body, absl::string_view sub, Identity& identity) const {
  const absl::StatusOr<nlohmann::json> claims = ParseJsonObject(body, {.max_bytes = kMaxIdTokenBytes});
  if (!claims.ok() || sub.empty() || JsonString(*claims, "sub") != std::string(sub)) {
    return false;
  }
  // The address and whether it is verified come from one place.
  if (identity.email.empty()) {
    identity.email = JsonString(*claims, "email").value_or("");
    identity.email_verified = !identity.email.empty() && EmailVerified(*claims);
  }
  if (identity.name.empty()) {
    identity.name = JsonString(*claims, "name").value_or("");
  }
  if (identity.groups.empty()) {
    const std::string& claim = GroupsClaim(config_.oidc());
    identity.groups = Groups(*claims, claim);
    identity.groups_overage = identity.groups.empty() && (identity.groups_overage || GroupsLeftOut(*claims, claim));
  }
  return true;
}

Identity Connector::IdentityOfLocalUser(const config::v1::LocalConnector::User& user) const {
  Identity identity;
  identity.subject = absl::StrCat(id(), ":", user.username());
  identity.connector = id();
  identity.issuer = kLocalIssuer;
  identity.email = user.email();
  identity.email_verified = !user.email().empty();
  identity.name = user.name().empty() ? user.username() : user.name();
  identity.groups.assign(user.groups().begin(), user.groups().end());
  return identity;
}

bool Connector::SpeaksFor(absl::string_view email) const {
  const size_t at = email.rfind('@');
  if (at == absl::string_view::npos || at == 0 || email.find('@') != at || at + 1 == email.size()) {
    return false;
  }
  if (type() == Type::kLocal) {
    return true;
  }
  const absl::string_view domain = email.substr(at + 1);
  const auto& domains = config_.oidc().authoritative_domains();
  return std::any_of(domains.begin(), domains.end(),
                     [domain](const std::string& own) { return absl::EqualsIgnoreCase(own, domain); });
}

absl::Status ValidateConnectors(const google::protobuf::RepeatedPtrField<config::v1::Connector>& config) {
  std::vector<absl::Status> checks;
  checks.reserve(static_cast<size_t>(config.size()));
  std::set<std::string> ids;
  for (int i = 0; i < config.size(); ++i) {
    checks.push_back(CheckConnector(absl::StrCat("connectors[", i, "]"), config[i], ids));
  }
  return MergeViolations(checks);
}

Connectors::Connectors(DocumentFetcher& fetcher)
    : metadata_(fetcher, {.timing = kDiscoveryTiming,
                          .urls =
                              [](const std::string& issuer) {
                                return std::vector<std::string>{oauth::OpenIdConfigurationUrl(issuer)};
                              },
                          .check = CheckDiscovery}) {}

absl::StatusOr<std::unique_ptr<Connectors>> Connectors::Create(
    const google::protobuf::RepeatedPtrField<config::v1::Connector>& config, JwksCache& jwks, VaultClient& vault) {
  RETURN_IF_ERROR(ValidateConnectors(config));
  auto connectors = std::unique_ptr<Connectors>(new Connectors(jwks.fetcher()));
  connectors->vault_ = &vault;
  for (const config::v1::Connector& connector : config) {
    std::optional<JwkSet> keys;
    if (const std::string& file = connector.oidc().jwks_file(); !file.empty()) {
      ASSIGN_OR_RETURN(keys, ReadKeys(file));
    }
    connectors->connectors_.push_back(
        std::make_unique<Connector>(connector, std::move(keys), jwks, connectors->metadata_, vault));
    if (connector.has_oidc()) {
      ExposeGroupsOverage(connector.id());
    }
  }
  return connectors;
}

const Connector* Connectors::Find(absl::string_view id) const {
  for (const auto& connector : connectors_) {
    if (connector->id() == id) {
      return connector.get();
    }
  }
  return nullptr;
}

std::optional<Identity> Connectors::Current(const Identity& identity) const {
  const Connector* connector = Find(identity.connector);
  if (connector == nullptr) {
    return std::nullopt;
  }
  if (connector->type() != Connector::Type::kLocal) {
    return identity.issuer == connector->issuer() ? std::optional<Identity>(identity) : std::nullopt;
  }
  for (const auto& user : connector->config().local().users()) {
    if (Identity current = connector->IdentityOfLocalUser(user); current.subject == identity.subject) {
      return current;
    }
  }
  return std::nullopt;
}

bool Connectors::SpeaksFor(const Identity& identity) const {
  const Connector* connector = identity.email_verified ? Find(identity.connector) : nullptr;
  return connector != nullptr && connector->SpeaksFor(identity.email);
}

absl::Status Connectors::StoreClientSecrets() {
  for (const auto& connector : connectors_) {
    if (!connector->has_client_secret()) {
      continue;
    }
    ASSIGN_OR_RETURN(Secret secret, ReadSecretFile(connector->config().oidc().client_secret_file()));
    vault::v1::PutRequest request;
    *request.mutable_record() = connector->ClientSecretRecord();
    request.set_payload(std::string(secret.Expose()));
    // The issuer's metadata names the endpoints to which the broker sends it.
    if (const absl::StatusOr<Url> issuer = Url::Parse(connector->config().oidc().issuer()); issuer.ok()) {
      request.add_origins(issuer->origin());
    }
    request.set_only_if_changed(true);
    request.set_keep_generation(true);
    RETURN_IF_ERROR(vault_->Put(request, "").status());
  }
  return absl::OkStatus();
}

}  // namespace sallyport::authn

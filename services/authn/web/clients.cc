// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/clients.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/oauth/error.h"
#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/json.h"
#include "services/authn/identity.h"

namespace sallyport::authn::web {
namespace {

constexpr size_t kMaxRedirectUris = 10;
constexpr size_t kMaxText = 200;
constexpr absl::Duration kTouchInterval = absl::Hours(1);

absl::Status BadMetadata(absl::string_view message) {
  return WithOAuthError(absl::InvalidArgumentError(message), oauth::kInvalidClientMetadata);
}

absl::Status BadRedirectUri(absl::string_view message) {
  return WithOAuthError(absl::InvalidArgumentError(message), oauth::kInvalidRedirectUri);
}

absl::Status InvalidClient() {
  return WithOAuthError(absl::UnauthenticatedError("the client is unknown or its authentication failed"),
                        oauth::kInvalidClient);
}

// Optional text. Null and "" count as absent: some clients send every field they know.
absl::StatusOr<std::string> TextField(const nlohmann::json& json, const char* name) {
  const nlohmann::json* member = JsonMember(json, name);
  if (member == nullptr || member->is_null()) {
    return std::string();
  }
  const std::optional<std::string> text = JsonString(json, name);
  if (!text.has_value() || text->size() > kMaxText * 4) {
    return BadMetadata(absl::StrCat(name, " must be a string of at most 800 bytes"));
  }
  return *text;
}

absl::StatusOr<std::string> WebAddressField(const nlohmann::json& json, const char* name) {
  ASSIGN_OR_RETURN(std::string text, TextField(json, name));
  if (!text.empty() && !Url::Parse(text).ok()) {
    return BadMetadata(absl::StrCat(name, " must be an http or https address"));
  }
  return text;
}

absl::StatusOr<std::vector<std::string>> RedirectUris(const nlohmann::json& json) {
  std::optional<std::vector<std::string>> uris = JsonStrings(json, "redirect_uris");
  if (!uris.has_value() || uris->empty() || uris->size() > kMaxRedirectUris) {
    return BadRedirectUri("redirect_uris must be a list of 1 to 10 strings");
  }
  for (const std::string& uri : *uris) {
    if (const absl::Status valid = ValidateRedirectUri(uri); !valid.ok()) {
      return BadRedirectUri(valid.message());
    }
  }
  return *std::move(uris);
}

absl::StatusOr<std::vector<std::string>> GrantTypes(const nlohmann::json& json) {
  const std::vector<std::string> ours = {"authorization_code", "refresh_token"};
  if (JsonMember(json, "grant_types") == nullptr) {
    return ours;
  }
  const std::optional<std::vector<std::string>> asked = JsonStrings(json, "grant_types");
  if (!asked.has_value() || std::find(asked->begin(), asked->end(), ours[0]) == asked->end()) {
    return BadMetadata("grant_types must be a list with authorization_code");
  }
  std::vector<std::string> granted = {ours[0]};
  if (std::find(asked->begin(), asked->end(), ours[1]) != asked->end()) {
    granted.push_back(ours[1]);
  }
  return granted;
}

std::string ApplicationType(absl::string_view asked, const std::vector<std::string>& redirect_uris) {
  const bool native = std::all_of(redirect_uris.begin(), redirect_uris.end(),
                                  [](const std::string& uri) { return !absl::StartsWith(uri, "https://"); });
  return native ? "native" : asked == "native" ? "native" : "web";
}

nlohmann::json ToJson(const ClientMetadata& metadata) {
  return {{"client_name", metadata.client_name},
          {"redirect_uris", metadata.redirect_uris},
          {"grant_types", metadata.grant_types},
          {"token_endpoint_auth_method", metadata.token_endpoint_auth_method},
          {"application_type", metadata.application_type},
          {"client_uri", metadata.client_uri},
          {"logo_uri", metadata.logo_uri},
          {"software_id", metadata.software_id},
          {"software_version", metadata.software_version}};
}

absl::Status MakeRoom(Transaction& tx, int max_clients) {
  ASSIGN_OR_RETURN(const std::optional<Row> row, tx.QueryRow("SELECT COUNT(*) AS n FROM clients"));
  const int64_t excess = row->Int("n") - max_clients;
  if (excess <= 0) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(
      const Rows dropped,
      tx.Query("DELETE FROM clients WHERE id IN (SELECT id FROM clients ORDER BY CASE WHEN used_at > created_at"
               " THEN 1 ELSE 0 END, used_at LIMIT :excess) RETURNING id",
               {{"excess", excess}}));
  for (const Row& client : dropped) {
    RETURN_IF_ERROR(tx.Exec("DELETE FROM consents WHERE client_id = :id", {{"id", client.Text("id")}}).status());
  }
  return absl::OkStatus();
}

struct Credentials {
  std::string id;
  std::string secret;
};

// RFC 6749 section 2.3.1 form-encodes both parts before Basic; many clients do not. The identifiers and secrets we
// issue hold no character that differs, so both readings are tried.
std::vector<Credentials> BasicCredentials(absl::string_view header) {
  if (!absl::StartsWithIgnoreCase(header, "basic ")) {
    return {};
  }
  header.remove_prefix(6);
  const absl::StatusOr<std::string> decoded = Base64Decode(header);
  const size_t colon = decoded.ok() ? decoded->find(':') : std::string::npos;
  if (colon == std::string::npos) {
    return {};
  }
  Credentials raw{decoded->substr(0, colon), decoded->substr(colon + 1)};
  std::vector<Credentials> readings = {raw};
  const absl::StatusOr<std::string> id = PercentDecode(raw.id);
  const absl::StatusOr<std::string> secret = PercentDecode(raw.secret);
  if (id.ok() && secret.ok() && (*id != raw.id || *secret != raw.secret)) {
    readings.push_back({*id, *secret});
  }
  return readings;
}

}  // namespace

absl::StatusOr<Client> ClientFromRow(const Row& row) {
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonObject(row.Text("metadata")));
  Client client;
  client.id = row.Text("id");
  client.secret_hash = row.Text("secret_hash");
  client.created_at = row.TimeAt("created_at");
  client.used_at = row.TimeAt("used_at");
  ClientMetadata& metadata = client.metadata;
  metadata.client_name = JsonString(json, "client_name").value_or("");
  metadata.redirect_uris = JsonStrings(json, "redirect_uris").value_or(std::vector<std::string>());
  metadata.grant_types = JsonStrings(json, "grant_types").value_or(std::vector<std::string>());
  metadata.token_endpoint_auth_method = JsonString(json, "token_endpoint_auth_method").value_or("");
  metadata.application_type = JsonString(json, "application_type").value_or("");
  metadata.client_uri = JsonString(json, "client_uri").value_or("");
  metadata.logo_uri = JsonString(json, "logo_uri").value_or("");
  metadata.software_id = JsonString(json, "software_id").value_or("");
  metadata.software_version = JsonString(json, "software_version").value_or("");
  return client;
}

const Client& CommandLineClient() {
  static const auto& client = *[] {
    auto* made = new Client();
    made->id = kCliClientId;
    made->metadata.client_name = "sallyport command line";
    made->metadata.redirect_uris = {"http://127.0.0.1/callback"};  // Any loopback address, see AllowsRedirect.
    made->metadata.grant_types = {"authorization_code", "refresh_token"};
    made->metadata.token_endpoint_auth_method = "none";
    made->metadata.application_type = "native";
    return made;
  }();
  return client;
}

bool ClientMetadata::may_refresh() const {
  return std::find(grant_types.begin(), grant_types.end(), "refresh_token") != grant_types.end();
}

std::string ClientSecretHash(absl::string_view secret) {
  return Base64UrlEncode(HmacSha256("sallyport client secret", secret));
}

absl::StatusOr<ClientMetadata> ParseClientMetadata(absl::string_view text) {
  const absl::StatusOr<nlohmann::json> parsed = ParseJsonObject(text, {.max_bytes = 64 << 10, .max_depth = 8});
  if (!parsed.ok()) {
    return BadMetadata("the body must be a JSON object");
  }
  const nlohmann::json& json = *parsed;
  ClientMetadata metadata;
  ASSIGN_OR_RETURN(metadata.redirect_uris, RedirectUris(json));
  ASSIGN_OR_RETURN(metadata.grant_types, GrantTypes(json));
  if (JsonMember(json, "response_types") != nullptr) {
    const auto types = JsonStrings(json, "response_types");
    if (!types.has_value() || std::find(types->begin(), types->end(), "code") == types->end()) {
      return BadMetadata("response_types must be a list with code");
    }
  }
  ASSIGN_OR_RETURN(metadata.token_endpoint_auth_method, TextField(json, "token_endpoint_auth_method"));
  if (metadata.token_endpoint_auth_method.empty()) {
    metadata.token_endpoint_auth_method = "none";
  }
  if (metadata.token_endpoint_auth_method != "none" && metadata.token_endpoint_auth_method != "client_secret_basic" &&
      metadata.token_endpoint_auth_method != "client_secret_post") {
    return BadMetadata("token_endpoint_auth_method must be none, client_secret_basic or client_secret_post");
  }
  ASSIGN_OR_RETURN(metadata.client_name, TextField(json, "client_name"));
  ASSIGN_OR_RETURN(metadata.software_id, TextField(json, "software_id"));
  ASSIGN_OR_RETURN(metadata.software_version, TextField(json, "software_version"));
  ASSIGN_OR_RETURN(metadata.client_uri, WebAddressField(json, "client_uri"));
  ASSIGN_OR_RETURN(metadata.logo_uri, WebAddressField(json, "logo_uri"));
  ASSIGN_OR_RETURN(const std::string policy_uri, WebAddressField(json, "policy_uri"));
  ASSIGN_OR_RETURN(const std::string tos_uri, WebAddressField(json, "tos_uri"));
  ASSIGN_OR_RETURN(const std::string type, TextField(json, "application_type"));
  metadata.application_type = ApplicationType(type, metadata.redirect_uris);
  return metadata;
}

bool Client::AllowsRedirect(absl::string_view redirect_uri) const {
  if (id == kCliClientId) {
    return IsLoopbackRedirect(redirect_uri) && ValidateRedirectUri(redirect_uri).ok();
  }
  return std::any_of(metadata.redirect_uris.begin(), metadata.redirect_uris.end(),
                     [&](const std::string& registered) { return RedirectUriMatches(registered, redirect_uri); });
}

bool Client::IsApprovedFor(absl::string_view server_slug) const {
  return std::find(approved_servers.begin(), approved_servers.end(), server_slug) != approved_servers.end();
}

absl::StatusOr<Clients::Registered> Clients::Register(const ClientMetadata& metadata, absl::Time now) {
  const bool is_public = metadata.token_endpoint_auth_method == "none";
  const std::string text = DumpJson(ToJson(metadata));
  Registered registered;
  // Not "https://…": that form is a client's metadata document address.
  Client client{MakeUid("clt_"), metadata, "", now, now};
  if (!is_public) {
    registered.secret = Secret(RandomToken("spc_"));
    client.secret_hash = ClientSecretHash(registered.secret.Expose());
  }
  const std::string digest = is_public ? Base64UrlEncode(Sha256(text)) : client.id;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const int64_t inserted,
                     tx.Exec("INSERT INTO clients (id, digest, metadata, secret_hash, created_at, used_at) VALUES"
                             " (:id, :digest, :metadata, :secret_hash, :now, :now) ON CONFLICT (digest) DO NOTHING",
                             {{"id", client.id},
                              {"digest", digest},
                              {"metadata", text},
                              {"secret_hash", client.secret_hash},
                              {"now", now}}));
    registered.existed = inserted == 0;
    if (inserted > 0) {
      registered.client = client;
      return MakeRoom(tx, max_clients_);
    }
    ASSIGN_OR_RETURN(const std::optional<Row> row,
                     tx.QueryRow(absl::StrCat("SELECT ", kClientColumns, " FROM clients WHERE digest = :digest"),
                                 {{"digest", digest}}));
    ASSIGN_OR_RETURN(registered.client, ClientFromRow(*row));
    return absl::OkStatus();
  }));
  return registered;
}

absl::StatusOr<Client> Clients::Find(absl::string_view id) const {
  if (id == kCliClientId) {
    return CommandLineClient();
  }
  for (const Client& client : configured_) {
    if (client.id == id) {
      return client;
    }
  }
  std::optional<Row> row;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(
        row, tx.QueryRow(absl::StrCat("SELECT ", kClientColumns, " FROM clients WHERE id = :id"), {{"id", id}}));
    return absl::OkStatus();
  }));
  if (!row.has_value()) {
    return absl::NotFoundError("no such client");
  }
  return ClientFromRow(*row);
}

absl::Status Clients::TouchConfigured(const std::string& id, absl::Time now) {
  {
    MutexLock lock(mu_);
    auto [touched, first] = touched_.try_emplace(id, now);
    if (!first && touched->second > now - kTouchInterval) {
      return absl::OkStatus();
    }
    touched->second = now;
  }
  return database_.Write([&](Transaction& tx) -> absl::Status {
    return tx
        .Exec(
            "INSERT INTO client_uses (client_id, used_at) VALUES (:id, :now) ON CONFLICT (client_id) DO UPDATE SET"
            " used_at = excluded.used_at",
            {{"id", id}, {"now", now}})
        .status();
  });
}

absl::Status Clients::Touch(const Client& client, absl::Time now) {
  if (client.configured || client.id == kCliClientId) {
    return TouchConfigured(client.id, now);
  }
  if (client.used_at > client.created_at && client.used_at > now - kTouchInterval) {
    return absl::OkStatus();
  }
  return database_.Write([&](Transaction& tx) -> absl::Status {
    return tx.Exec("UPDATE clients SET used_at = :now WHERE id = :id", {{"now", now}, {"id", client.id}}).status();
  });
}

absl::StatusOr<Client> Clients::Authenticate(absl::string_view authorization_header, const Form& body) const {
  std::vector<Credentials> readings;
  if (!authorization_header.empty()) {
    if (body.Has("client_secret")) {
      return WithOAuthError(absl::InvalidArgumentError("the client authenticates in two ways at once"),
                            oauth::kInvalidRequest);
    }
    readings = BasicCredentials(authorization_header);
  } else {
    readings = {{body.Get("client_id"), body.Get("client_secret")}};
  }
  for (const Credentials& reading : readings) {
    if (body.Has("client_id") && body.Get("client_id") != reading.id) {
      continue;
    }
    absl::StatusOr<Client> client = Find(reading.id);
    if (!client.ok() && !absl::IsNotFound(client.status()) && !absl::IsInvalidArgument(client.status())) {
      return client.status();
    }
    // Hashed and compared whatever was found, so that the time tells nothing.
    const std::string hash = ClientSecretHash(reading.secret);
    const bool secret_fits = ConstantTimeEquals(hash, client.ok() ? client->secret_hash : ClientSecretHash(""));
    if (client.ok() && (client->secret_hash.empty() ? reading.secret.empty() : secret_fits)) {
      return client;
    }
  }
  return InvalidClient();
}

absl::StatusOr<bool> Consents::Has(const ConsentKey& key) const {
  bool found = false;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const std::optional<Row> row,
                     tx.QueryRow("SELECT given_at FROM consents WHERE subject = :subject AND client_id = :client_id AND"
                                 " redirect_host = :redirect_host AND server_uid = :server_uid",
                                 {{"subject", key.subject},
                                  {"client_id", key.client_id},
                                  {"redirect_host", key.redirect_host},
                                  {"server_uid", key.server_uid}}));
    found = row.has_value();
    return absl::OkStatus();
  }));
  return found;
}

absl::StatusOr<bool> Consents::TrustsRedirect(const ConsentKey& key) const {
  bool found = false;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(
        const Rows rows,
        tx.Query("SELECT given_at FROM consents WHERE subject = :subject AND client_id = :client_id AND"
                 " redirect_host = :redirect_host LIMIT 1",
                 {{"subject", key.subject}, {"client_id", key.client_id}, {"redirect_host", key.redirect_host}}));
    found = !rows.empty();
    return absl::OkStatus();
  }));
  return found;
}

absl::Status Consents::Give(const ConsentKey& key, absl::Time now) {
  return database_.Write([&](Transaction& tx) -> absl::Status {
    return tx
        .Exec(
            "INSERT INTO consents (subject, client_id, redirect_host, server_uid, given_at) VALUES (:subject, "
            ":client_id,"
            " :redirect_host, :server_uid, :now) ON CONFLICT (subject, client_id, redirect_host, server_uid) DO UPDATE "
            "SET"
            " given_at = excluded.given_at",
            {{"subject", key.subject},
             {"client_id", key.client_id},
             {"redirect_host", key.redirect_host},
             {"server_uid", key.server_uid},
             {"now", now}})
        .status();
  });
}

}  // namespace sallyport::authn::web

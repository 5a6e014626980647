// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/registered_clients.h"

#include <algorithm>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/config/service_config.h"
#include "common/error.h"
#include "common/files.h"
#include "common/status_macros.h"
#include "common/text/utf8.h"
#include "services/authn/identity.h"
#include "services/authn/web/local_programs.h"
#include "services/authn/web/urls.h"

namespace sallyport::authn::web {
namespace {

using config::v1::RegisteredClient;

constexpr size_t kMaxName = 63;
constexpr size_t kMaxDisplayName = 80;
constexpr size_t kMinSecret = 32;
constexpr size_t kMaxSecret = 512;
constexpr int kMaxRedirectUris = 10;

bool IsName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxName && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_islower(static_cast<unsigned char>(c)) || absl::ascii_isdigit(static_cast<unsigned char>(c)) ||
           c == '-';
  });
}

absl::Status CheckSecret(const std::string& field, const std::string& file) {
  if (file.empty()) {
    return InvalidField(field, "is required: a file with the client's secret");
  }
  RETURN_IF_ERROR(CheckSecretFile(field, file));
  ASSIGN_OR_RETURN(const Secret secret, ReadSecretFile(file));
  // RFC 6749 appendix A.2 has no other characters, so each client can send it.
  const bool sendable = std::all_of(secret.Expose().begin(), secret.Expose().end(),
                                    [](char c) { return absl::ascii_isprint(static_cast<unsigned char>(c)); });
  return sendable && secret.Expose().size() >= kMinSecret && secret.Expose().size() <= kMaxSecret
             ? absl::OkStatus()
             : InvalidField(field, "must hold 32 to 512 printable ASCII characters");
}

absl::Status CheckRedirect(const std::string& field, const std::string& uri) {
  if (const absl::Status valid = ValidateRedirectUri(uri); !valid.ok()) {
    return InvalidField(field, valid.message());
  }
  if (!absl::StartsWith(uri, "https://")) {
    return InvalidField(field, "must be https");
  }
  return LeadsToLocalProgram(uri) ? InvalidField(field,
                                                 "leads to a program on the user's computer, which cannot keep "
                                                 "a secret: such clients register themselves")
                                  : absl::OkStatus();
}

absl::Status CheckClient(const std::string& field, const RegisteredClient& client, std::set<std::string>& ids) {
  std::vector<absl::Status> checks;
  const auto refuse = [&](const char* name, absl::string_view message) {
    checks.push_back(InvalidField(absl::StrCat(field, ".", name), message));
  };
  if (!IsName(client.client_id()) || client.client_id() == kCliClientId) {
    refuse("clientId", "must be 1 to 63 of a-z, 0-9 and '-', not 'sallyport-cli'");
  } else if (!ids.insert(client.client_id()).second) {
    refuse("clientId", "occurs twice");
  }
  const std::string& name = client.display_name();
  if (name.size() > kMaxDisplayName || !IsValidUtf8(name) || std::any_of(name.begin(), name.end(), [](char c) {
        return absl::ascii_iscntrl(static_cast<unsigned char>(c));
      })) {
    refuse("displayName", "must be at most 80 bytes without control characters");
  }
  checks.push_back(CheckSecret(field + ".clientSecretFile", client.client_secret_file()));
  if (client.redirect_uris().empty() || client.redirect_uris_size() > kMaxRedirectUris) {
    refuse("redirectUris", "must be a list of 1 to 10 addresses");
  }
  for (int i = 0; i < client.redirect_uris_size(); ++i) {
    checks.push_back(CheckRedirect(absl::StrCat(field, ".redirectUris[", i, "]"), client.redirect_uris(i)));
  }
  for (int i = 0; i < client.approved_servers_size(); ++i) {
    if (!IsName(client.approved_servers(i))) {
      refuse(absl::StrCat("approvedServers[", i, "]").c_str(), "must be the slug of a server");
    }
  }
  return MergeViolations(checks);
}

}  // namespace

absl::Status ValidateRegisteredClients(const google::protobuf::RepeatedPtrField<RegisteredClient>& config) {
  std::vector<absl::Status> checks;
  checks.reserve(static_cast<size_t>(config.size()));
  std::set<std::string> ids;
  for (int i = 0; i < config.size(); ++i) {
    checks.push_back(CheckClient(absl::StrCat("clients[", i, "]"), config[i], ids));
  }
  return MergeViolations(checks);
}

absl::StatusOr<std::vector<Client>> ReadRegisteredClients(
    const google::protobuf::RepeatedPtrField<RegisteredClient>& config) {
  RETURN_IF_ERROR(ValidateRegisteredClients(config));
  std::vector<Client> clients;
  for (const RegisteredClient& entry : config) {
    ASSIGN_OR_RETURN(const Secret secret, ReadSecretFile(entry.client_secret_file()));
    Client client;
    client.id = entry.client_id();
    client.configured = true;
    client.secret_hash = ClientSecretHash(secret.Expose());
    client.approved_servers.assign(entry.approved_servers().begin(), entry.approved_servers().end());
    client.metadata.client_name = entry.display_name().empty() ? entry.client_id() : entry.display_name();
    client.metadata.redirect_uris.assign(entry.redirect_uris().begin(), entry.redirect_uris().end());
    client.metadata.grant_types = {"authorization_code", "refresh_token"};
    client.metadata.token_endpoint_auth_method = "client_secret_basic";
    client.metadata.application_type = "web";
    clients.push_back(std::move(client));
  }
  return clients;
}

}  // namespace sallyport::authn::web

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "common/secret.h"
#include "sallyport/web/v1/web.pb.h"
#include "services/authn/web/urls.h"

namespace sallyport {
class Database;
class Row;
}  // namespace sallyport

namespace sallyport::authn::web {

// What a client says of itself (RFC 7591 section 2), the part we act on or echo.
struct ClientMetadata {
  std::string client_name;
  std::vector<std::string> redirect_uris;
  std::vector<std::string> grant_types;
  // "none", "client_secret_basic" or "client_secret_post".
  std::string token_endpoint_auth_method;
  // "native" or "web".
  std::string application_type;
  std::string client_uri;
  std::string logo_uri;
  std::string software_id;
  std::string software_version;

  bool may_refresh() const;
};

// Pure. INVALID_ARGUMENT with OAuth error invalid_redirect_uri or invalid_client_metadata. Absent method means "none",
// absent grant types mean both of ours; unknown grant types are left out.
absl::StatusOr<ClientMetadata> ParseClientMetadata(absl::string_view json);

struct Client {
  std::string id;
  ClientMetadata metadata;
  // Hash of the secret; empty for public clients.
  std::string secret_hash;
  absl::Time created_at;
  absl::Time used_at = absl::InfiniteFuture();  // Of clients that are in no table: never due.
  // Registered by the administrator, in the configuration.
  bool configured = false;
  // Slugs of the servers for which the administrator has approved it.
  std::vector<std::string> approved_servers;

  // The registered URI that `redirect_uri` is, by RedirectUriMatches.
  bool AllowsRedirect(absl::string_view redirect_uri) const;
  bool IsApprovedFor(absl::string_view server_slug) const;
};

// Of a row of table `clients` with these columns.
inline constexpr char kClientColumns[] = "id, metadata, secret_hash, created_at, used_at";
absl::StatusOr<Client> ClientFromRow(const Row& row);

// The built-in client of `sallyport`, which nobody registers.
const Client& CommandLineClient();

// What is kept of a client's secret.
std::string ClientSecretHash(absl::string_view secret);

// Clients that registered themselves, those of the configuration, and the built-in one of the command line.
// Thread-safe.
class Clients {
 public:
  static constexpr int kMaxClients = 10'000;

  explicit Clients(Database& database, std::vector<Client> configured = {}, int max_clients = kMaxClients)
      : database_(database), configured_(std::move(configured)), max_clients_(max_clients) {}

  struct Registered {
    Client client;
    Secret secret;  // Empty for public clients.
    bool existed = false;
  };
  // Equal metadata of a public client is the same client again. When the table is full, clients that were registered
  // and never used go first, then those unused for longest.
  absl::StatusOr<Registered> Register(const ClientMetadata& metadata, absl::Time now);
  // NOT_FOUND for an unknown id.
  absl::StatusOr<Client> Find(absl::string_view id) const;
  // Remembers that the client is in use; at most one write an hour (of one that registered itself; of others, from each
  // replica).
  absl::Status Touch(const Client& client, absl::Time now);

  // RFC 6749 section 2.3: HTTP Basic (values form-encoded, or as they are), or client_id and client_secret in `body`,
  // but not both; only client_id for public clients. UNAUTHENTICATED invalid_client, one message for an unknown client
  // and a wrong secret; INVALID_ARGUMENT invalid_request for two methods at once.
  absl::StatusOr<Client> Authenticate(absl::string_view authorization_header, const Form& body) const;

 private:
  absl::Status TouchConfigured(const std::string& id, absl::Time now);

  Database& database_;
  const std::vector<Client> configured_;
  const int max_clients_;
  Mutex mu_;
  std::map<std::string, absl::Time> touched_ ABSL_GUARDED_BY(mu_);  // Clients that are in no table.
};

// Consents: (subject, client, redirect host, server uid).
struct ConsentKey {
  std::string subject;
  std::string client_id;
  std::string redirect_host;
  std::string server_uid;
};
class Consents {
 public:
  explicit Consents(Database& database) : database_(database) {}
  absl::StatusOr<bool> Has(const ConsentKey& key) const;
  // Did the subject ever allow this client to get codes at this host?
  absl::StatusOr<bool> TrustsRedirect(const ConsentKey& key) const;
  absl::Status Give(const ConsentKey& key, absl::Time now);

 private:
  Database& database_;
};

}  // namespace sallyport::authn::web

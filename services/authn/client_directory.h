// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "services/authn/grants.h"
#include "services/authn/web/clients.h"

namespace sallyport::authn {

// What is known of clients, and of what people agreed to with them. Thread-safe.
class ClientDirectory {
 public:
  // `database` outlives this. `configured`: clients of the configuration; the command line is one of them.
  // `token_lifetime`: of access tokens, which is what a client without refresh tokens has.
  ClientDirectory(Database& database, std::vector<web::Client> configured, absl::Duration token_lifetime);

  // What a user agreed to for one server, or for the API (no server).
  struct Agreement {
    std::string server_uid;
    bool consent_remembered = false;
    absl::Time agreed_at = absl::InfinitePast();
    absl::Time token_expires_at = absl::InfinitePast();  // InfinitePast: it has no token any more.
  };
  struct OfUser {
    std::string client_id;
    std::string client_name;
    std::vector<Agreement> agreements;
  };
  // By client id; those with a remembered consent or a token.
  absl::StatusOr<std::vector<OfUser>> Of(absl::string_view subject, absl::Time now) const;

  struct Entry {
    web::Client client;
    bool configured = false;  // Or the command line: not registered by itself.
    int64_t users = 0;
    absl::Time used_at = absl::InfinitePast();  // InfinitePast: never, as far as is known.
  };
  struct Page {
    std::vector<Entry> entries;
    std::string next_page_token;
  };
  // Those of the configuration first, then the registered ones, newest first. INVALID_ARGUMENT for a page token that
  // this did not give.
  absl::StatusOr<Page> List(int page_size, const std::string& page_token, absl::Time now) const;

  // Has it registered itself, or is it of the configuration?
  absl::StatusOr<bool> Exists(absl::string_view client_id) const;
  // True if it had registered itself. It can do nothing with that registration any more; its grants are another matter.
  absl::StatusOr<bool> Unregister(absl::string_view client_id);

  absl::StatusOr<bool> HasConsents(const GrantFilter& which) const;
  // How many there were.
  absl::StatusOr<int> ForgetConsents(const GrantFilter& which);

 private:
  // Null if it is none.
  const web::Client* FindConfigured(absl::string_view client_id) const;

  Database& database_;
  const std::vector<web::Client> configured_;
  const absl::Duration token_lifetime_;
};

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "common/caller/passport.h"
#include "common/clock.h"
#include "sallyport/registry/v1/mcp_server.pb.h"
#include "sallyport/token_broker/v1/token_set.pb.h"
#include "sallyport/web/v1/web.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/broker_key.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// The pages of /connect/<server> for people whose identity provider wants them to agree to more before it gives a token
// for that server:
//   GET  /connect/<server>?consent=1[&for=…][&claims=…][&txn=…][&return_to=…]
//       what is asked, and a button; with `for` and `return_to` on to the provider at once
//   POST /connect/<server> with consent=1
//       on to /login, where authn makes the authorization request
//   GET  /connect/<server>/done?consent=1[&return_to=…]
//       they are back
// Thread-safe, blocking.
class ConsentPages {
 public:
  // All outlive this.
  ConsentPages(std::string public_url, std::string host, VaultClient& vault, BrokerKey& key, const AuditLog& audit,
               const Clock& clock)
      : public_url_(std::move(public_url)),
        host_(std::move(host)),
        vault_(vault),
        key_(key),
        audit_(audit),
        clock_(clock) {}

  // A request of somebody who is signed in and may use the server. `return_to` is one that its policy allows.
  struct Visit {
    const web::v1::WebRequest& request;
    const Passport& passport;
    const std::map<std::string, std::string>& fields;
    const registry::v1::McpServer& server;
    const std::string& txn;
    const std::string& return_to;
  };
  // `invited`: the address carries a ticket of ours for this person.
  web::v1::WebResponse Connect(const Visit& visit, bool invited);
  web::v1::WebResponse Done(const Visit& visit);

 private:
  web::v1::WebResponse Show(const Visit& visit);
  web::v1::WebResponse Submit(const Visit& visit);
  // Where the browser goes; recorded before.
  absl::StatusOr<std::string> Begin(const Visit& visit);
  std::string ClaimsOf(const Visit& visit);
  // What they have agreed to last; empty if that is not known.
  v1::TokenSet::Consent Last(const Visit& visit);

  const std::string public_url_;
  const std::string host_;
  VaultClient& vault_;
  BrokerKey& key_;
  const AuditLog& audit_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

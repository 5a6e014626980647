// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/clock.h"
#include "sallyport/token_broker/v1/token_set.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/broker_key.h"
#include "services/token_broker/page_forms.h"
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
  ConsentPages(const PageForms& forms, VaultClient& vault, BrokerKey& key, const AuditLog& audit, const Clock& clock)
      : forms_(forms), vault_(vault), key_(key), audit_(audit), clock_(clock) {}

  // For visitors who may use the server. `invited`: the address carries a ticket of ours for this person.
  web::v1::WebResponse Connect(const PageVisit& visit, bool invited);
  web::v1::WebResponse Done(const PageVisit& visit);

 private:
  web::v1::WebResponse Show(const PageVisit& visit);
  web::v1::WebResponse Submit(const PageVisit& visit);
  // Where the browser goes; recorded before.
  absl::StatusOr<std::string> Begin(const PageVisit& visit);
  std::string ClaimsOf(const PageVisit& visit);
  // What they have agreed to last; empty if that is not known.
  v1::TokenSet::Consent Last(const PageVisit& visit);

  const PageForms& forms_;
  VaultClient& vault_;
  BrokerKey& key_;
  const AuditLog& audit_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

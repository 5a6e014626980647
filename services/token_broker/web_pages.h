// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "services/token_broker/account_pages.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/broker_key.h"
#include "services/token_broker/consent_pages.h"
#include "services/token_broker/credential_pages.h"
#include "services/token_broker/link_progress.h"
#include "services/token_broker/linker.h"
#include "services/token_broker/page_forms.h"
#include "services/token_broker/user_credentials.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// The broker's pages, for people:
//   GET  /connect/<server>[?credential=…][&account=…][&for=…][&txn=…][&return_to=…]
//       what is to be linked, and a button, or the field for a credential of the caller's own; back to txn at once when
//       nothing is missing. With `for` and `return_to` on to the provider at once. `account` is the label of one of
//       several accounts, the server's choice where it is absent.
//   POST /connect/<server>
//       begins the link and goes on to the provider, or stores the credential (200 with a page that navigates: no
//       redirect off the origin may follow a form)
//   GET  /connect/<server>/done[?credential=…][&account=…]
//       it is linked, or stored
//   GET, POST /connect/<server>/confirm
//       see account_pages.h
//   …?platform=…&for=…[&account=…][&scopes=…][&return_to=…]
//       a link that an internal platform made for this user: whoever may use the server
//   …?consent=1
//       see consent_pages.h
//   GET  /callback/<app>
//       the provider's answer; back to return_to, if the link was begun with one
// Who is not signed in goes to /login first. Thread-safe, blocking.
class WebPages {
 public:
  // All outlive this; `verifier` may be null only where no passport is ever sent.
  WebPages(std::string public_url, const ControlStream& control, const PassportVerifier* verifier, VaultClient& vault,
           Linker& linker, UserCredentials& credentials, BrokerKey& key, const AuditLog& audit, const Clock& clock);

  web::v1::WebResponse Handle(const web::v1::WebRequest& request);

 private:
  web::v1::WebResponse Connect(const PageVisit& visit);
  // What people agree to at their identity provider.
  web::v1::WebResponse Consent(const PageVisit& visit, bool done);
  web::v1::WebResponse ShowConnect(const PageVisit& visit);
  web::v1::WebResponse BeginLink(const PageVisit& visit);
  // Without a page of ours in between.
  web::v1::WebResponse LeaveForProvider(const PageVisit& visit);
  // Where the browser goes.
  absl::StatusOr<std::string> Begin(const PageVisit& visit);
  web::v1::WebResponse NotBegun(const PageVisit& visit, const absl::Status& status) const;
  web::v1::WebResponse Done(const PageVisit& visit);
  web::v1::WebResponse Callback(const PageVisit& visit);
  web::v1::WebResponse CallbackError(const PageVisit& visit, const absl::Status& status,
                                     const Linker::Outcome& outcome);
  // A link that an internal platform made for its user; see platform_link.h.
  web::v1::WebResponse ConnectForPlatform(PageVisit& visit, const PlatformLink& link);
  web::v1::WebResponse LinkRefused(const PageVisit& visit, const absl::Status& status) const;
  // Without a button: nothing but the platform's own link would connect what it asked for.
  web::v1::WebResponse PlatformFormTooOld() const;
  // What the provider is asked for.
  std::vector<std::string> ScopesOf(const PageVisit& visit) const;
  web::v1::WebResponse CheckLink(const PageVisit& visit, const std::string& ticket, bool* refused);
  // What the page is about, `credential` being what was asked for; false: not of this server.
  bool Choose(PageVisit& visit, const std::string& credential);
  const std::string& host() const { return forms_.host(); }

  const ControlStream& control_;
  const PassportVerifier* const verifier_;
  Linker& linker_;
  BrokerKey& key_;
  const AuditLog& audit_;
  const Clock& clock_;
  const PageForms forms_;
  const LinkProgress progress_;
  const CredentialPages credential_pages_;
  const AccountPages account_pages_;
  ConsentPages consents_;
};

}  // namespace sallyport::token_broker

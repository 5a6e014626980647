// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "common/web/page.h"
#include "sallyport/web/v1/web.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/broker_key.h"
#include "services/token_broker/connectables.h"
#include "services/token_broker/consent_pages.h"
#include "services/token_broker/linker.h"
#include "services/token_broker/platform/platform_link.h"
#include "services/token_broker/user_credentials.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// The broker's pages, for people:
//   GET  /connect/<server>[?credential=…][&for=…][&txn=…][&return_to=…]
//       what is to be linked, and a button, or the field for a credential of the caller's own; back to txn at once when
//       nothing is missing. With `for` and `return_to` on to the provider at once.
//   POST /connect/<server>
//       begins the link and goes on to the provider, or stores the credential (200 with a page that navigates: no
//       redirect off the origin may follow a form)
//   GET  /connect/<server>/done[?credential=…]
//       it is linked, or stored
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
  struct Visit;
  web::v1::WebResponse Connect(const Visit& visit);
  // What people agree to at their identity provider.
  web::v1::WebResponse Consent(const Visit& visit, bool done);
  web::v1::WebResponse ShowConnect(const Visit& visit);
  web::v1::WebResponse ShowCredential(const Visit& visit, int status, const page::Html& note);
  web::v1::WebResponse EnterCredential(const Visit& visit);
  web::v1::WebResponse BeginLink(const Visit& visit);
  // Without a page of ours in between.
  web::v1::WebResponse LeaveForProvider(const Visit& visit);
  // Where the browser goes.
  absl::StatusOr<std::string> Begin(const Visit& visit);
  web::v1::WebResponse NotBegun(const Visit& visit, const absl::Status& status) const;
  web::v1::WebResponse Done(const Visit& visit);
  web::v1::WebResponse Callback(const Visit& visit);
  web::v1::WebResponse CallbackError(const Visit& visit, const absl::Status& status, const Linker::Outcome& outcome);
  // A link that an internal platform made for its user; see platform_link.h.
  web::v1::WebResponse ConnectForPlatform(Visit& visit, const PlatformLink& link);
  web::v1::WebResponse LinkRefused(const Visit& visit, const absl::Status& status) const;
  // What the provider is asked for.
  static std::vector<std::string> ScopesOf(const Visit& visit);
  web::v1::WebResponse CheckLink(const Visit& visit, const std::string& ticket, bool* refused);
  // What the page is about, `credential` being what was asked for; false: not of this server.
  bool Choose(Visit& visit, const std::string& credential);
  bool IsComplete(const Visit& visit);
  bool IsEntered(const registry::v1::McpServer& server, const registry::v1::Credential& credential,
                 const Passport& passport);
  // Where the browser goes once something of `server` was connected: to the next credential that is missing, else back.
  std::string NextOf(const Visit& visit, const registry::v1::McpServer& server, const std::string& txn,
                     const std::string& return_to, const std::string& done);
  static std::string FormPurpose(const Visit& visit);
  // What a form of the page carries, with which it is known as ours.
  page::Html FormFields(const Visit& visit, const Secret& key) const;
  bool IsOurForm(const Visit& visit);

  const std::string public_url_;
  const std::string host_;
  const ControlStream& control_;
  const PassportVerifier* const verifier_;
  VaultClient& vault_;
  Linker& linker_;
  UserCredentials& credentials_;
  BrokerKey& key_;
  const AuditLog& audit_;
  const Clock& clock_;
  ConsentPages consents_;
};

}  // namespace sallyport::token_broker

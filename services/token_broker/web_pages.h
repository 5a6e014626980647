// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/web/v1/web.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/broker_key.h"
#include "services/token_broker/linker.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// The broker's pages, for people:
//   GET  /connect/<server>[?for=…][&txn=…][&return_to=…]
//       what is to be linked, and a button; back to txn at once when nothing is missing. With `for` and `return_to` on
//       to the provider at once.
//   POST /connect/<server>
//       begins the link and goes on to the provider (200 with a page that navigates: no redirect off the origin may
//       follow a form)
//   GET  /connect/<server>/done
//       the account is linked
//   GET  /callback/<app>
//       the provider's answer; back to return_to, if the link was begun with one
// Who is not signed in goes to /login first. Thread-safe, blocking.
class WebPages {
 public:
  // All outlive this; `verifier` may be null only where no passport is ever sent.
  WebPages(std::string public_url, const ControlStream& control, const PassportVerifier* verifier, VaultClient& vault,
           Linker& linker, BrokerKey& key, const AuditLog& audit, const Clock& clock);

  web::v1::WebResponse Handle(const web::v1::WebRequest& request);

 private:
  struct Visit;
  web::v1::WebResponse Connect(const Visit& visit);
  web::v1::WebResponse ShowConnect(const Visit& visit);
  web::v1::WebResponse BeginLink(const Visit& visit);
  // Without a page of ours in between.
  web::v1::WebResponse LeaveForProvider(const Visit& visit);
  // Where the browser goes.
  absl::StatusOr<std::string> Begin(const Visit& visit);
  web::v1::WebResponse NotBegun(const Visit& visit, const absl::Status& status) const;
  web::v1::WebResponse Done(const Visit& visit);
  web::v1::WebResponse Callback(const Visit& visit);
  web::v1::WebResponse CallbackError(const Visit& visit, const absl::Status& status, const Linker::Outcome& outcome);
  web::v1::WebResponse CheckLink(const Visit& visit, const std::string& ticket, bool* refused);
  bool IsComplete(const Visit& visit);
  std::string FormPurpose(const Visit& visit) const;

  const std::string public_url_;
  std::string host_;
  const ControlStream& control_;
  const PassportVerifier* const verifier_;
  VaultClient& vault_;
  Linker& linker_;
  BrokerKey& key_;
  const AuditLog& audit_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

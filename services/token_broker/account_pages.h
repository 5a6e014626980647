// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

#include "services/token_broker/link_progress.h"
#include "services/token_broker/linker.h"
#include "services/token_broker/page_forms.h"

namespace sallyport::token_broker {

// What people are told of the account that they have linked, where it is not the one that was expected:
//   GET  /connect/<server>/confirm[?account=…][&txn=…][&return_to=…[&back=…]]
//       another one than before; two buttons
//   POST /connect/<server>/confirm
//       it takes the former one's place, or is revoked
// Thread-safe, blocking.
class AccountPages {
 public:
  // All outlive this.
  AccountPages(const PageForms& forms, const LinkProgress& progress, Linker& linker)
      : forms_(forms), progress_(progress), linker_(linker) {}

  web::v1::WebResponse Show(const PageVisit& visit) const;
  web::v1::WebResponse Answer(const PageVisit& visit) const;
  // One that the app does not take: `status` says why.
  web::v1::WebResponse Refused(const registry::v1::App& app, const Passport& passport, const absl::Status& status,
                               const Linker::Outcome& outcome, const page::Html& next) const;
  // Whether it is such a status.
  static bool IsRefusal(const absl::Status& status);

  // Where it is confirmed.
  std::string ConfirmUrl(const registry::v1::McpServer& server, const Linker::Outcome& outcome,
                         const Passport& passport) const;
  // Where the account of this label is connected.
  static std::string ConnectUrl(const registry::v1::McpServer& server, const std::string& account,
                                const std::string& txn, const std::string& return_to);
  // Where it is said that it is connected; and the query of that page.
  static std::string DoneUrl(const registry::v1::McpServer& server, const std::string& account);
  static std::string DoneQuery(const registry::v1::McpServer& server, const std::string& account);

 private:
  // Links for a visitor whose account was not connected.
  page::Html Onward(const PageVisit& visit) const;
  web::v1::WebResponse NotFound(const PageVisit& visit, const absl::Status& status) const;

  const PageForms& forms_;
  const LinkProgress& progress_;
  Linker& linker_;
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/page_visit.h"
#include "services/token_broker/user_credentials.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// How far a visitor is with what a server needs of them. Thread-safe, blocking.
class LinkProgress {
 public:
  // All outlive this.
  LinkProgress(VaultClient& vault, UserCredentials& credentials, const Clock& clock)
      : vault_(vault), credentials_(credentials), clock_(clock) {}

  // A value is stored that may be sent to `server`.
  bool IsEntered(const registry::v1::McpServer& server, const registry::v1::Credential& credential,
                 const Passport& passport) const;
  // What the page is about is there, with everything that its server needs. `account_name`, unless null, is set to what
  // the provider calls the account, if that is known.
  bool IsComplete(const PageVisit& visit, std::string* account_name = nullptr) const;
  // What the account was given by the provider that its app names now; empty if it is not connected.
  std::vector<std::string> GivenScopes(const PageVisit& visit) const;
  // Where the browser goes once something of `server` was connected: to the next credential that is missing, else back.
  std::string NextOf(const PageVisit& visit, const registry::v1::McpServer& server, const std::string& txn,
                     const std::string& return_to, const std::string& done) const;

 private:
  // Null if it is not connected, as far as can be told.
  std::shared_ptr<const ConnectionView> LinkedOf(const PageVisit& visit) const;

  VaultClient& vault_;
  UserCredentials& credentials_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

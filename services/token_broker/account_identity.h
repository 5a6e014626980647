// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/http/client.h"
#include "sallyport/registry/v1/mcp_server.pb.h"
#include "sallyport/token_broker/v1/token_set.pb.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/token_endpoint.h"

namespace sallyport::token_broker {

// Which account a user has linked (App.account_identity): what the ID token says, or the provider's answer to one GET
// with the new access token. What a provider says is bounded, and believed of its own accounts only. Thread-safe,
// blocking for at most 5 s.
class AccountIdentity {
 public:
  // Outlives this.
  explicit AccountIdentity(HttpClient& http) : http_(http) {}

  // An answer that cannot be had, or used, leaves an account without an id: it is not known, which is logged. The
  // access token goes to the origin of the token endpoint, or to one that `binding`, the app's, allows; nowhere else.
  v1::TokenSet::Account Learn(const registry::v1::App& app, const Provider& provider, const TokenAnswer& answer,
                              const SecretReader::Binding& binding);

 private:
  absl::StatusOr<std::string> AskProvider(const std::string& url, const Provider& provider, const TokenAnswer& answer,
                                          const SecretReader::Binding& binding);

  HttpClient& http_;
};

// So that their counters are there from the start.
void ExpectAccountQuestions();

}  // namespace sallyport::token_broker

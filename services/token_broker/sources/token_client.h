// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/clock.h"
#include "common/http/url.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/sources/source.h"
#include "services/token_broker/token_endpoint.h"

namespace sallyport::token_broker {

// The gateway as a client of its own at a token endpoint. Thread-safe, blocking.
class TokenClient {
 public:
  // All outlive this.
  TokenClient(SecretReader& secrets, ClientGrants& endpoint, const Clock& clock)
      : secrets_(secrets), endpoint_(endpoint), clock_(clock) {}

  // Asks with the client's credential, which is sent only where it was entered for, and `fields` beside it. Errors:
  // FAILED_PRECONDITION reason credential_missing, provider_rejects_client, interaction_required or token_refused;
  // PERMISSION_DENIED reason origin_not_allowed; UNAVAILABLE reason provider_unavailable. Their messages name the
  // endpoint's host and the provider's error code, nothing else it said. `claims`: where to put what it wants in the
  // next authorization request of the person; null: nowhere.
  absl::StatusOr<TokenAnswer> Ask(const Plan::Client& client, const FormFields& fields, std::string* claims = nullptr);
  // By client credentials (RFC 6749 section 4.4).
  absl::StatusOr<TokenAnswer> AskForItself(const Plan::Client& client, const Plan::ServiceToken& token);

  // An answer as a connection that came from the client's endpoint.
  std::shared_ptr<ConnectionView> ViewOf(const Plan::Client& client, TokenAnswer answer) const;

 private:
  SecretReader& secrets_;
  ClientGrants& endpoint_;
  const Clock& clock_;
};

// What a provider that people know as `name` refused, for callers. Errors as TokenClient::Ask.
absl::Status RefusalInWords(const ProviderError& failure, absl::string_view name);

// Scopes as a request carries them (RFC 6749 section 3.3); nothing is added if there are none.
void AddScopes(const google::protobuf::RepeatedPtrField<std::string>& scopes, FormFields* fields);
void AddUnlessEmpty(const char* name, const std::string& value, FormFields* fields);

// SHA-256, in hex, of a message in one spelling: of equal messages the same.
std::string DigestOf(const google::protobuf::Message& message);

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/token_client.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

std::string HostOf(const Plan::Client& client) {
  const absl::StatusOr<Url> url = Url::Parse(client.token_url());
  return url.ok() ? url->host() : "the token endpoint";
}

// Refusals that asking again does not change (RFC 6749 section 5.2, RFC 8693 section 2.2.2, RFC 8707 section 2).
bool IsRefusal(const std::string& code) {
  static constexpr std::array<absl::string_view, 8> kRefusals = {
      "invalid_request", "invalid_grant",  "unauthorized_client", "unsupported_grant_type",
      "invalid_scope",   "invalid_target", "access_denied",       "unsupported_token_type"};
  return std::find(kRefusals.begin(), kRefusals.end(), code) != kRefusals.end();
}

}  // namespace

absl::Status RefusalInWords(const ProviderError& failure, absl::string_view name) {
  if (failure.failure == ProviderFailure::kInteractionRequired) {
    return WithDetail(absl::FailedPreconditionError(
                          absl::StrCat(name, " wants something of you before it gives a token for this server (",
                                       failure.code, "): sign in there, agree to what it asks, and try again")),
                      {.oauth_error = failure.code, .reason = kNeedsInteraction});
  }
  if (RejectsClient(failure.code) || failure.failure == ProviderFailure::kClientRejected) {
    return NameProvider(ProviderUnavailable(failure.code, failure.retry_after), name);
  }
  if (failure.failure == ProviderFailure::kInvalidGrant || IsRefusal(failure.code)) {
    return WithDetail(
        absl::FailedPreconditionError(absl::StrCat(name, " refuses to give a token for this server (", failure.code,
                                                   "); its administrator can correct how it is configured there")),
        {.oauth_error = failure.code, .reason = kTokenRefused});
  }
  return NameProvider(ProviderUnavailable(failure.code, failure.retry_after), name);
}

void AddScopes(const google::protobuf::RepeatedPtrField<std::string>& scopes, FormFields* fields) {
  if (!scopes.empty()) {
    fields->emplace_back("scope", absl::StrJoin(scopes, " "));
  }
}

void AddUnlessEmpty(const char* name, const std::string& value, FormFields* fields) {
  if (!value.empty()) {
    fields->emplace_back(name, value);
  }
}

std::string DigestOf(const google::protobuf::Message& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // Maps have no order of their own.
    message.SerializeWithCachedSizes(&coded);
  }
  return HexEncode(Sha256(bytes));
}

absl::StatusOr<TokenAnswer> TokenClient::Ask(const Plan::Client& client, const FormFields& fields,
                                             std::string* claims) {
  if (client.secret().record().empty()) {
    return error::CredentialMissing("a client secret or private key has no stored value; enter it again");
  }
  Provider provider;
  provider.connection = client.secret().record();
  provider.token_url = client.token_url();
  provider.client_id = client.client_id();
  provider.token_params = {client.params().begin(), client.params().end()};
  switch (client.authentication()) {
    case Plan::Client::CLIENT_SECRET_BASIC:
      provider.client_auth = Provider::ClientAuth::kBasic;
      break;
    case Plan::Client::CLIENT_SECRET_POST:
      provider.client_auth = Provider::ClientAuth::kPost;
      break;
    case Plan::Client::PRIVATE_KEY_JWT:
      provider.client_auth = Provider::ClientAuth::kPrivateKeyJwt;
      provider.key_id = client.key_id();
      break;
    default:
      return error::CredentialMissing("the client authenticates in a way this broker does not know");
  }
  // Before anything else that the request carries is touched: it goes nowhere the client is not meant for.
  ASSIGN_OR_RETURN(provider.client_secret, secrets_.Read(OrganizationRecord("server_secret", client.secret().record()),
                                                         client.secret().version(), {OriginOf(client.token_url())}));
  TokenResult result = endpoint_.Ask(provider, fields);
  if (const auto* failure = std::get_if<ProviderError>(&result); failure != nullptr) {
    if (claims != nullptr) {
      *claims = failure->claims;
    }
    return RefusalInWords(*failure, HostOf(client));
  }
  return std::get<TokenAnswer>(std::move(result));
}

absl::StatusOr<TokenAnswer> TokenClient::AskForItself(const Plan::Client& client, const Plan::ServiceToken& token) {
  FormFields fields = {{"grant_type", "client_credentials"}};
  AddScopes(token.scopes(), &fields);
  AddUnlessEmpty("audience", token.audience(), &fields);
  AddUnlessEmpty("resource", token.resource(), &fields);
  return Ask(client, fields);
}

std::shared_ptr<ConnectionView> TokenClient::ViewOf(const Plan::Client& client, TokenAnswer answer) const {
  auto view = std::make_shared<ConnectionView>();
  view->state = ConnectionView::State::kLinked;
  view->access_token = std::move(answer.access_token);
  view->times.obtained_at = clock_.Now();
  if (answer.expires_in.has_value()) {
    view->times.expires_at = view->times.obtained_at + *answer.expires_in;
  }
  view->provenance.set_token_origin(OriginOf(client.token_url()));
  view->provenance_sealed = true;
  return view;
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/http/url.h"
#include "common/secret.h"

namespace sallyport::token_broker {

// An OAuth client at a provider: what it takes to ask for tokens. Client secrets are handed in, never kept.
struct Provider {
  enum class ClientAuth { kPost, kBasic, kNone, kPrivateKeyJwt };

  // "<app uid>" or "sso:<connector>".
  std::string connection;
  std::string issuer;         // Empty: unknown.
  bool iss_promised = false;  // The metadata promises `iss` in authorization responses (RFC 9207 section 3).
  std::string authorization_url;
  std::string token_url;
  std::string revocation_url;  // Empty: cannot revoke, or, if metadata_missing, not known.
  // The issuer's metadata cannot be had at the moment, so that revocation_url and iss_promised are only what the
  // configuration says. Nothing is concluded from what they lack.
  bool metadata_missing = false;
  std::string client_id;
  std::shared_ptr<const Secret> client_secret;  // Null for public clients. Of kPrivateKeyJwt the key, in PEM.
  std::string key_id;                           // Of kPrivateKeyJwt: `kid`; the key's thumbprint when empty.
  ClientAuth client_auth = ClientAuth::kPost;
  std::map<std::string, std::string> token_params;
};

// What a token endpoint gave (RFC 6749 section 5.1).
struct TokenAnswer {
  Secret access_token;   // Empty only if a refresh gave a new refresh token and nothing usable beside it.
  Secret refresh_token;  // Empty: none returned; on refresh the old one goes on (section 6).
  Secret id_token;
  std::optional<std::vector<std::string>> scopes;  // Absent: as asked.
  std::optional<absl::Duration> expires_in;        // Absent: not said, or not believable.
  std::string issued_token_type;                   // RFC 8693 section 2.2.1; empty: not said.
};

enum class ProviderFailure {
  // The grant is gone: exactly invalid_grant (or its equivalent).
  kInvalidGrant,
  // The user must do something at the provider; the grant lives.
  kInteractionRequired,
  // Exactly invalid_client: our registration, not the user.
  kClientRejected,
  // A refresh was refused (unauthorized_client, a 403, an error with status 200), which may be this grant's end or not.
  // Says nothing about other grants.
  kGrantDoubted,
  // A refresh was answered with success, and neither an access token nor a new refresh token.
  kNoAccessToken,
  kRateLimited,
  // Answered, but not with tokens: 5xx, HTML, malformed or incomplete JSON, an error that says nothing about the grant.
  kUnavailable,
  // Nothing was sent: DNS, connection refused, TLS, our own breaker or bulkhead.
  kNotSent,
  // Sent, and no complete answer came: it may have taken effect.
  kAmbiguous,
};

struct ProviderError {
  ProviderFailure failure = ProviderFailure::kUnavailable;
  // The OAuth error code if it is one of printable ASCII up to 64 bytes, or a word of ours ("timeout"). Never a
  // description.
  std::string code;
  absl::Duration retry_after = absl::ZeroDuration();
  // Of kInteractionRequired: what the provider wants to find in the next authorization request
  // (oauth::ClaimsParameter); empty: nothing.
  std::string claims;
  // Of kGrantDoubted: the code or the description says that the refresh token is at fault.
  bool blames_refresh_token = false;
};

using TokenResult = std::variant<TokenAnswer, ProviderError>;

enum class RevocationResult {
  kRevoked,
  kRetry,    // The provider did not answer, or not us.
  kRefused,  // It answered, and does not take this token.
  kUnsupported,
};

// The network seam: calls to providers. Every call ends within 10 s. Thread-safe, blocking.
class TokenEndpoint {
 public:
  virtual ~TokenEndpoint() = default;
  // RFC 6749 section 4.1.3 with PKCE (an empty verifier is left out).
  virtual TokenResult ExchangeCode(const Provider& provider, const Secret& code, const std::string& redirect_uri,
                                   const Secret& code_verifier) = 0;
  // RFC 6749 section 6.
  virtual TokenResult Refresh(const Provider& provider, const Secret& refresh_token) = 0;
  // RFC 7009. `hint` is "refresh_token" or "access_token".
  virtual RevocationResult Revoke(const Provider& provider, const Secret& token, absl::string_view hint) = 0;
};

// The same seam for grants that are lost without loss: what they gave can be asked for again.
class ClientGrants {
 public:
  virtual ~ClientGrants() = default;
  // `fields` are the grant's; what the client authenticates with is added.
  virtual TokenResult Ask(const Provider& provider, const FormFields& fields) = 0;
};

}  // namespace sallyport::token_broker

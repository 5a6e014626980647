// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/jose/jwt.h"
#include "common/secret.h"
#include "sallyport/config/v1/services.pb.h"
#include "services/authn/discovery.h"
#include "services/authn/identity.h"
#include "services/authn/jwks_cache.h"
#include "services/authn/vault_client.h"

namespace sallyport::authn {

// What an ID token must say beside what every token of a connector must (signature, iss, aud = client_id, exp, iat).
struct IdTokenExpectation {
  // OpenID Connect Core 3.1.3.7 (11); required.
  std::string nonce;
  // When given and the token has at_hash, they must match (3.1.3.8).
  std::string access_token;
};

// Who an ID token names. `sub` is its bare claim: what UserInfo must repeat (OpenID Connect Core 5.3.2).
struct SignInIdentity {
  Identity identity;
  std::string sub;
};

enum class AcceptedKind { kAccessToken, kIdToken };

// Rules a server sets for tokens of a connector.
struct TokenRule {
  // The token's audience must hold one of these, exactly. Empty: any audience (Require JWT Validation without
  // audience).
  std::vector<std::string> audiences;
  // Claims that must have, or (arrays) hold, exactly this value.
  std::map<std::string, std::string> required_claims;
};

// A token that was accepted: who, which kind, and the token itself.
struct AcceptedToken {
  Identity identity;
  AcceptedKind kind = AcceptedKind::kAccessToken;
  std::string client_id;
  std::vector<std::string> scopes;
  absl::Time expires_at = absl::InfinitePast();
  Jwt jwt;
};

// One way to sign in and one issuer whose tokens may be accepted. Immutable but for caches; thread-safe.
class Connector {
 public:
  // The issuer itself hands an ID token to us, so it may be larger than what a caller sends in a header: one that names
  // 200 groups is.
  static constexpr size_t kMaxIdTokenBytes = 64 << 10;

  enum class Type { kOidc, kLocal };

  // `keys`: those of jwks_file, or none.
  Connector(config::v1::Connector config, std::optional<JwkSet> keys, JwksCache& jwks, oauth::MetadataCache& metadata,
            VaultClient& vault);
  ~Connector();

  const std::string& id() const { return config_.id(); }
  // Never empty.
  const std::string& display_name() const { return display_name_; }
  Type type() const { return config_.has_local() ? Type::kLocal : Type::kOidc; }
  // The configuration message: scopes, authorization_params, local users.
  const config::v1::Connector& config() const { return config_; }
  const std::string& issuer() const { return config_.oidc().issuer(); }
  const std::string& client_id() const { return config_.oidc().client_id(); }
  // People can sign in with it: local, or OIDC with a client_id.
  bool can_sign_in() const { return type() == Type::kLocal || !client_id().empty(); }
  bool has_client_secret() const { return !config_.oidc().client_secret_file().empty(); }

  // Fetched on first use, again after an hour; the last good one is used for 24 h while the issuer is down.
  // UNAVAILABLE if it cannot be had (reason "network_not_allowed" if the issuer may not be asked), FAILED_PRECONDITION
  // if it is not this issuer's (another `issuer`, missing endpoints).
  absl::StatusOr<std::shared_ptr<const Discovery>> GetDiscovery(absl::Time now) const;
  // From the vault, which got it at start; kept a minute. Empty for public clients.
  absl::StatusOr<Secret> GetClientSecret(absl::Time now) const;

  // The vault record of the client secret.
  vault::v1::RecordName ClientSecretRecord() const;

  // The ID token of a sign-in (OpenID Connect Core 3.1.3.7; RFC 7519). Its azp, if there, must be our client_id, and
  // must be there with several audiences. UNAUTHENTICATED if refused, UNAVAILABLE if keys cannot be had.
  absl::StatusOr<SignInIdentity> VerifyIdToken(absl::string_view jwt, const IdTokenExpectation& expected,
                                               absl::Time now) const;

  // Does the ID token leave open what rules and headers may ask for? Many issuers put the claims of the scopes `email`
  // and `profile` into UserInfo alone (OpenID Connect Core 5.4).
  bool NeedsUserInfo(const Identity& identity) const;
  // Adds what `identity` lacks from a UserInfo response (OpenID Connect Core 5.3.2). False, and nothing is added, if it
  // is no JSON object or its `sub` is another one.
  bool AddUserInfo(absl::string_view body, absl::string_view sub, Identity& identity) const;

  // A token of this issuer that a caller presents at door one, of a kind the connector accepts: an access token must
  // not look like an ID token (nonce, at_hash, c_hash, typ id+jwt), and the reverse. Errors as VerifyIdToken.
  absl::StatusOr<AcceptedToken> VerifyPresented(absl::string_view token, const TokenRule& rule, absl::Time now) const;

  // Subject by this connector's rule for the token kind; UNAUTHENTICATED if a claim it needs will not do
  // (SubjectClaim).
  absl::StatusOr<Identity> IdentityFromClaims(const Jwt& jwt, AcceptedKind kind) const;
  // A local user, by configuration; email counts as verified.
  Identity IdentityOfLocalUser(const config::v1::LocalConnector::User& user) const;

  // May this connector say who owns `email`? Local ones may; others for their authoritative_domains (last '@', exactly
  // one, case-insensitive).
  bool SpeaksFor(absl::string_view email) const;

 private:
  struct State;
  // Signature and what `validator` checks; one more fetch of the keys if the kid is new.
  absl::StatusOr<Jwt> VerifySigned(absl::string_view token, const JwtValidator& validator, absl::Time now,
                                   size_t max_size = kMaxJwsSize) const;

  config::v1::Connector config_;
  std::string display_name_;
  std::unique_ptr<State> state_;
};

// INVALID_ARGUMENT with the fields for: bad, reserved or repeated id, no type, issuer not https (loopback may be http),
// jwks_file unusable or together with client_id, client_secret_file unusable or without client_id, local users without
// name or hash or with the same name.
absl::Status ValidateConnectors(const google::protobuf::RepeatedPtrField<config::v1::Connector>& config);

// All connectors of the configuration.
class Connectors {
 public:
  // Errors as ValidateConnectors. `jwks` and `vault` must outlive this.
  static absl::StatusOr<std::unique_ptr<Connectors>> Create(
      const google::protobuf::RepeatedPtrField<config::v1::Connector>& config, JwksCache& jwks, VaultClient& vault);

  // nullptr if there is none.
  const Connector* Find(absl::string_view id) const;
  // In the order of the configuration.
  const std::vector<std::unique_ptr<Connector>>& all() const { return connectors_; }
  // A signed-in user as the configuration has them now: local users with their present groups, others as they were.
  // Nothing if the connector, or the local user, is gone: sessions and grants outlive a change of the configuration.
  std::optional<Identity> Current(const Identity& identity) const;
  // Is the connector of `identity` the one who may say who owns its email, and does it say so?
  bool SpeaksFor(const Identity& identity) const;

  // Moves client_secret_file contents into the vault (only if changed). UNAVAILABLE while the vault is; call again.
  absl::Status StoreClientSecrets();

 private:
  explicit Connectors(DocumentFetcher& fetcher);
  oauth::MetadataCache metadata_;
  std::vector<std::unique_ptr<Connector>> connectors_;
  VaultClient* vault_ = nullptr;
};

}  // namespace sallyport::authn

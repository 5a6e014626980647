// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>

#include "common/jose/jwk.h"

namespace sallyport {

// A JWT of at most 5 minutes, minted by authn, that lets one service act for one user at another. Claims:
//   iss public_url · aud "sallyport-internal" · sub subject · exp, iat, jti · sid session id · email, email_verified,
//   name, groups · client_id · roles ["auditor", "credential-admin", "admin"] · srv server uid · purpose · link (server
//   uids) · act {"sub"} (RFC 8693 section 4.1) · apps (slugs) · end [subject, app uid, label]
// Signed ES256, typ "sallyport-passport+jwt".
struct Passport {
  enum class Purpose { kCall, kApi, kLink, kSignIn, kPlatform, kEnd };

  std::string subject;
  std::string session_id;
  std::string email;
  bool email_verified = false;
  std::string name;
  std::vector<std::string> groups;
  std::string client_id;
  std::vector<std::string> roles;
  std::string server_uid;                     // kCall: the server it was made for.
  std::vector<std::string> link_server_uids;  // kLink: enabled servers of the app this user may call.
  // kPlatform: id of the internal platform that acts for `subject`, and slugs of the apps it was granted ("*": all).
  std::string actor;
  std::vector<std::string> apps;
  // kEnd: what may be ended with it, by `subject`'s word.
  struct End {
    std::string subject;      // Empty: of everybody.
    std::string app_uid;      // Empty: everything of `subject`.
    std::string label = "*";  // Of the account; "*": every one.
    friend bool operator==(const End& a, const End& b) = default;
  };
  End end;
  Purpose purpose = Purpose::kCall;
  absl::Time issued_at = absl::InfinitePast();
  absl::Time expires_at = absl::InfinitePast();
  // As received, to be attached to further RPCs.
  std::string jwt;

  // False in passports of every other purpose than api: what an administrator's calls to servers pass through must not
  // be able to act as an administrator.
  bool HasRole(absl::string_view role) const;
};

inline constexpr char kPassportAudience[] = "sallyport-internal";
inline constexpr char kPassportType[] = "sallyport-passport+jwt";
// No passport lives longer.
inline constexpr absl::Duration kPassportLifetime = absl::Minutes(5);

// Claim `purpose`: "call", "api", "link", "sign_in", "platform", "end".
absl::string_view PurposeName(Passport::Purpose purpose);

// The signed JWT, as Verify takes it; the only place that knows the claim layout. `passport.jwt` is ignored; issued_at
// is `now`, and expires_at is cut to kPassportLifetime from then (all of it when unset). `jti` is random.
// INVALID_ARGUMENT without a subject, without `actor` for kPlatform, and for kEnd if nothing is named.
absl::StatusOr<std::string> SignPassport(const Passport& passport, absl::string_view issuer, const PrivateKey& key,
                                         absl::Time now);

// Fetches the public keys; called rarely (at start, on an unknown kid at most every 10 s, and every 5 min).
class PassportKeySource {
 public:
  virtual ~PassportKeySource() = default;
  // JWKS document.
  virtual absl::StatusOr<std::string> FetchJwks() = 0;
};

// Asks authn.v1.Authn/GetKeys over a channel; 5 s a call.
class RpcKeySource final : public PassportKeySource {
 public:
  explicit RpcKeySource(std::shared_ptr<grpc::Channel> authn) : authn_(std::move(authn)) {}
  absl::StatusOr<std::string> FetchJwks() override;

 private:
  std::shared_ptr<grpc::Channel> authn_;
};

// Verifies passports with keys fetched on demand. Thread-safe. Verified passports are remembered by SHA-256 until they
// expire, so that a repeated passport costs no signature check.
class PassportVerifier {
 public:
  PassportVerifier(std::string issuer, std::unique_ptr<PassportKeySource> keys);
  ~PassportVerifier();
  // UNAUTHENTICATED if it does not verify or has expired (no leeway), UNAVAILABLE if keys cannot be had.
  absl::StatusOr<Passport> Verify(absl::string_view jwt, absl::Time now) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sallyport

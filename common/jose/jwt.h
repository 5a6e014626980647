// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <nlohmann/json_fwd.hpp>

#include "common/jose/jwk.h"
#include "common/jose/jws.h"

namespace sallyport {

// The claims of a JWT (RFC 7519). Immutable, thread-safe, cheap to copy. VerifyJwt returns only verified and validated
// ones.
class Jwt {
 public:
  // UNAUTHENTICATED unless the payload is a JSON object without duplicate names, at most 16 levels deep.
  static absl::StatusOr<Jwt> FromJws(Jws jws);

  const std::string& typ() const;  // Lower case, without "application/".
  const std::optional<std::string>& kid() const;
  JwsAlgorithm algorithm() const;

  // Nothing if absent or of another type.
  std::optional<std::string> String(const char* claim) const;
  std::optional<int64_t> Int(const char* claim) const;
  std::optional<bool> Bool(const char* claim) const;
  std::optional<std::vector<std::string>> Strings(const char* claim) const;
  bool Has(const char* claim) const;
  // NumericDate as a whole number of seconds; nothing for fractions, negative or absurd values.
  std::optional<absl::Time> Time(const char* claim) const;

  std::string issuer() const { return String("iss").value_or(""); }
  std::string subject() const { return String("sub").value_or(""); }
  // A single string counts as a list of one.
  std::vector<std::string> audiences() const;
  // InfinitePast if absent.
  absl::Time expires_at() const { return Time("exp").value_or(absl::InfinitePast()); }
  // All claims; include common/text/json.h to use it.
  const nlohmann::json& json() const;

 private:
  struct Data;
  explicit Jwt(std::shared_ptr<const Data> data) : data_(std::move(data)) {}
  std::shared_ptr<const Data> data_;
};

// What a JWT must say. Each check is either required or ignored by name; Build refuses a validator that is silent about
// one.
class JwtValidator {
 public:
  class Builder {
   public:
    // Byte for byte.
    Builder& ExpectIssuer(std::string issuer);
    Builder& IgnoreIssuer();
    // One of the token's audiences equals one of these byte for byte.
    Builder& ExpectAudience(std::string audience);
    Builder& ExpectAnyAudience(std::vector<std::string> audiences);
    Builder& IgnoreAudience();
    // "at+jwt"; compared case-insensitively without "application/". Several calls: any of them. An empty type: absent
    // is accepted.
    Builder& ExpectType(absl::string_view typ);
    Builder& IgnoreType();
    // "sub" is a non-empty string.
    Builder& RequireSubject();
    Builder& IgnoreSubject();
    // exp is required unless this is called. If present it is always checked.
    Builder& AllowMissingExpiration();
    Builder& RequireIssuedAt();
    // Only these algorithms; all that the keys support if never called.
    Builder& AllowAlgorithm(JwsAlgorithm algorithm);
    // For tokens that we sign ourselves: ES256, of whose two spellings only the one we write is accepted (low_s.h).
    Builder& RequireLowS();
    // 30 s if never called; at most 10 min.
    Builder& ClockSkew(absl::Duration skew);
    // FAILED_PRECONDITION if issuer, audience, type or subject is undecided or decided both ways.
    absl::StatusOr<JwtValidator> Build() const;

   private:
    friend class JwtValidator;
    std::optional<std::string> issuer_;
    bool ignore_issuer_ = false;
    std::vector<std::string> audiences_;
    bool ignore_audience_ = false;
    std::set<std::string> types_;
    bool ignore_type_ = false;
    bool require_subject_ = false;
    bool ignore_subject_ = false;
    bool allow_missing_expiration_ = false;
    bool require_issued_at_ = false;
    std::set<JwsAlgorithm> algorithms_;
    bool require_low_s_ = false;
    absl::Duration skew_ = absl::Seconds(30);
  };

  // UNAUTHENTICATED with a reason: "expired", "not_yet_valid", "wrong_issuer", "wrong_audience", "wrong_type",
  // "bad_subject", "algorithm", "bad_time". Valid while now < exp + skew.
  absl::Status Validate(const Jwt& jwt, absl::Time now) const;
  // UNAUTHENTICATED reason "bad_signature" for a valid signature in the spelling that RequireLowS excludes.
  absl::Status CheckSpelling(const Jws& jws) const;

 private:
  explicit JwtValidator(Builder rules) : rules_(std::move(rules)) {}
  Builder rules_;
};

// Signature first, then the claims. Errors: as VerifyJws (NOT_FOUND: unknown key) and Validate.
absl::StatusOr<Jwt> VerifyJwt(absl::string_view token, const JwkSet& keys, const JwtValidator& validator,
                              absl::Time now, size_t max_size = kMaxJwsSize);

// "iss", "kid" and "iat" of something that looks like a JWT, unverified: only good for choosing whose keys to try, for
// refusing, and for saying why.
struct UnverifiedJwt {
  std::string issuer;
  std::optional<std::string> kid;
  std::optional<absl::Time> issued_at;
};
std::optional<UnverifiedJwt> PeekJwt(absl::string_view token, size_t max_size = kMaxJwsSize);

// ES256; `claims` must be an object.
absl::StatusOr<std::string> SignJwt(const nlohmann::json& claims, absl::string_view typ, const PrivateKey& key);

}  // namespace sallyport

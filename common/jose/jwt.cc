// SPDX-License-Identifier: Apache-2.0
#include "common/jose/jwt.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/jose/low_s.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/json.h"

namespace sallyport {
namespace {

constexpr JsonLimits kClaimLimits = {.max_bytes = 64 << 10, .max_depth = 16, .max_keys = 2000};
constexpr int64_t kMaxNumericDate = 253'402'300'799;  // The end of the year 9999.

absl::Status Refused(absl::string_view reason, absl::string_view message) {
  return WithReason(absl::UnauthenticatedError(message), reason);
}

}  // namespace

struct Jwt::Data {
  std::string typ;
  std::optional<std::string> kid;
  JwsAlgorithm algorithm;
  nlohmann::json claims;
};

absl::StatusOr<Jwt> Jwt::FromJws(Jws jws) {
  auto claims = ParseJsonObject(jws.payload, kClaimLimits);
  if (!claims.ok()) return absl::UnauthenticatedError("token: payload is not a JSON object we take");
  return Jwt(
      std::make_shared<const Data>(Data{std::move(jws.typ), std::move(jws.kid), jws.algorithm, *std::move(claims)}));
}

const std::string& Jwt::typ() const { return data_->typ; }
const std::optional<std::string>& Jwt::kid() const { return data_->kid; }
JwsAlgorithm Jwt::algorithm() const { return data_->algorithm; }
std::optional<std::string> Jwt::String(const char* claim) const { return JsonString(data_->claims, claim); }
std::optional<int64_t> Jwt::Int(const char* claim) const { return JsonInt(data_->claims, claim); }
std::optional<bool> Jwt::Bool(const char* claim) const { return JsonBool(data_->claims, claim); }
std::optional<std::vector<std::string>> Jwt::Strings(const char* claim) const {
  return JsonStrings(data_->claims, claim);
}
bool Jwt::Has(const char* claim) const { return data_->claims.contains(claim); }
const nlohmann::json& Jwt::json() const { return data_->claims; }

std::optional<absl::Time> Jwt::Time(const char* claim) const {
  const auto seconds = Int(claim);
  if (!seconds || *seconds < 0 || *seconds > kMaxNumericDate) return std::nullopt;
  return absl::FromUnixSeconds(*seconds);
}

std::vector<std::string> Jwt::audiences() const {
  if (auto single = String("aud")) return {*std::move(single)};
  return Strings("aud").value_or(std::vector<std::string>{});
}

JwtValidator::Builder& JwtValidator::Builder::ExpectIssuer(std::string issuer) {
  issuer_ = std::move(issuer);
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::IgnoreIssuer() {
  ignore_issuer_ = true;
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::ExpectAudience(std::string audience) {
  audiences_.push_back(std::move(audience));
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::ExpectAnyAudience(std::vector<std::string> audiences) {
  for (std::string& audience : audiences) audiences_.push_back(std::move(audience));
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::IgnoreAudience() {
  ignore_audience_ = true;
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::ExpectType(absl::string_view typ) {
  std::string lower = absl::AsciiStrToLower(typ);
  types_.insert(absl::StartsWith(lower, "application/") ? lower.substr(12) : lower);
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::IgnoreType() {
  ignore_type_ = true;
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::RequireSubject() {
  require_subject_ = true;
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::IgnoreSubject() {
  ignore_subject_ = true;
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::AllowMissingExpiration() {
  allow_missing_expiration_ = true;
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::RequireIssuedAt() {
  require_issued_at_ = true;
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::AllowAlgorithm(JwsAlgorithm algorithm) {
  algorithms_.insert(algorithm);
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::RequireLowS() {
  require_low_s_ = true;
  return *this;
}
JwtValidator::Builder& JwtValidator::Builder::ClockSkew(absl::Duration skew) {
  skew_ = skew;
  return *this;
}

absl::StatusOr<JwtValidator> JwtValidator::Builder::Build() const {
  if (issuer_.has_value() == ignore_issuer_) return absl::FailedPreconditionError("issuer: expect it or ignore it");
  if (issuer_ && issuer_->empty()) return absl::FailedPreconditionError("issuer: must not be empty");
  if (audiences_.empty() != ignore_audience_) return absl::FailedPreconditionError("audience: expect it or ignore it");
  if (std::find(audiences_.begin(), audiences_.end(), "") != audiences_.end()) {
    return absl::FailedPreconditionError("audience: must not be empty");
  }
  if (types_.empty() != ignore_type_) return absl::FailedPreconditionError("type: expect it or ignore it");
  if (require_subject_ == ignore_subject_) return absl::FailedPreconditionError("subject: require it or ignore it");
  if (skew_ < absl::ZeroDuration() || skew_ > absl::Minutes(10)) {
    return absl::FailedPreconditionError("clock skew: must be 0 to 10 minutes");
  }
  return JwtValidator(*this);
}

namespace {

// A time claim that is present must be one we understand.
absl::Status CheckTimeForm(const Jwt& jwt, const char* claim, bool required) {
  if (!jwt.Has(claim)) {
    return required ? Refused("bad_time", absl::StrCat("token: \"", claim, "\" is missing")) : absl::OkStatus();
  }
  return jwt.Time(claim) ? absl::OkStatus()
                         : Refused("bad_time", absl::StrCat("token: \"", claim, "\" is not a whole number of seconds"));
}

}  // namespace

absl::Status JwtValidator::Validate(const Jwt& jwt, absl::Time now) const {
  if (!rules_.algorithms_.empty() && rules_.algorithms_.count(jwt.algorithm()) == 0) {
    return Refused("algorithm", "token: algorithm is not allowed here");
  }
  if (!rules_.ignore_type_ && rules_.types_.count(jwt.typ()) == 0) {
    return Refused("wrong_type", "token: is of another type");
  }
  if (!rules_.ignore_issuer_ && jwt.String("iss") != rules_.issuer_) {
    return Refused("wrong_issuer", "token: is from another issuer");
  }
  if (!rules_.ignore_audience_) {
    const std::vector<std::string> audiences = jwt.audiences();
    if (std::find_first_of(audiences.begin(), audiences.end(), rules_.audiences_.begin(), rules_.audiences_.end()) ==
        audiences.end()) {
      return Refused("wrong_audience", "token: is for another audience");
    }
  }
  if (rules_.require_subject_ && jwt.subject().empty()) {
    return Refused("bad_subject", "token: \"sub\" must be a non-empty string");
  }
  RETURN_IF_ERROR(CheckTimeForm(jwt, "exp", !rules_.allow_missing_expiration_));
  RETURN_IF_ERROR(CheckTimeForm(jwt, "nbf", false));
  RETURN_IF_ERROR(CheckTimeForm(jwt, "iat", rules_.require_issued_at_));
  if (const auto exp = jwt.Time("exp"); exp && now >= *exp + rules_.skew_) {
    return Refused("expired", "token: has expired");
  }
  if (const auto nbf = jwt.Time("nbf"); nbf && now < *nbf - rules_.skew_) {
    return Refused("not_yet_valid", "token: is not valid yet");
  }
  if (const auto iat = jwt.Time("iat"); iat && now < *iat - rules_.skew_) {
    return Refused("not_yet_valid", "token: was issued in the future");
  }
  return absl::OkStatus();
}

absl::Status JwtValidator::CheckSpelling(const Jws& jws) const {
  if (!rules_.require_low_s_ || (jws.algorithm == JwsAlgorithm::kEs256 && HasLowS(jws.signature))) {
    return absl::OkStatus();
  }
  return Refused("bad_signature", "token: the signature is not in the form we write");
}

absl::StatusOr<Jwt> VerifyJwt(absl::string_view token, const JwkSet& keys, const JwtValidator& validator,
                              absl::Time now, size_t max_size) {
  ASSIGN_OR_RETURN(Jws jws, VerifyJws(token, keys, max_size));
  RETURN_IF_ERROR(validator.CheckSpelling(jws));
  ASSIGN_OR_RETURN(Jwt jwt, Jwt::FromJws(std::move(jws)));
  RETURN_IF_ERROR(validator.Validate(jwt, now));
  return jwt;
}

std::optional<UnverifiedJwt> PeekJwt(absl::string_view token, size_t max_size) {
  auto jws = ParseJws(token, max_size);
  if (!jws.ok()) return std::nullopt;
  auto jwt = Jwt::FromJws(*std::move(jws));
  if (!jwt.ok()) return std::nullopt;
  return UnverifiedJwt{jwt->issuer(), jwt->kid(), jwt->Time("iat")};
}

absl::StatusOr<std::string> SignJwt(const nlohmann::json& claims, absl::string_view typ, const PrivateKey& key) {
  if (!claims.is_object()) return absl::InvalidArgumentError("claims must be an object");
  return SignJws(DumpJson(claims), typ, key);
}

}  // namespace sallyport

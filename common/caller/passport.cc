// SPDX-License-Identifier: Apache-2.0
#include "common/caller/passport.h"

#include <algorithm>
#include <list>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

#include "common/caller/passport_size.h"
#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/jose/jwt.h"
#include "common/json_log.h"
#include "common/mutex.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "common/text/json.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"

namespace sallyport {
namespace {

using Purpose = Passport::Purpose;

// Leaves room beside the passport in the 32 KiB of metadata.
constexpr size_t kMaxRemembered = 10'000;
constexpr absl::Duration kRefreshEvery = absl::Minutes(5);
constexpr absl::Duration kUnknownKidEvery = absl::Seconds(10);
// Without any key nothing works, and authn may just be starting.
constexpr absl::Duration kFirstKeysEvery = absl::Seconds(1);
// Of the claim iat, between the clocks of two hosts.
constexpr absl::Duration kClockSkew = absl::Seconds(5);

constexpr std::pair<Purpose, absl::string_view> kPurposes[] = {
    {Purpose::kCall, "call"},      {Purpose::kApi, "api"},           {Purpose::kLink, "link"},
    {Purpose::kSignIn, "sign_in"}, {Purpose::kPlatform, "platform"}, {Purpose::kEnd, "end"},
};

absl::Status Refused(absl::string_view why) {
  return WithReason(absl::UnauthenticatedError(absl::StrCat("passport refused: ", why)), "bad_passport");
}

absl::Status KeysUnavailable() {
  return WithReason(absl::UnavailableError("the keys that verify passports cannot be had from authn"),
                    "keys_unavailable");
}

void AddStrings(const char* claim, const std::vector<std::string>& values, nlohmann::json& claims) {
  if (!values.empty()) {
    claims[claim] = values;
  }
}

void AddString(const char* claim, const std::string& value, nlohmann::json& claims) {
  if (!value.empty()) {
    claims[claim] = value;
  }
}

// False if a claim is missing that the purpose cannot do without.
bool ReadPurposeClaims(const Jwt& jwt, Passport& passport) {
  if (passport.purpose == Purpose::kPlatform) {
    const auto act = jwt.json().find("act");
    passport.actor = act != jwt.json().end() && act->is_object() ? JsonString(*act, "sub").value_or("") : "";
    passport.apps = jwt.Strings("apps").value_or(std::vector<std::string>());
    return !passport.actor.empty();
  }
  if (passport.purpose == Purpose::kEnd) {
    const std::vector<std::string> end = jwt.Strings("end").value_or(std::vector<std::string>());
    if (end.size() != 3 || (end[0].empty() && end[1].empty())) {
      return false;
    }
    passport.end = {.subject = end[0], .app_uid = end[1], .label = end[2]};
  }
  return true;
}

absl::StatusOr<Passport> FromClaims(const Jwt& jwt, const std::string& issuer, absl::Time now) {
  if (jwt.typ() != kPassportType) {
    return Refused("it is another type of token");
  }
  if (jwt.issuer() != issuer) {
    return Refused("another issuer");
  }
  if (jwt.audiences() != std::vector<std::string>{kPassportAudience}) {
    return Refused("another audience");
  }
  const std::optional<absl::Time> expires_at = jwt.Time("exp");
  const std::optional<absl::Time> issued_at = jwt.Time("iat");
  if (!expires_at || !issued_at || *expires_at - *issued_at > kPassportLifetime + kClockSkew) {
    return Refused("its lifetime is missing or too long");
  }
  if (*expires_at <= now) {
    return Refused("it has expired");
  }
  if (*issued_at > now + kClockSkew) {
    return Refused("it was issued in the future: compare the clocks of the hosts");
  }
  Passport passport;
  passport.subject = jwt.subject();
  if (passport.subject.empty()) {
    return Refused("it has no subject");
  }
  const std::string purpose = jwt.String("purpose").value_or("");
  const auto* known = std::find_if(std::begin(kPurposes), std::end(kPurposes),
                                   [&](const auto& entry) { return entry.second == absl::string_view(purpose); });
  if (known == std::end(kPurposes)) {
    return Refused("unknown purpose");
  }
  passport.purpose = known->first;
  passport.session_id = jwt.String("sid").value_or("");
  passport.email = jwt.String("email").value_or("");
  passport.email_verified = jwt.Bool("email_verified").value_or(false);
  passport.name = jwt.String("name").value_or("");
  passport.groups = jwt.Strings("groups").value_or(std::vector<std::string>());
  passport.client_id = jwt.String("client_id").value_or("");
  passport.roles = jwt.Strings("roles").value_or(std::vector<std::string>());
  passport.server_uid = jwt.String("srv").value_or("");
  passport.link_server_uids = jwt.Strings("link").value_or(std::vector<std::string>());
  if (!ReadPurposeClaims(jwt, passport)) {
    return Refused("it does not say what it is for");
  }
  passport.issued_at = *issued_at;
  passport.expires_at = *expires_at;
  return passport;
}

// Verified passports by the SHA-256 of the JWT; the one used longest ago goes first.
class Remembered {
 public:
  std::shared_ptr<const Passport> Find(const std::string& digest, absl::Time now) {
    MutexLock lock(mu_);
    const auto found = by_digest_.find(digest);
    if (found == by_digest_.end()) {
      return nullptr;
    }
    if (found->second->second->expires_at <= now) {
      order_.erase(found->second);
      by_digest_.erase(found);
      return nullptr;
    }
    order_.splice(order_.begin(), order_, found->second);
    return found->second->second;
  }

  void Add(const std::string& digest, std::shared_ptr<const Passport> passport) {
    MutexLock lock(mu_);
    if (by_digest_.contains(digest)) {
      return;
    }
    order_.emplace_front(digest, std::move(passport));
    by_digest_[digest] = order_.begin();
    if (order_.size() > kMaxRemembered) {
      by_digest_.erase(order_.back().first);
      order_.pop_back();
    }
  }

 private:
  using Order = std::list<std::pair<std::string, std::shared_ptr<const Passport>>>;
  Mutex mu_;
  Order order_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, Order::iterator> by_digest_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

bool Passport::HasRole(absl::string_view role) const {
  return purpose == Purpose::kApi &&
         std::any_of(roles.begin(), roles.end(), [&](const std::string& have) { return have == role; });
}

absl::string_view PurposeName(Passport::Purpose purpose) {
  for (const auto& [value, name] : kPurposes) {
    if (value == purpose) {
      return name;
    }
  }
  return "";
}

absl::StatusOr<std::string> SignPassport(const Passport& passport, absl::string_view issuer, const PrivateKey& key,
                                         absl::Time now) {
  if (passport.subject.empty()) {
    return absl::InvalidArgumentError("a passport needs a subject");
  }
  if (passport.purpose == Purpose::kPlatform && passport.actor.empty()) {
    return absl::InvalidArgumentError("a platform's passport needs an actor");
  }
  if (passport.purpose == Purpose::kEnd && passport.end.subject.empty() && passport.end.app_uid.empty()) {
    return absl::InvalidArgumentError("a passport of purpose end must name what it ends");
  }
  absl::Time expires_at = now + kPassportLifetime;
  if (passport.expires_at != absl::InfinitePast()) {
    expires_at = std::min(expires_at, passport.expires_at);
  }
  nlohmann::json claims = {{"iss", std::string(issuer)},
                           {"aud", kPassportAudience},
                           {"sub", passport.subject},
                           {"exp", absl::ToUnixSeconds(expires_at)},
                           {"iat", absl::ToUnixSeconds(now)},
                           {"jti", RandomToken("", 16)},
                           {"purpose", std::string(PurposeName(passport.purpose))}};
  AddString("sid", passport.session_id, claims);
  if (!passport.email.empty()) {
    claims["email"] = passport.email;
    claims["email_verified"] = passport.email_verified;
  }
  AddString("name", passport.name, claims);
  AddString("client_id", passport.client_id, claims);
  AddString("srv", passport.server_uid, claims);
  AddStrings("groups", passport.groups, claims);
  AddStrings("roles", passport.roles, claims);
  AddStrings("link", passport.link_server_uids, claims);
  if (passport.purpose == Purpose::kPlatform) {
    claims["act"] = {{"sub", passport.actor}};
    AddStrings("apps", passport.apps, claims);
  }
  if (passport.purpose == Purpose::kEnd) {
    claims["end"] = {passport.end.subject, passport.end.app_uid, passport.end.label};
  }
  return SignJwt(claims, kPassportType, key);
}

absl::StatusOr<std::string> RpcKeySource::FetchJwks() {
  authn::v1::GetKeysResponse response;
  const auto context = MakeClientContext(absl::Seconds(5));
  const auto stub = authn::v1::Authn::NewStub(authn_);
  RETURN_IF_ERROR(FromGrpcStatus(stub->GetKeys(context.get(), authn::v1::GetKeysRequest(), &response)));
  return response.jwks_json();
}

struct PassportVerifier::State {
  std::string issuer;
  std::unique_ptr<PassportKeySource> source;
  Remembered remembered;

  Mutex fetch_mu;  // Held while fetching, so that one thread does; taken before mu.
  Mutex mu;
  std::shared_ptr<const JwkSet> keys ABSL_GUARDED_BY(mu);
  absl::Time attempted_at ABSL_GUARDED_BY(mu) = absl::InfinitePast();
  absl::Time fetched_at ABSL_GUARDED_BY(mu) = absl::InfinitePast();

  // Null if there are none yet.
  std::shared_ptr<const JwkSet> Keys() {
    MutexLock lock(mu);
    return keys;
  }
  // Marks an attempt; false if the last was less than `every` ago. A clock that went back does not lock us out.
  bool MayAttempt(absl::Time now, absl::Duration every) {
    MutexLock lock(mu);
    if (now >= attempted_at && now - attempted_at < every) {
      return false;
    }
    attempted_at = now;
    return true;
  }
  bool Stale(absl::Time now) {
    MutexLock lock(mu);
    return now - fetched_at > kRefreshEvery;
  }
  absl::Status Fetch(absl::Time now);
  absl::StatusOr<std::shared_ptr<const JwkSet>> KeysFor(const std::string& kid, absl::Time now);
};

absl::Status PassportVerifier::State::Fetch(absl::Time now) {
  auto fetched = [&]() -> absl::StatusOr<JwkSet> {
    ASSIGN_OR_RETURN(const std::string json, source->FetchJwks());
    return JwkSet::Parse(json);
  }();
  if (!fetched.ok()) {
    Log(LogLevel::kWarning, "passport_keys_not_fetched", {{"error", fetched.status()}});
    return KeysUnavailable();
  }
  MutexLock lock(mu);
  keys = std::make_shared<const JwkSet>(*std::move(fetched));
  fetched_at = now;
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const JwkSet>> PassportVerifier::State::KeysFor(const std::string& kid, absl::Time now) {
  const auto holds = [&](const std::shared_ptr<const JwkSet>& set) {
    return set != nullptr && set->Find(kid, JwsAlgorithm::kEs256).ok();
  };
  std::shared_ptr<const JwkSet> now_held = Keys();
  if (holds(now_held)) {
    // One thread refreshes; the others, and everybody while authn is away, go on with what there is.
    const bool refreshed = Stale(now) && MayAttempt(now, kUnknownKidEvery) && Fetch(now).ok();
    return refreshed ? Keys() : now_held;
  }
  MutexLock fetching(fetch_mu);
  now_held = Keys();  // Another thread may just have fetched.
  if (!holds(now_held) && MayAttempt(now, now_held == nullptr ? kFirstKeysEvery : kUnknownKidEvery)) {
    RETURN_IF_ERROR(Fetch(now));
    now_held = Keys();
  }
  if (now_held == nullptr) {
    return KeysUnavailable();
  }
  return now_held;
}

PassportVerifier::PassportVerifier(std::string issuer, std::unique_ptr<PassportKeySource> keys)
    : state_(std::make_unique<State>()) {
  state_->issuer = std::move(issuer);
  state_->source = std::move(keys);
}

PassportVerifier::~PassportVerifier() = default;

absl::StatusOr<Passport> PassportVerifier::Verify(absl::string_view jwt, absl::Time now) const {
  if (jwt.size() > kMaxPassportBytes) {
    return Refused("it is too long");
  }
  const std::string digest = Sha256(jwt);
  if (const std::shared_ptr<const Passport> known = state_->remembered.Find(digest, now)) {
    return *known;
  }
  absl::StatusOr<Jws> jws = ParseJws(jwt, kMaxPassportBytes);
  if (!jws.ok()) {
    return Refused("it is no JWS");
  }
  if (jws->algorithm != JwsAlgorithm::kEs256 || !jws->kid.has_value()) {
    return Refused("it must be signed ES256 and name its key");
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const JwkSet> keys, state_->KeysFor(*jws->kid, now));
  const absl::StatusOr<const PublicKey*> key = keys->Find(jws->kid, JwsAlgorithm::kEs256);
  if (!key.ok()) {
    return Refused("unknown key");
  }
  if (!(*key)->Verify(JwsAlgorithm::kEs256, jws->signing_input, jws->signature).ok()) {
    return Refused("bad signature");
  }
  const absl::StatusOr<Jwt> claims = Jwt::FromJws(*std::move(jws));
  if (!claims.ok()) {
    return Refused("its claims do not parse");
  }
  ASSIGN_OR_RETURN(Passport passport, FromClaims(*claims, state_->issuer, now));
  passport.jwt = std::string(jwt);
  state_->remembered.Add(digest, std::make_shared<const Passport>(passport));
  return passport;
}

}  // namespace sallyport

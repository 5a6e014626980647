// SPDX-License-Identifier: Apache-2.0
#include "services/authn/jwks_cache.h"

#include <algorithm>

#include "common/json_log.h"
#include "common/status_macros.h"
#include "services/authn/errors.h"

namespace sallyport::authn {
namespace {

constexpr char kDocument[] = "jwks";

bool Holds(const JwkSet& set, const std::string& kid) {
  return std::any_of(set.keys().begin(), set.keys().end(), [&kid](const PublicKey& key) { return key.kid() == kid; });
}

absl::StatusOr<JwkSet> FetchSet(DocumentFetcher& fetcher, const std::string& url) {
  absl::StatusOr<std::string> body = fetcher.Fetch(url, JwkSet::kMaxBytes);
  absl::StatusOr<JwkSet> set = body.ok() ? JwkSet::Parse(*body) : absl::StatusOr<JwkSet>(body.status());
  if (!set.ok()) {
    oauth::FetchFailures(kDocument).Increment();
    Log(LogLevel::kWarning, "jwks_fetch_failed", {{"url", url}, {"status", set.status()}});
    return KeysUnavailable("the issuer's keys cannot be had");
  }
  for (const std::string& refused : set->refused()) {
    Log(LogLevel::kWarning, "jwks_key_refused", {{"url", url}, {"key", refused}});
  }
  return set;
}

}  // namespace

JwksCache::JwksCache(DocumentFetcher& fetcher)
    : fetcher_(fetcher), documents_({kFresh, kMinRefetch, kFirstRetry, kStale}) {
  oauth::FetchFailures(kDocument);
}

absl::StatusOr<std::shared_ptr<const JwkSet>> JwksCache::LookUp(const std::string& url,
                                                                const std::optional<std::string>& kid, absl::Time now,
                                                                Lookup* lookup) {
  const auto enough = [&kid](const JwkSet& set) { return !kid.has_value() || Holds(set, *kid); };
  return documents_.Of(url, now)->Get(
      now, enough, [&] { return FetchSet(fetcher_, url); }, lookup);
}

absl::StatusOr<std::shared_ptr<const JwkSet>> JwksCache::Get(const std::string& url,
                                                             const std::optional<std::string>& kid, absl::Time now) {
  return LookUp(url, kid, now, nullptr);
}

absl::StatusOr<Jwt> JwksCache::Verify(absl::string_view token, const std::string& url, const JwtValidator& validator,
                                      absl::Time now, size_t max_size) {
  const std::optional<UnverifiedJwt> peek = PeekJwt(token, max_size);
  if (!peek.has_value()) {
    const absl::StatusOr<Jws> jws = ParseJws(token, max_size);
    return jws.ok() ? InvalidToken("malformed_token") : TokenError(jws.status());
  }
  Lookup lookup;
  ASSIGN_OR_RETURN(auto keys, LookUp(url, peek->kid, now, &lookup));
  // A minute for an issuer that signs before every copy of its key set has the key.
  const bool may_be_newer =
      !lookup.fresh && (!peek->issued_at.has_value() || *peek->issued_at > lookup.fetched_at - kMinRefetch);
  if (peek->kid.has_value() && may_be_newer && !Holds(*keys, *peek->kid)) {
    return KeyNotKnownYet(lookup.retry_after);
  }
  return VerifyJwt(token, *keys, validator, now, max_size);
}

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/jwks_cache.h"

#include <algorithm>

#include "common/json_log.h"
#include "common/status_macros.h"
#include "services/authn/errors.h"

namespace sallyport::authn {
namespace {

absl::StatusOr<JwkSet> FetchSet(DocumentFetcher& fetcher, const std::string& url) {
  absl::StatusOr<std::string> body = fetcher.Fetch(url, JwkSet::kMaxBytes);
  absl::StatusOr<JwkSet> set = body.ok() ? JwkSet::Parse(*body) : absl::StatusOr<JwkSet>(body.status());
  if (!set.ok()) {
    Log(LogLevel::kWarning, "jwks_fetch_failed", {{"url", url}, {"status", set.status()}});
    return KeysUnavailable("the issuer's keys cannot be had");
  }
  for (const std::string& refused : set->refused()) {
    Log(LogLevel::kWarning, "jwks_key_refused", {{"url", url}, {"key", refused}});
  }
  return set;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const JwkSet>> JwksCache::Get(const std::string& url,
                                                             const std::optional<std::string>& kid, absl::Time now) {
  const auto holds_kid = [&kid](const JwkSet& set) {
    return !kid.has_value() || std::any_of(set.keys().begin(), set.keys().end(),
                                           [&kid](const PublicKey& key) { return key.kid() == *kid; });
  };
  return documents_.Of(url, now)->Get(now, holds_kid, [&] { return FetchSet(fetcher_, url); });
}

absl::StatusOr<Jwt> JwksCache::Verify(absl::string_view token, const std::string& url, const JwtValidator& validator,
                                      absl::Time now, size_t max_size) {
  const std::optional<UnverifiedJwt> peek = PeekJwt(token, max_size);
  if (!peek.has_value()) {
    return InvalidToken("malformed_token");
  }
  ASSIGN_OR_RETURN(auto keys, Get(url, peek->kid, now));
  return VerifyJwt(token, *keys, validator, now, max_size);
}

}  // namespace sallyport::authn

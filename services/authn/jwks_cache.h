// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/jose/jwk.h"
#include "common/jose/jwt.h"
#include "common/mutex.h"
#include "services/authn/fetched_document.h"

namespace sallyport::authn {

// Fetches a JSON document (GET, at most `max_bytes`, no redirects). The network seam of JWKS and discovery.
class DocumentFetcher {
 public:
  virtual ~DocumentFetcher() = default;
  // UNAVAILABLE if it cannot be had; PERMISSION_DENIED if the address may not be reached.
  virtual absl::StatusOr<std::string> Fetch(const std::string& url, size_t max_bytes) = 0;
};

// Key sets by URL. Thread-safe; one fetch at a time per URL.
//   A set is used for 5 min, then fetched again by whoever comes first, while others go on with the old one.
//   A key that is not in the set causes a fetch, unless there was one within the last 60 s: a burst of unknown kids is
//   one fetch. While the issuer is down the last good set is used for 24 h after it was fetched; then nothing verifies
//   (UNAVAILABLE).
class JwksCache {
 public:
  static constexpr absl::Duration kFresh = absl::Minutes(5);
  static constexpr absl::Duration kMinRefetch = absl::Seconds(60);
  static constexpr absl::Duration kFirstRetry = absl::Seconds(5);
  static constexpr absl::Duration kStale = absl::Hours(24);
  static constexpr size_t kMaxUrls = 512;

  // `fetcher` must outlive this.
  explicit JwksCache(DocumentFetcher& fetcher) : fetcher_(fetcher) {}

  // The set of `url`, if need be fetched anew to find `kid`. That the set does not hold it is for the verifier to say.
  // UNAVAILABLE reason "keys_unavailable".
  absl::StatusOr<std::shared_ptr<const JwkSet>> Get(const std::string& url, const std::optional<std::string>& kid,
                                                    absl::Time now);
  // VerifyJwt with the keys of `url`.
  absl::StatusOr<Jwt> Verify(absl::string_view token, const std::string& url, const JwtValidator& validator,
                             absl::Time now, size_t max_size = kMaxJwsSize);

  DocumentFetcher& fetcher() { return fetcher_; }

 private:
  struct Entry {
    std::shared_ptr<FetchedDocument<JwkSet>> document;
    absl::Time used_at = absl::InfinitePast();
  };
  std::shared_ptr<FetchedDocument<JwkSet>> Document(const std::string& url, absl::Time now);

  DocumentFetcher& fetcher_;
  Mutex mu_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::authn

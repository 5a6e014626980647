// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/jose/jwk.h"
#include "common/jose/jwt.h"
#include "common/oauth/document_fetcher.h"
#include "common/oauth/fetched_document.h"

namespace sallyport::authn {

using oauth::DocumentFetcher;

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
  static constexpr size_t kMaxUrls = oauth::FetchedDocuments<JwkSet>::kMax;

  // `fetcher` must outlive this.
  explicit JwksCache(DocumentFetcher& fetcher);

  // The set of `url`, if need be fetched anew to find `kid`. That the set does not hold it is for the verifier to say.
  // UNAVAILABLE reason "keys_unavailable".
  absl::StatusOr<std::shared_ptr<const JwkSet>> Get(const std::string& url, const std::optional<std::string>& kid,
                                                    absl::Time now);
  // VerifyJwt with the keys of `url`. A key that is not in the set although it was just fetched, or that is not there
  // although the token (by its `iat`) is older than the set, is unknown (NOT_FOUND). One that may be newer than the
  // set, which may not be fetched again yet or cannot be, is UNAVAILABLE reason "unknown_key" with retry_after: an
  // issuer that rotates twice in a minute must not throw its users out. Nothing of this concerns tokens whose keys are
  // known, whatever strangers send.
  absl::StatusOr<Jwt> Verify(absl::string_view token, const std::string& url, const JwtValidator& validator,
                             absl::Time now, size_t max_size = kMaxJwsSize);

  DocumentFetcher& fetcher() { return fetcher_; }

 private:
  using Lookup = oauth::FetchedDocument<JwkSet>::Lookup;
  absl::StatusOr<std::shared_ptr<const JwkSet>> LookUp(const std::string& url, const std::optional<std::string>& kid,
                                                       absl::Time now, Lookup* lookup);

  DocumentFetcher& fetcher_;
  oauth::FetchedDocuments<JwkSet> documents_;
};

}  // namespace sallyport::authn

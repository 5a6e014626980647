// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/secret.h"
#include "sallyport/token_broker/v1/token_set.pb.h"
#include "sallyport/vault/v1/vault.pb.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/freshness.h"
#include "services/token_broker/token_endpoint.h"

namespace sallyport::token_broker {

// What the vault takes in one payload.
inline constexpr size_t kMaxTokenSetBytes = size_t{64} << 10;

// Whose account of what: subject and name (connection_name.h).
struct ConnectionKey {
  std::string subject;
  std::string connection;

  // As in CONNECTION invalidations: "<subject>\n<app uid>\n<label>".
  std::string ToString() const { return subject + "\n" + AppUidOf(connection) + "\n" + AccountLabelOf(connection); }
  friend bool operator==(const ConnectionKey& a, const ConnectionKey& b) = default;
};

// A connection at one version, without its refresh token. Immutable once made.
struct ConnectionView {
  enum class State {
    kAbsent,  // Never linked, or unlinked.
    kLinked,
    kNeedsUser,  // The provider no longer honours it; only the user can mend it.
  };
  State state = State::kAbsent;
  int64_t generation = 0;
  int64_t version = 0;  // With which the access token came; what is refused is told apart by it.
  Secret access_token;
  Secret id_token;
  TokenTimes times;
  std::vector<std::string> scopes;
  bool can_refresh = false;
  // Where it came from, and whether that is sealed with the tokens: in what an earlier release has stored it is not.
  v1::TokenSet::Provenance provenance;
  bool provenance_sealed = false;
  v1::TokenSet::Consent consent;
  // Of the account, as the provider names it; empty: not known.
  std::string account_name;
  absl::Time backoff_until = absl::InfinitePast();
  // Why there is a backoff: the provider's error code or a word of ours. Empty if nothing is known.
  std::string trouble;
  // An upstream refused this version, the provider has not, and there is no newer one to be had: because this one is
  // the outcome of a refresh forced less than 30 s ago, or because it cannot be renewed at all. Never cached: it is the
  // answer to one who was refused.
  bool refused_again = false;
  // Beside refused_again: how many forced refreshes in a row led to it, and when the next one can be made.
  int forced_in_a_row = 0;
  absl::Time forced_next = absl::InfinitePast();
};

using SharedConnection = std::shared_ptr<const ConnectionView>;

// Views of vault records. DATA_LOSS if the payload is no TokenSet.
absl::StatusOr<std::shared_ptr<ConnectionView>> ViewOf(const vault::v1::GetResponse& record);
absl::StatusOr<std::shared_ptr<ConnectionView>> ViewOf(const vault::v1::RecordMetadata& metadata, int64_t version,
                                                       const std::string& payload);
ConnectionView::State StateOf(const vault::v1::RecordMetadata& metadata);

// Labels a connection is stored with: scope, expires_at, app_uid, linked_at; others (forced_at, forced_in_a_row) are
// the caller's.
std::map<std::string, std::string> LabelsOf(const v1::TokenSet& tokens, const std::string& connection);

// The set that replaces `old` after a refresh that was asked for at `now`: what the answer leaves out is kept, an
// access token it lacks as one that has expired. Of more than the vault takes (64 KiB), the ID token is left out first,
// then new scopes, then the access token; never the refresh token.
v1::TokenSet Renewed(const v1::TokenSet& old, const TokenAnswer& answer, absl::Time now);
// `old`, stored as `version`, with another refresh token; bounded in the same way.
v1::TokenSet Rotated(const v1::TokenSet& old, int64_t version, const Secret& refresh_token, absl::Time now);
// The set of a new link, without an ID token if it is over 64 KiB with it; `asked` are the scopes if the answer names
// none.
v1::TokenSet Linked(const TokenAnswer& answer, const std::vector<std::string>& asked, absl::Time now);

// Scopes of `needed` that `granted` lacks. Scopes of the protocol itself (openid, profile, email, offline_access, …)
// are never missing: providers take them without listing or naming them alike.
std::vector<std::string> MissingScopes(const std::vector<std::string>& granted, const std::vector<std::string>& needed);

}  // namespace sallyport::token_broker

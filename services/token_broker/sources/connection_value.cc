// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/connection_value.h"

#include <algorithm>

#include "services/token_broker/jwt_expiry.h"

namespace sallyport::token_broker {

void SetTimes(const TokenTimes& times, const std::string& key, absl::Time now, Value* value) {
  if (times.expires_at == absl::InfiniteFuture()) {
    return;
  }
  // The end a receiver may rely on: it keeps no skew of its own.
  value->expires_at = times.expires_at - ExpirySkew(times);
  const absl::Time renew = times.expires_at - RenewalLead(times, key);
  // While a renewal is under way it is asked for again, but not at once.
  value->renew_at =
      std::min(value->expires_at, std::max(renew, now + std::min(absl::Seconds(5), (value->expires_at - now) / 2)));
}

Value ValueOf(const ConnectionKey& key, const SharedConnection& view, bool id_token, absl::Time now) {
  Value value;
  const Secret& token = id_token ? view->id_token : view->access_token;
  value.secret = std::shared_ptr<const Secret>(view, &token);
  value.uid = key.connection;
  value.connection = key.connection;
  value.generation = view->generation;
  value.version = view->version;
  value.renewable = true;
  value.consent = view->consent;
  TokenTimes times = view->times;
  if (id_token) {
    times.expires_at = JwtExpiry(token.Expose());
  }
  SetTimes(times, key.ToString(), now, &value);
  return value;
}

}  // namespace sallyport::token_broker

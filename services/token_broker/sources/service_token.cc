// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/service_token.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/status_macros.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/sources/connection_value.h"
#include "services/token_broker/sources/sign_in_token.h"

namespace sallyport::token_broker {

// Everything the token depends on, the secret's version among it: another configuration never finds this one's.
std::string ServiceTokenSource::CacheKey(const Need& need) const {
  return absl::StrCat("service ", KeyOf({need.server->uid(), DigestOf(need.piece->service_token())}));
}

void ServiceTokenSource::Get(const std::shared_ptr<const Need>& need, Done done) {
  if (const absl::Status allowed = CheckServerBinding(secrets_, *need, "service tokens of this server");
      !allowed.ok()) {
    return done(allowed);
  }
  const std::string key = CacheKey(*need);
  const auto fetch = [this, need]() -> absl::StatusOr<std::shared_ptr<ConnectionView>> {
    const Plan::ServiceToken& token = need->piece->service_token();
    ASSIGN_OR_RETURN(TokenAnswer answer, client_.AskForItself(token.client(), token));
    return client_.ViewOf(token.client(), std::move(answer));
  };
  const std::string lane = OriginOf(need->piece->service_token().client().token_url());
  tokens_.Get(key, need->refused_version, FetchedTokens::InLane(fetchers_, lane, fetch),
              [this, need, key, done = std::move(done)](const absl::StatusOr<SharedConnection>& token) {
                if (!token.ok()) {
                  return done(token.status());
                }
                Value value;
                value.secret = std::shared_ptr<const Secret>(*token, &(*token)->access_token);
                value.uid = need->server->uid();
                value.version = (*token)->version;
                value.renewable = true;
                SetTimes((*token)->times, key, clock_.Now(), &value);
                done(Outcome(std::move(value)));
              });
}

}  // namespace sallyport::token_broker

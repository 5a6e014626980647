// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/clock.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/sources/fetched_tokens.h"
#include "services/token_broker/sources/source.h"
#include "services/token_broker/sources/token_client.h"

namespace sallyport::token_broker {

// Tokens of the gateway's own clients, by client credentials (RFC 6749 section 4.4). Replicas share them.
class ServiceTokenSource final : public Source {
 public:
  // All outlive this; `shared` may be null.
  ServiceTokenSource(SecretReader& secrets, TokenClient& client, FetchLanes& fetchers, TokenCache* shared,
                     const Clock& clock)
      : secrets_(secrets), client_(client), fetchers_(fetchers), clock_(clock), tokens_(clock, {.shared = shared}) {}

  std::string CacheKey(const Need& need) const override;
  void Get(const std::shared_ptr<const Need>& need, Done done) override;

 private:
  SecretReader& secrets_;
  TokenClient& client_;
  FetchLanes& fetchers_;
  const Clock& clock_;
  FetchedTokens tokens_;
};

}  // namespace sallyport::token_broker

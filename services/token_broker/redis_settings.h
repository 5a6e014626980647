// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/redis/client.h"
#include "sallyport/config/v1/services.pb.h"

namespace sallyport::token_broker {

// OK, or INVALID_ARGUMENT naming every field below `redis` that is missing or wrong. Files are opened.
absl::Status ValidateRedis(const config::v1::TokenBrokerConfig::Redis& redis);

// Of settings that are valid. INVALID_ARGUMENT if a file has become unreadable since.
absl::StatusOr<RedisOptions> RedisOptionsFrom(const config::v1::TokenBrokerConfig::Redis& redis);

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/clock.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/sources/source.h"

namespace sallyport::token_broker {

// The access token of a connection, or its ID token, as a value of `uid`. `key` spreads renewals.
Value ValueOf(const ConnectionKey& key, const SharedConnection& view, bool id_token, absl::Time now);

// When a token of these times may be used until, and is asked for again.
void SetTimes(const TokenTimes& times, const std::string& key, absl::Time now, Value* value);

}  // namespace sallyport::token_broker

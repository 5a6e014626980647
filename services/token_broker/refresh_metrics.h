// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "services/token_broker/connection.h"
#include "services/token_broker/refresh_flight.h"

namespace sallyport::token_broker {

// Of background work: somebody else was faster.
bool WasNotDue(const absl::StatusOr<SharedConnection>& result);

// sallyport_broker_refreshes_total{app,outcome} and sallyport_broker_refresh_failures_total{app,reason}. `app`: slug of
// a configured app, or "sso:<connector>".

// There before the first refresh: an alert must see the first failure as a rise from 0.
void ExpectRefreshes(const std::string& app);
void CountRefresh(const std::string& app, const absl::StatusOr<SharedConnection>& result,
                  const RefreshFlight::Report& report);
// What a failure counts as: a code of RFC 6749 or OpenID Connect, or a word of ours; "other" for what a provider
// invented, "http_4xx" and "http_5xx" for what it said without a code. Pure.
std::string RefreshFailureReason(const absl::StatusOr<SharedConnection>& result, const RefreshFlight::Report& report);

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sallyport::token_broker {

// Reasons of statuses that come from a provider or an upstream rather than from a part of the gateway. Their messages
// are for callers.
inline constexpr char kProviderUnavailable[] = "provider_unavailable";
inline constexpr char kProviderRejectsClient[] = "provider_rejects_client";
inline constexpr char kRenewedTokenRefused[] = "renewed_token_refused";
// A token endpoint gives the gateway's client no token, and asking again would not change that.
inline constexpr char kTokenRefused[] = "token_refused";
inline constexpr char kNeedsInteraction[] = "interaction_required";
inline constexpr char kAppOnlyToken[] = "app_only_token";
inline constexpr char kExchangeInvalid[] = "exchange_response_invalid";

// Words of ours beside the providers' error codes.
inline constexpr char kRenewalUnderWay[] = "renewal_under_way";
inline constexpr char kMetadataUnavailable[] = "metadata_unavailable";

// UNAVAILABLE with reason provider_unavailable and `code`, the provider's error code or a word of ours.
absl::Status ProviderUnavailable(absl::string_view code, absl::Duration retry_after);
// The code of such a status; empty if it is another.
std::string TroubleCodeOf(const absl::Status& status);
// Nothing helps but an administrator who corrects the app: its client ID or secret is refused.
bool RejectsClient(absl::string_view code);
// No answer came at all.
bool IsSilence(absl::string_view code);

// A status of ProviderUnavailable in words, by the name that people know the provider by; others are returned as they
// are. Where the client is rejected it becomes FAILED_PRECONDITION: trying again helps nobody.
absl::Status NameProvider(const absl::Status& status, absl::string_view name);

}  // namespace sallyport::token_broker

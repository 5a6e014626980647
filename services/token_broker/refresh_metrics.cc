// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/refresh_metrics.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/match.h"

#include "common/error.h"
#include "common/metrics.h"
#include "common/oauth/error.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

constexpr CounterInfo kRefreshes = {
    .name = "sallyport_broker_refreshes_total",
    .help = "Looks at a user's token for renewal, by what became of it",
    .unit = "refreshes",
    .labels = {{"app", "slug of a configured app, or sso:<connector>"},
               {"outcome",
                "renewed, adopted (a late answer of another replica was used), further (a token for another "
                "audience), not_needed, needs_user, failed"}},
    .rise =
        "needs_user: the provider ends grants. failed: it is down, or refuses the app's client. adopted: brokers "
        "died or stalled",
    .action = "`sallyport_broker_refresh_failures_total` has the reasons; then look at the provider",
};
constexpr CounterInfo kFailures = {
    .name = "sallyport_broker_refresh_failures_total",
    .help = "Refreshes that brought no token, by reason",
    .unit = "refreshes",
    .labels = {{"app", "slug of a configured app, or sso:<connector>"},
               {"reason",
                "a code of OAuth (invalid_grant, invalid_client, ...), http_4xx, http_5xx, timeout, no_answer, "
                "malformed_answer, no_access_token, client_rejected, provider_unavailable, vault_sealed, ..., "
                "other"}},
    .rise =
        "invalid_client and client_rejected: the app's secret is wrong or has expired. invalid_grant: users or the "
        "provider end grants. timeout, no_answer, http_5xx: the provider is down",
    .action =
        "For invalid_client enter the app's secret again; otherwise look at the provider. The audit event "
        "`credential.refreshed` and the log event `refresh_failed` have the code as it came",
};

constexpr const char* kOutcomes[] = {"renewed", "adopted", "further", "needs_user", "failed", "not_needed"};

// A provider writes its codes itself: only known ones become a label's value.
constexpr const char* kReasons[] = {
    oauth::kInvalidGrant, oauth::kInvalidClient, oauth::kUnauthorizedClient, oauth::kInteractionRequired,
    oauth::kLoginRequired, oauth::kConsentRequired, oauth::kTemporarilyUnavailable, oauth::kServerError,
    "invalid_request", "invalid_scope", "invalid_target", "unsupported_grant_type", "access_denied", "slow_down",
    // Of ours.
    "timeout", "no_answer", "answer_too_long", "malformed_answer", "no_access_token", "unsupported_token_type",
    "revoked", "client_rejected", "client_key_unusable", "stray_not_revoked", kMetadataUnavailable, kRenewalUnderWay,
    kProviderUnavailable, kProviderRejectsClient, "vault_sealed"};

const char* OutcomeOf(const absl::StatusOr<SharedConnection>& result, const RefreshFlight::Report& report) {
  return report.renewed                       ? "renewed"
         : report.adopted                     ? "adopted"
         : report.further                     ? "further"
         : report.marked                      ? "needs_user"
         : !result.ok() && !WasNotDue(result) ? "failed"
                                              : "not_needed";
}

prometheus::Counter& Refreshes(const std::string& app, const char* outcome) {
  return MetricCounter(kRefreshes, {{"app", app}, {"outcome", outcome}});
}

}  // namespace

bool WasNotDue(const absl::StatusOr<SharedConnection>& result) { return ReasonOf(result.status()) == "not_due"; }

std::string RefreshFailureReason(const absl::StatusOr<SharedConnection>& result, const RefreshFlight::Report& report) {
  std::string reason = !report.provider_error.empty() ? report.provider_error : report.failure;
  if (reason.empty()) {
    reason = TroubleCodeOf(result.status());
  }
  if (reason.empty()) {
    reason = ReasonOf(result.status());
  }
  if (absl::StartsWith(reason, "http_")) {
    return absl::StartsWith(reason, "http_5") ? "http_5xx" : "http_4xx";
  }
  const bool known = std::find(std::begin(kReasons), std::end(kReasons), reason) != std::end(kReasons);
  return known ? reason : "other";
}

void ExpectRefreshes(const std::string& app) {
  for (const char* outcome : kOutcomes) {
    Refreshes(app, outcome);
  }
  MetricCounter(kFailures, {{"app", app}, {"reason", oauth::kInvalidClient}});
}

void CountRefresh(const std::string& app, const absl::StatusOr<SharedConnection>& result,
                  const RefreshFlight::Report& report) {
  Refreshes(app, OutcomeOf(result, report)).Increment();
  if (!report.failure.empty() || (!result.ok() && !WasNotDue(result))) {
    MetricCounter(kFailures, {{"app", app}, {"reason", RefreshFailureReason(result, report)}}).Increment();
  }
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/refresh_metrics.h"

#include "absl/strings/match.h"
#include <gmock/gmock.h>

#include "common/error.h"
#include "common/metrics.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const absl::StatusOr<SharedConnection> kDown = ProviderUnavailable("timeout", absl::Seconds(1));

double Refreshes(const std::string& app, const std::string& outcome) {
  return MetricCounter("sallyport_broker_refreshes_total", "", {{"app", app}, {"outcome", outcome}}).Value();
}
double Failures(const std::string& app, const std::string& reason) {
  return MetricCounter("sallyport_broker_refresh_failures_total", "", {{"app", app}, {"reason", reason}}).Value();
}

TEST(RefreshMetricsTest, FirstFailureOfAnAppIsARiseFromZero) {
  ExpectRefreshes("first-seen");
  // The text as a whole would fill pages when this fails.
  const bool there = absl::StrContains(SerializeMetrics(),
                                       "sallyport_broker_refreshes_total{app=\"first-seen\",outcome=\"failed\"} 0");
  EXPECT_TRUE(there);
  EXPECT_EQ(Failures("first-seen", "invalid_client"), 0);
}

TEST(RefreshMetricsTest, CountsOutcomeAndReasonByApp) {
  CountRefresh("slack", kDown, {});
  CountRefresh("slack", SharedConnection(), {.asked_provider = true, .renewed = true});
  CountRefresh("slack", SharedConnection(),
               {.asked_provider = true, .marked = true, .failure = "revoked", .provider_error = "invalid_grant"});

  EXPECT_EQ(Refreshes("slack", "failed"), 1);
  EXPECT_EQ(Failures("slack", "timeout"), 1);
  EXPECT_EQ(Refreshes("slack", "renewed"), 1);
  EXPECT_EQ(Refreshes("slack", "needs_user"), 1);
  EXPECT_EQ(Failures("slack", "invalid_grant"), 1);
}

TEST(RefreshMetricsTest, RecordThatWasNotDueIsNoFailure) {
  CountRefresh("jira", WithReason(absl::FailedPreconditionError("not due"), "not_due"), {});
  EXPECT_EQ(Refreshes("jira", "not_needed"), 1);
  EXPECT_THAT(SerializeMetrics(), Not(HasSubstr("sallyport_broker_refresh_failures_total{app=\"jira\"")));
}

TEST(RefreshMetricsTest, CodesThatAProviderInventsMakeNoSeries) {
  EXPECT_EQ(RefreshFailureReason(kDown, {.failure = "x", .provider_error = "x"}), "other");
  EXPECT_EQ(RefreshFailureReason(kDown, {.provider_error = "http_599"}), "http_5xx");
  EXPECT_EQ(RefreshFailureReason(kDown, {.provider_error = "http_418"}), "http_4xx");
  EXPECT_EQ(RefreshFailureReason(kDown, {}), "timeout");
}

}  // namespace
}  // namespace sallyport::token_broker

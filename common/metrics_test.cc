// SPDX-License-Identifier: Apache-2.0
#include "common/metrics.h"

#include <gmock/gmock.h>

#include "sallyport/authn/v1/authn.pb.h"

namespace sallyport {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricsTest, SameNameAndLabelsGiveTheSameMetric) {
  prometheus::Counter& a = MetricCounter("test_same_total", "help", {{"x", "1"}});
  prometheus::Counter& b = MetricCounter("test_same_total", "help", {{"x", "1"}});
  EXPECT_EQ(&a, &b);
}

TEST(MetricsTest, ABadNameDoesNotThrow) {
  MetricCounter("not a name", "help").Increment();
  EXPECT_THAT(SerializeMetrics(), Not(HasSubstr("not a name")));
}

TEST(MetricsTest, ANameOfAnotherTypeDoesNotThrow) {
  MetricCounter("test_taken", "help").Increment();
  MetricGauge("test_taken", "help").Set(5);
  EXPECT_THAT(SerializeMetrics(), HasSubstr("test_taken 1"));
}

TEST(MetricsTest, ADescribedMetricIsTheOneOfItsName) {
  constexpr CounterInfo kCounter = {
      .name = "test_described_total", .help = "Things seen", .labels = {{"kind", "a, b"}}};
  constexpr GaugeInfo kGauge = {.name = "test_described", .help = "Things held"};
  constexpr HistogramInfo kHistogram = {.name = "test_described_seconds", .help = "Time taken"};

  MetricCounter(kCounter, {{"kind", "a"}}).Increment();
  MetricGauge(kGauge).Set(2);
  MetricHistogram(kHistogram, {}).Observe(0.002);

  EXPECT_EQ(&MetricCounter(kCounter, {{"kind", "a"}}), &MetricCounter("test_described_total", "", {{"kind", "a"}}));
  const std::string text = SerializeMetrics();
  EXPECT_THAT(text, HasSubstr("# HELP test_described_total Things seen\n# TYPE test_described_total counter"));
  EXPECT_THAT(text, HasSubstr("test_described_total{kind=\"a\"} 1"));
  EXPECT_THAT(text, HasSubstr("test_described 2"));
  EXPECT_THAT(text, HasSubstr("test_described_seconds_bucket{le=\"0.0025\"} 1"));
}

TEST(MetricProbeTest, MeasuresWhenMetricsAreReadUntilItEnds) {
  prometheus::Gauge& gauge = MetricGauge("test_probed", "");
  int measured = 0;
  {
    const MetricProbe probe([&] { gauge.Set(++measured); });
    EXPECT_THAT(SerializeMetrics(), HasSubstr("test_probed 1"));
    EXPECT_THAT(SerializeMetrics(), HasSubstr("test_probed 2"));
  }
  EXPECT_THAT(SerializeMetrics(), HasSubstr("test_probed 2"));
}

TEST(RpcMetricsTest, ShowsWhatIsBeingServed) {
  const RpcMetrics metrics("sallyport.test.InFlight");
  metrics.Enter();
  metrics.Enter();
  metrics.Leave();
  EXPECT_THAT(SerializeMetrics(), HasSubstr("sallyport_rpc_in_flight{service=\"sallyport.test.InFlight\"} 1"));
}

TEST(RpcMetricsTest, CountsByMethodAndCode) {
  (void)authn::v1::GetKeysRequest::descriptor();
  const RpcMetrics metrics("sallyport.authn.v1.Authn");
  metrics.Count("GetKeys", absl::StatusCode::kOk, absl::Milliseconds(3));
  metrics.Count("GetKeys", absl::StatusCode::kOk, absl::Milliseconds(3));
  metrics.Count("GetKeys", absl::StatusCode::kUnavailable, absl::Milliseconds(3));

  const std::string text = SerializeMetrics();

  EXPECT_THAT(text, HasSubstr("sallyport_rpc_requests_total{code=\"OK\",method=\"GetKeys\","
                              "service=\"sallyport.authn.v1.Authn\"} 2"));
  EXPECT_THAT(text, HasSubstr("sallyport_rpc_requests_total{code=\"UNAVAILABLE\",method=\"GetKeys\""));
  EXPECT_THAT(text, HasSubstr("sallyport_rpc_duration_seconds_count{method=\"GetKeys\""));
}

TEST(RpcMetricsTest, NamesFromOutsideMakeNoSeries) {
  const RpcMetrics metrics("sallyport.authn.v1.Authn");
  metrics.Count("Invented", absl::StatusCode::kOk, absl::ZeroDuration());
  EXPECT_THAT(SerializeMetrics(), Not(HasSubstr("Invented")));
}

}  // namespace
}  // namespace sallyport

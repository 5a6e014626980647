// SPDX-License-Identifier: Apache-2.0
#include "common/proto_time.h"

#include <limits>

#include <google/protobuf/util/time_util.h>
#include <gtest/gtest.h>

namespace sallyport {
namespace {

using google::protobuf::util::TimeUtil;

std::string Text(absl::Time time) { return TimeUtil::ToString(ToTimestamp(time)); }

absl::Time At(int64_t seconds, int32_t nanos) {
  google::protobuf::Timestamp timestamp;
  timestamp.set_seconds(seconds);
  timestamp.set_nanos(nanos);
  return FromTimestamp(timestamp);
}

absl::Duration Long(int64_t seconds, int32_t nanos) {
  google::protobuf::Duration duration;
  duration.set_seconds(seconds);
  duration.set_nanos(nanos);
  return FromProtoDuration(duration);
}

const absl::Time kFirst = absl::FromUnixSeconds(-62'135'596'800);
const absl::Time kEnd = absl::FromUnixSeconds(253'402'300'800);

TEST(ProtoTimeTest, WholeMicrosecondsSurvive) {
  for (const int64_t micros : {int64_t{0}, int64_t{1}, int64_t{999'999}, int64_t{1'000'000}, int64_t{-1},
                               int64_t{-999'999}, int64_t{-1'000'000}, int64_t{1'800'000'000'123'456}}) {
    const absl::Time time = absl::FromUnixMicros(micros);
    EXPECT_EQ(FromTimestamp(ToTimestamp(time)), time) << micros;
  }
}

TEST(ProtoTimeTest, BeforeTheEpochNanosecondsCountForward) {
  const auto timestamp = ToTimestamp(absl::FromUnixMicros(-1));
  EXPECT_EQ(timestamp.seconds(), -1);
  EXPECT_EQ(timestamp.nanos(), 999'999'000);
}

TEST(ProtoTimeTest, WhatIsBelowAMicrosecondIsDroppedTowardsThePast) {
  const absl::Time time = absl::FromUnixMicros(1'800'000'000'000'001);
  for (const absl::Duration more : {absl::Nanoseconds(999), absl::Nanoseconds(1), absl::Nanoseconds(1) / 4}) {
    EXPECT_EQ(FromTimestamp(ToTimestamp(time + more)), time) << more;
    EXPECT_EQ(FromTimestamp(ToTimestamp(time - more)), time - absl::Microseconds(1)) << more;
  }
  EXPECT_EQ(FromTimestamp(ToTimestamp(absl::UnixEpoch() - absl::Nanoseconds(1) / 4)), absl::FromUnixMicros(-1));
}

TEST(ProtoTimeTest, TimesBeyondTheRangeBecomeItsEnds) {
  EXPECT_EQ(Text(kFirst), "0001-01-01T00:00:00Z");
  EXPECT_EQ(Text(kFirst - absl::Nanoseconds(1)), "0001-01-01T00:00:00Z");
  EXPECT_EQ(Text(absl::InfinitePast()), "0001-01-01T00:00:00Z");
  EXPECT_EQ(Text(kEnd - absl::Microseconds(1)), "9999-12-31T23:59:59.999999Z");
  EXPECT_EQ(Text(kEnd), "9999-12-31T23:59:59.999999Z");
  EXPECT_EQ(Text(absl::InfiniteFuture()), "9999-12-31T23:59:59.999999Z");
}

TEST(ProtoTimeTest, TimestampsKeepTheirNanoseconds) {
  EXPECT_EQ(At(1'800'000'000, 123'456'789), absl::FromUnixNanos(1'800'000'000'123'456'789));
  EXPECT_EQ(At(-1, 999'999'999), absl::FromUnixNanos(-1));
}

TEST(ProtoTimeTest, MalformedTimestampsAreNeverInfinite) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
  EXPECT_EQ(At(kMax, 999'999'999), kEnd - absl::Nanoseconds(1));
  EXPECT_EQ(At(253'402'300'800, 0), kEnd - absl::Nanoseconds(1));
  EXPECT_EQ(At(kMin, -1), kFirst);
  EXPECT_EQ(At(-62'135'596'800, -1), kFirst);
  EXPECT_EQ(At(10, -1), absl::FromUnixSeconds(10) - absl::Nanoseconds(1));
}

TEST(ProtoTimeTest, DurationsSurviveWithTheirSign) {
  for (const absl::Duration duration : {absl::ZeroDuration(), absl::Nanoseconds(1), absl::Milliseconds(1500),
                                        -absl::Milliseconds(1500), -absl::Nanoseconds(1), absl::Hours(24 * 400)}) {
    EXPECT_EQ(FromProtoDuration(ToProtoDuration(duration)), duration) << duration;
  }
  EXPECT_EQ(ToProtoDuration(-absl::Milliseconds(1500)).seconds(), -1);
  EXPECT_EQ(ToProtoDuration(-absl::Milliseconds(1500)).nanos(), -500'000'000);
}

TEST(ProtoTimeTest, DurationsLoseWhatIsBelowANanosecond) {
  EXPECT_EQ(ToProtoDuration(absl::Seconds(1) + absl::Nanoseconds(1) / 4).nanos(), 0);
  EXPECT_EQ(ToProtoDuration(-absl::Nanoseconds(1) / 4).nanos(), 0);
}

TEST(ProtoTimeTest, DurationsAreNeverInfinite) {
  EXPECT_EQ(TimeUtil::ToString(ToProtoDuration(absl::InfiniteDuration())), "315576000000s");
  EXPECT_EQ(TimeUtil::ToString(ToProtoDuration(-absl::InfiniteDuration())), "-315576000000s");
  EXPECT_EQ(Long(std::numeric_limits<int64_t>::max(), 999'999'999), absl::Seconds(315'576'000'000));
  EXPECT_EQ(Long(std::numeric_limits<int64_t>::min(), -999'999'999), -absl::Seconds(315'576'000'000));
}

}  // namespace
}  // namespace sallyport

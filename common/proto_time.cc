// SPDX-License-Identifier: Apache-2.0
#include "common/proto_time.h"

#include <algorithm>

namespace sallyport {
namespace {

constexpr int64_t kFirstSecond = -62'135'596'800;  // 0001-01-01T00:00:00Z
constexpr int64_t kLastSecond = 253'402'300'799;   // 9999-12-31T23:59:59Z
constexpr int64_t kMicrosPerSecond = 1'000'000;
constexpr absl::Duration kLongest = absl::Seconds(315'576'000'000);

}  // namespace

google::protobuf::Timestamp ToTimestamp(absl::Time time) {
  // ToUnixMicros rounds down, and saturates far outside what a Timestamp has.
  const int64_t micros =
      std::clamp(absl::ToUnixMicros(time), kFirstSecond * kMicrosPerSecond, (kLastSecond + 1) * kMicrosPerSecond - 1);
  int64_t seconds = micros / kMicrosPerSecond;
  int64_t rest = micros % kMicrosPerSecond;
  if (rest < 0) {  // Nanoseconds count forward also before 1970.
    --seconds;
    rest += kMicrosPerSecond;
  }
  google::protobuf::Timestamp timestamp;
  timestamp.set_seconds(seconds);
  timestamp.set_nanos(static_cast<int32_t>(rest * 1000));
  return timestamp;
}

absl::Time FromTimestamp(const google::protobuf::Timestamp& timestamp) {
  const absl::Time time = absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
  return std::clamp(time, absl::FromUnixSeconds(kFirstSecond),
                    absl::FromUnixSeconds(kLastSecond + 1) - absl::Nanoseconds(1));
}

google::protobuf::Duration ToProtoDuration(absl::Duration duration) {
  duration = std::clamp(duration, -kLongest, kLongest);
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
  return proto;
}

absl::Duration FromProtoDuration(const google::protobuf::Duration& duration) {
  return std::clamp(absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos()), -kLongest, kLongest);
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

namespace sallyport {

// In whole microseconds, which is what stores keep: a time compares equal before and after it was stored. What lies
// below is dropped, towards the past. A Timestamp knows the years 1 to 9999; earlier and later times, the infinite ones
// among them, become the first and the last of these.
google::protobuf::Timestamp ToTimestamp(absl::Time time);

// In nanoseconds. Never infinite: what is not between the years 1 and 9999 becomes the first or the last of these.
absl::Time FromTimestamp(const google::protobuf::Timestamp& timestamp);

// In nanoseconds; what lies below is dropped, towards zero. A protobuf Duration reaches 315576000000 s (ten thousand
// years) either way; longer ones, the infinite ones among them, become that.
google::protobuf::Duration ToProtoDuration(absl::Duration duration);

// Never infinite: clamped like the above.
absl::Duration FromProtoDuration(const google::protobuf::Duration& duration);

}  // namespace sallyport

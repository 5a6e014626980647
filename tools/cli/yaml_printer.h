// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <google/protobuf/message.h>

namespace sallyport::cli {

// `message` as YAML that LoadYaml reads back: fields in lowerCamelCase in the order of their numbers, absent ones left
// out, enums by name, times RFC 3339, durations "5s".
std::string ToYaml(const google::protobuf::Message& message);
// Indented proto-JSON, with a newline at the end.
std::string ToJson(const google::protobuf::Message& message);

}  // namespace sallyport::cli

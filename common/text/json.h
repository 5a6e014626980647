// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <nlohmann/json.hpp>

// nlohmann-json without its exceptions. Slow to compile: include it in .cc files.
namespace sallyport {

struct JsonLimits {
  size_t max_bytes = 1 << 20;
  size_t max_depth = 64;
  size_t max_keys = 10'000;  // Members of objects and elements of arrays, in the whole document.
};

// RFC 8259, strictly: UTF-8, no byte order mark, no duplicate keys, nothing behind the value, within the limits.
// INVALID_ARGUMENT otherwise; the message never quotes the input.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, const JsonLimits& limits = {});
// ParseJson that wants an object.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, const JsonLimits& limits = {});
// Compact. Never throws: bytes that are not UTF-8 become U+FFFD.
std::string DumpJson(const nlohmann::json& value);

// Typed reads of an object's member: nothing if `object` is no object, the member is absent or of another type.
std::optional<std::string> JsonString(const nlohmann::json& object, const char* key);
std::optional<int64_t> JsonInt(const nlohmann::json& object, const char* key);
std::optional<bool> JsonBool(const nlohmann::json& object, const char* key);
// Array of strings only.
std::optional<std::vector<std::string>> JsonStrings(const nlohmann::json& object, const char* key);
// Null if absent.
const nlohmann::json* JsonMember(const nlohmann::json& object, const char* key);

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "common/secret.h"

namespace sallyport {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// A field's value. Views must live until Log() returns. A Status is written as "CODE: message".
class LogValue {
 public:
  LogValue(absl::string_view text) : value_(text) {}                      // NOLINT
  LogValue(const std::string& text) : value_(absl::string_view(text)) {}  // NOLINT
  LogValue(const char* text) : value_(absl::string_view(text)) {}         // NOLINT
  LogValue(bool value) : value_(value) {}                                 // NOLINT
  LogValue(double value) : value_(value) {}                               // NOLINT
  LogValue(const absl::Status& status);                                   // NOLINT
  // For the Abseil of Debian 12, whose string_view is a type of its own; in Debian 13 it is std::string_view.
  template <typename View, std::enable_if_t<std::is_same_v<View, std::string_view> &&
                                                !std::is_same_v<absl::string_view, std::string_view>,
                                            int> = 0>
  LogValue(View text) : value_(absl::string_view(text.data(), text.size())) {}  // NOLINT
  template <typename Int, std::enable_if_t<std::is_integral_v<Int>, int> = 0>
  LogValue(Int value) : value_(Widen(value)) {}  // NOLINT
  LogValue(const Secret&) = delete;              // NOLINT

  void AppendJson(std::string& out) const;

 private:
  template <typename Int>
  static auto Widen(Int value) {
    if constexpr (std::is_signed_v<Int>) {
      return static_cast<long long>(value);
    } else {
      return static_cast<unsigned long long>(value);
    }
  }
  std::variant<absl::string_view, std::string, bool, double, long long, unsigned long long> value_;
};

struct LogField {
  absl::string_view name;
  LogValue value;
};

// Writes {"ts":"2026-01-02T03:04:05.000006Z","level":"info","service":"vault","event":"started",…} and a newline to
// stdout with one write(2). `event` is a constant, lower_snake_case; what varies goes into fields. Thread-safe. Never a
// secret, a URL with a query, a header or a message's DebugString().
//   Log(LogLevel::kInfo, "listening", {{"address", listen}, {"port", port}});
void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields = {});
bool LogEnabled(LogLevel level);

// Process-wide; kInfo until set.
void SetLogLevel(LogLevel level);
// "debug", "info", "warning", "error"; empty is info.
std::optional<LogLevel> ParseLogLevel(absl::string_view name);
// Value of "service" in every line.
void SetLogService(const std::string& service);
// Descriptor lines go to; 1 until set. For tests and for programs whose stdout is their result.
void SetLogDescriptor(int fd);

// Appends `text` as a JSON string with its quotes. Bytes that are no UTF-8 become U+FFFD.
void AppendJsonString(absl::string_view text, std::string& out);

}  // namespace sallyport

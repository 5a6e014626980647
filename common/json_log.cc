// SPDX-License-Identifier: Apache-2.0
#include "common/json_log.h"

#include <atomic>
#include <cerrno>
#include <cmath>
#include <memory>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "common/text/utf8.h"

namespace sallyport {
namespace {

struct LogState {
  std::atomic<LogLevel> level{LogLevel::kInfo};
  std::atomic<int> fd{STDOUT_FILENO};
  Mutex mu;
  std::string service ABSL_GUARDED_BY(mu) = "sallyport";
};

LogState& State() {
  static LogState* state = new LogState;  // Never destroyed: threads may log while the process ends.
  return *state;
}

constexpr absl::string_view kLevelNames[] = {"debug", "info", "warning", "error"};

void AppendEscaped(unsigned char c, std::string& out) {
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      absl::StrAppendFormat(&out, "\\u%04x", c);
  }
}

void WriteAll(int fd, const std::string& line) {
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = write(fd, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return;  // Nowhere left to say so.
    }
    done += static_cast<size_t>(n);
  }
}

}  // namespace

void AppendJsonString(absl::string_view text, std::string& out) {
  out += '"';
  while (!text.empty()) {
    const size_t length = Utf8CharacterSize(text);
    const auto c = static_cast<unsigned char>(text[0]);
    if (length == 0) {
      out += "\\ufffd";
      text.remove_prefix(1);
      continue;
    }
    if (length == 1 && (c < 0x20 || c == 0x7F || c == '"' || c == '\\')) {
      AppendEscaped(c, out);
    } else {
      out.append(text.data(), length);
    }
    text.remove_prefix(length);
  }
  out += '"';
}

LogValue::LogValue(const absl::Status& status)
    : value_(status.ok() ? std::string("OK")
                         : absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message())) {}

void LogValue::AppendJson(std::string& out) const {
  if (const auto* view = std::get_if<absl::string_view>(&value_)) {
    AppendJsonString(*view, out);
  } else if (const auto* text = std::get_if<std::string>(&value_)) {
    AppendJsonString(*text, out);
  } else if (const auto* flag = std::get_if<bool>(&value_)) {
    out += *flag ? "true" : "false";
  } else if (const auto* number = std::get_if<double>(&value_)) {
    // JSON has no NaN and no infinity (RFC 8259 section 6).
    absl::StrAppend(&out, std::isfinite(*number) ? absl::StrFormat("%.9g", *number) : "null");
  } else if (const auto* integer = std::get_if<long long>(&value_)) {
    absl::StrAppend(&out, *integer);
  } else {
    absl::StrAppend(&out, std::get<unsigned long long>(value_));
  }
}

bool LogEnabled(LogLevel level) { return level >= State().level.load(std::memory_order_relaxed); }

void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields) {
  if (!LogEnabled(level)) {
    return;
  }
  LogState& state = State();
  std::string line;
  line.reserve(256);
  absl::StrAppend(&line, "{\"ts\":\"",
                  absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", SystemClock().Now(), absl::UTCTimeZone()), "\",\"level\":\"",
                  kLevelNames[static_cast<size_t>(level)], "\",\"service\":");
  {
    MutexLock lock(state.mu);
    AppendJsonString(state.service, line);
  }
  line += ",\"event\":";
  AppendJsonString(event, line);
  for (const LogField& field : fields) {
    line += ',';
    AppendJsonString(field.name, line);
    line += ':';
    field.value.AppendJson(line);
  }
  line += "}\n";
  WriteAll(state.fd.load(std::memory_order_relaxed), line);
}

void SetLogLevel(LogLevel level) { State().level.store(level, std::memory_order_relaxed); }

std::optional<LogLevel> ParseLogLevel(absl::string_view name) {
  if (name.empty()) {
    return LogLevel::kInfo;
  }
  for (size_t i = 0; i < std::size(kLevelNames); ++i) {
    if (name == kLevelNames[i]) {
      return static_cast<LogLevel>(i);
    }
  }
  return std::nullopt;
}

void SetLogService(const std::string& service) {
  LogState& state = State();
  MutexLock lock(state.mu);
  state.service = service;
}

void SetLogDescriptor(int fd) { State().fd.store(fd, std::memory_order_relaxed); }

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace sallyport::edge {

// Names of connections, as the broker gives them: "<app uid>", "<app uid>/<label>", or "sso:<connector>" of what a
// sign-in gave.
inline bool IsSignIn(absl::string_view connection) { return absl::StartsWith(connection, "sso:"); }

// `key` of a CONNECTION invalidation: "<subject>\n<app uid>\n<label>".
inline bool IsOfSignIn(absl::string_view key) {
  const size_t line = key.find('\n');
  return line != absl::string_view::npos && IsSignIn(key.substr(line + 1));
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace sallyport::token_broker {

// Which of a user's accounts of one app: empty for the default one, else 1 to 64 of letters, digits and "._@+-".
inline bool IsAccountLabel(absl::string_view label) {
  return label.size() <= 64 && std::all_of(label.begin(), label.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                  absl::string_view("._@+-").find(c) != absl::string_view::npos;
         });
}

// Name of the connection: "<app uid>", or "<app uid>/<label>".
inline std::string ConnectionNameOf(const std::string& app_uid, const std::string& label) {
  return label.empty() ? app_uid : absl::StrCat(app_uid, "/", label);
}

}  // namespace sallyport::token_broker

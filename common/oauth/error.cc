// SPDX-License-Identifier: Apache-2.0
#include "common/oauth/error.h"

namespace sallyport::oauth {

std::string SafeErrorCode(absl::string_view code) {
  const bool safe = !code.empty() && code.size() <= 64 &&
                    code.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") ==
                        absl::string_view::npos;
  return safe ? std::string(code) : "unreadable_error";
}

}  // namespace sallyport::oauth

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"

namespace sallyport::oauth {

// Scopes that say how to sign in or that a refresh token is wanted ("openid", "offline_access"): many providers leave
// them out of what they say they granted, so that one is not missing because it is not named.
bool IsProtocolScope(absl::string_view scope);

}  // namespace sallyport::oauth

// SPDX-License-Identifier: Apache-2.0
#include "common/oauth/protocol_scopes.h"

#include <algorithm>
#include <array>

namespace sallyport::oauth {

bool IsProtocolScope(absl::string_view scope) {
  static constexpr std::array<absl::string_view, 9> kProtocol = {
      "openid", "profile", "email", "address", "phone", "offline_access", "offline.access", "offline", "refresh_token"};
  return std::find(kProtocol.begin(), kProtocol.end(), scope) != kProtocol.end();
}

}  // namespace sallyport::oauth

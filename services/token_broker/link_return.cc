// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/link_return.h"

#include <algorithm>

#include "common/http/url.h"

namespace sallyport::token_broker {

bool IsAddressOf(const std::vector<std::string>& origins, const std::string& address) {
  constexpr size_t kMaxAddress = 2048;
  // A fragment is the chat's own business: nobody sees it but the browser.
  const absl::StatusOr<Url> url = Url::Parse(address.substr(0, address.find('#')));
  const bool printable = std::all_of(address.begin(), address.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (address.size() > kMaxAddress || !printable || !url.ok()) {
    return false;
  }
  return std::find(origins.begin(), origins.end(), url->origin()) != origins.end();
}

bool MayReturnTo(const registry::v1::McpServer& server, const std::string& address) {
  const auto& allowed = server.policy().return_origins();
  return IsAddressOf({allowed.begin(), allowed.end()}, address);
}

}  // namespace sallyport::token_broker

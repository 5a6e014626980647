// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/http/networks.h"

namespace sallyport::authn {

// As whose attempts those of a client address count: who has one IPv6 address has its /64.
inline std::string CountedAddress(absl::string_view text) {
  const absl::StatusOr<IpAddress> address = IpAddress::Parse(text);
  return address.ok() ? address->Prefix64().ToString() : std::string(text);
}

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "services/authn/identity.h"

namespace sallyport::authn {

// An Identity as it lies in a column: JSON.
std::string EncodeIdentity(const Identity& identity);
// DATA_LOSS if it is not one.
absl::StatusOr<Identity> DecodeIdentity(absl::string_view text);

}  // namespace sallyport::authn

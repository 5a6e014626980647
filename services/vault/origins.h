// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include <google/protobuf/repeated_field.h>

#include "services/vault/envelope.h"

namespace sallyport::vault {

using OriginField = google::protobuf::RepeatedPtrField<std::string>;

// INVALID_ARGUMENT naming the entry that is no origin (RFC 6454 section 6.2, https or http), or more than 64.
absl::Status CheckOrigins(const OriginField& origins);
inline Origins ToOrigins(const OriginField& origins) { return {origins.begin(), origins.end()}; }

}  // namespace sallyport::vault

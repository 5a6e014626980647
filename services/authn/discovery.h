// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"

#include "common/oauth/issuer_metadata.h"

namespace sallyport::authn {

// OpenID Connect Discovery 1.0 section 3.
using Discovery = oauth::IssuerMetadata;

// FAILED_PRECONDITION if an endpoint that signing people in takes is missing, or one is no https URL (http only if the
// issuer's is).
absl::Status CheckDiscovery(const Discovery& discovery);

}  // namespace sallyport::authn

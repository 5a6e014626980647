// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include <google/protobuf/repeated_ptr_field.h>

#include "sallyport/config/v1/services.pb.h"
#include "services/authn/web/clients.h"

namespace sallyport::authn::web {

// Clients of the configuration (`clients`): confidential ones, RFC 6749 section 2.1.

// INVALID_ARGUMENT with the fields for: bad, reserved or repeated client_id; a display name that cannot be shown;
// client_secret_file absent, unusable, or with a secret that is too short; redirect URIs that are none, not https, or
// lead to a program on the user's computer, which cannot keep a secret; slugs that no server can have.
absl::Status ValidateRegisteredClients(const google::protobuf::RepeatedPtrField<config::v1::RegisteredClient>& config);

// With the hashes of their secrets, which are read now and not kept. Errors as above.
absl::StatusOr<std::vector<Client>> ReadRegisteredClients(
    const google::protobuf::RepeatedPtrField<config::v1::RegisteredClient>& config);

}  // namespace sallyport::authn::web

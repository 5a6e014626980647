// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "services/registry/validation.h"

// Rules that several kinds of resources share.
namespace sallyport::registry {

void ValidateSlug(absl::string_view slug, Findings& findings);
void ValidateTexts(absl::string_view display_name, absl::string_view description, Findings& findings);
void ValidateScopes(const google::protobuf::RepeatedPtrField<std::string>& scopes, const std::string& field,
                    Findings& findings);
// Parameters to add to a request of OAuth: none that the protocol sets.
void ValidateParams(const google::protobuf::Map<std::string, std::string>& params, const std::string& field,
                    Findings& findings);

}  // namespace sallyport::registry

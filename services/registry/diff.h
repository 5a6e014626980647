// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include <google/protobuf/message.h>

#include "sallyport/registry/v1/registry.pb.h"

namespace sallyport::registry {

// What a person would call changed between two versions of a resource (same message type): every leaf field that
// differs, by its JSON path. Output-only fields do not count. Secrets differ when their version does, and show as
// "(secret)".
std::vector<v1::ApplyResponse::FieldChange> DiffResources(const google::protobuf::Message& before,
                                                          const google::protobuf::Message& after);

}  // namespace sallyport::registry

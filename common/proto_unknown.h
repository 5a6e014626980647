// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/message.h>

namespace sallyport {

// Whether `message`, or one inside it, holds a field, or a value of an enum, that this program's schema does not have:
// a newer program wrote it.
bool HasUnknownFields(const google::protobuf::Message& message);

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/proto_unknown.h"

#include <vector>

namespace sallyport {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Calls look(index) for each element of a field, -1 where there is one; until one is true.
template <typename Look>
bool Any(const Message& message, const FieldDescriptor* field, Look&& look) {
  if (!field->is_repeated()) return look(-1);
  const int size = message.GetReflection()->FieldSize(message, field);
  for (int i = 0; i < size; ++i) {
    if (look(i)) return true;
  }
  return false;
}

bool HoldsUnknown(const Message& message, const FieldDescriptor* field) {
  const auto* reflection = message.GetReflection();
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return Any(message, field, [&](int i) {
      return HasUnknownFields(i < 0 ? reflection->GetMessage(message, field)
                                    : reflection->GetRepeatedMessage(message, field, i));
    });
  }
  if (field->cpp_type() != FieldDescriptor::CPPTYPE_ENUM) return false;
  return Any(message, field, [&](int i) {
    const int value =
        i < 0 ? reflection->GetEnumValue(message, field) : reflection->GetRepeatedEnumValue(message, field, i);
    return field->enum_type()->FindValueByNumber(value) == nullptr;
  });
}

}  // namespace

bool HasUnknownFields(const Message& message) {
  if (!message.GetReflection()->GetUnknownFields(message).empty()) return true;
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (HoldsUnknown(message, field)) return true;
  }
  return false;
}

}  // namespace sallyport

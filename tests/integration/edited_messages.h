// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

namespace sallyport {

// Times: nothing is decided by those of a configuration.
inline bool IsTime(const google::protobuf::Descriptor* message) {
  return message != nullptr && message->full_name() == "google.protobuf.Timestamp";
}

// Calls `use` for every field that holds no message, in whatever message it is; times excepted.
using FieldUse = std::function<void(google::protobuf::Message&, const google::protobuf::FieldDescriptor&, int index)>;
inline void ForEachField(google::protobuf::Message& message, const FieldUse& use) {
  if (IsTime(message.GetDescriptor())) return;
  const auto& reflection = *message.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
        use(message, *field, i);
      } else if (field->is_repeated()) {
        ForEachField(*reflection.MutableRepeatedMessage(&message, field, i), use);
      } else {
        ForEachField(*reflection.MutableMessage(&message, field), use);
      }
    }
  }
}

inline std::string TextOf(const google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field,
                          int index) {
  if (field.cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_STRING) return "";
  const auto& reflection = *message.GetReflection();
  return field.is_repeated() ? reflection.GetRepeatedString(message, &field, index)
                             : reflection.GetString(message, &field);
}
inline void SetText(google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field, int index,
                    const std::string& text) {
  const auto& reflection = *message.GetReflection();
  if (field.is_repeated()) return reflection.SetRepeatedString(&message, &field, index, text);
  reflection.SetString(&message, &field, text);
}

// `to` with a field as it is in `from`.
inline std::string WithFieldOf(const google::protobuf::Message& from, const google::protobuf::Message& to,
                               const google::protobuf::FieldDescriptor& field) {
  std::unique_ptr<google::protobuf::Message> edited(to.New());
  edited->CopyFrom(to);
  std::unique_ptr<google::protobuf::Message> only(from.New());
  only->CopyFrom(from);
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  only->GetReflection()->ListFields(*only, &fields);
  for (const google::protobuf::FieldDescriptor* other : fields) {
    if (other != &field) only->GetReflection()->ClearField(only.get(), other);
  }
  edited->GetReflection()->ClearField(edited.get(), &field);
  edited->MergeFrom(*only);
  return edited->SerializeAsString();
}

}  // namespace sallyport

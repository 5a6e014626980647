// SPDX-License-Identifier: Apache-2.0
#include "absl/strings/str_cat.h"

#include "sallyport/common/v1/options.pb.h"
#include "services/registry/validation.h"

namespace sallyport::registry {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

void RefuseUnsupportedValue(const Message& message, const FieldDescriptor* field, const std::string& path,
                            Findings& findings) {
  const Reflection* reflection = message.GetReflection();
  const auto check = [&](const google::protobuf::EnumValueDescriptor* value) {
    if (field->enum_type()->FindValueByNumber(value->number()) == nullptr) {
      findings.Refuse(path, "is not one of the values this version knows");
    } else if (value->options().GetExtension(common::v1::value_not_yet_supported)) {
      findings.Refuse(path, absl::StrCat("not yet supported: ", path, " ", value->name()));
    }
  };
  if (!field->is_repeated()) return check(reflection->GetEnum(message, field));
  for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
    check(reflection->GetRepeatedEnum(message, field, i));
  }
}

void Descend(const Message& message, const FieldDescriptor* field, const std::string& path, Findings& findings) {
  const Reflection* reflection = message.GetReflection();
  if (field->is_map()) return;  // Maps here hold strings only.
  if (!field->is_repeated()) return RefuseUnsupported(reflection->GetMessage(message, field), path, findings);
  for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
    RefuseUnsupported(reflection->GetRepeatedMessage(message, field, i), absl::StrCat(path, "[", i, "]"), findings);
  }
}

}  // namespace

void RefuseUnsupported(const Message& message, const std::string& prefix, Findings& findings) {
  std::vector<const FieldDescriptor*> set_fields;
  message.GetReflection()->ListFields(message, &set_fields);
  for (const FieldDescriptor* field : set_fields) {
    const std::string path = prefix.empty() ? field->json_name() : absl::StrCat(prefix, ".", field->json_name());
    if (field->options().GetExtension(common::v1::not_yet_supported)) {
      findings.Refuse(path, absl::StrCat("not yet supported: ", path));
      continue;
    }
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) RefuseUnsupportedValue(message, field, path, findings);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) Descend(message, field, path, findings);
  }
}

}  // namespace sallyport::registry

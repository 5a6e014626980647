// SPDX-License-Identifier: Apache-2.0
#include "services/registry/secret_fields.h"

#include "absl/strings/str_cat.h"

#include "common/http/field.h"
#include "sallyport/common/v1/options.pb.h"
#include "sallyport/registry/v1/mcp_server.pb.h"

namespace sallyport::registry {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Visit = std::function<void(const SecretField&)>;

struct Path {
  std::string record;
  std::string json;
  Path Child(const FieldDescriptor* field) const {
    const auto join = [](const std::string& prefix, const std::string& name) {
      return prefix.empty() ? name : absl::StrCat(prefix, ".", name);
    };
    return {join(record, field->name()), join(json, field->json_name())};
  }
};

using Presence = SecretField::Presence;

bool IsPrivateKey(const FieldDescriptor* field) { return field->options().GetExtension(common::v1::private_key_pem); }
bool IsClientCertificate(const FieldDescriptor* field) {
  return field->options().GetExtension(common::v1::client_certificate_pem);
}

// A client that can have either proves itself with the one that its way to authenticate names. OAuth apps may be public
// clients, which have none.
Presence PresenceOf(const Message& message, const FieldDescriptor* field) {
  if (IsClientCertificate(field) || message.GetDescriptor() == v1::App::descriptor()) return Presence::kOptional;
  const auto* credential = dynamic_cast<const v1::Credential*>(&message);
  if (credential != nullptr && credential->owner() == v1::Credential::USER) return Presence::kOptional;
  const FieldDescriptor* key = message.GetDescriptor()->FindFieldByName("private_key");
  if (key == nullptr) return Presence::kRequired;
  const FieldDescriptor* auth = message.GetDescriptor()->FindFieldByName("client_auth");
  const bool by_key = message.GetReflection()->GetEnumValue(message, auth) == v1::PRIVATE_KEY_JWT;
  if (IsPrivateKey(field) != by_key) return Presence::kUnused;
  return by_key ? Presence::kGenerated : Presence::kRequired;
}

void Walk(Message& message, const Path& path, const Visit& visit);

void WalkRepeated(Message& message, const FieldDescriptor* field, const Path& path, const Visit& visit) {
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
    Message* element = reflection->MutableRepeatedMessage(&message, field, i);
    const Path child = path.Child(field);
    const auto* header = dynamic_cast<const v1::OutboundHeader*>(element);
    const std::string key = header != nullptr ? NormalizeFieldName(header->name()) : absl::StrCat(i);
    Walk(*element, {absl::StrCat(child.record, ".", key), absl::StrCat(child.json, "[", i, "]")}, visit);
  }
}

void Walk(Message& message, const Path& path, const Visit& visit) {
  const auto* descriptor = message.GetDescriptor();
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_map()) continue;
    if (field->is_repeated()) {
      WalkRepeated(message, field, path, visit);
      continue;
    }
    const bool is_secret = field->message_type() == common::v1::Secret::descriptor();
    const bool there = reflection->HasField(message, field);
    if (!there && (!is_secret || field->containing_oneof() != nullptr)) continue;
    Message* child = reflection->MutableMessage(&message, field);
    const Path child_path = path.Child(field);
    if (is_secret) {
      const bool of_type = !IsClientCertificate(field) && descriptor != v1::McpServer::descriptor();
      visit({child_path.record, child_path.json, PresenceOf(message, field), IsPrivateKey(field),
             IsClientCertificate(field), of_type, dynamic_cast<common::v1::Secret*>(child)});
    } else {
      Walk(*child, child_path, visit);
    }
  }
}

}  // namespace

void ForEachSecret(Message& message, const Visit& visit) { Walk(message, {}, visit); }

void HideSecretInternals(Message& message) {
  ForEachSecret(message, [](const SecretField& field) {
    field.secret->clear_input();
    field.secret->clear_vault_record();
  });
  const FieldDescriptor* binding = message.GetDescriptor()->FindFieldByName("binding");
  if (binding != nullptr) message.GetReflection()->ClearField(&message, binding);
}

}  // namespace sallyport::registry

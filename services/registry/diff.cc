// SPDX-License-Identifier: Apache-2.0
#include "services/registry/diff.h"

#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>
#include <nlohmann/json.hpp>

#include "sallyport/common/v1/secret.pb.h"
#include "services/registry/secret_fields.h"

namespace sallyport::registry {
namespace {

using Leaves = std::map<std::string, std::string>;

void Collect(const nlohmann::json& value, const std::string& path, Leaves& leaves) {
  if (value.is_object() && !value.empty()) {
    for (const auto& [key, member] : value.items())
      Collect(member, path.empty() ? key : absl::StrCat(path, ".", key), leaves);
  } else if (value.is_array() && !value.empty()) {
    for (size_t i = 0; i < value.size(); ++i) Collect(value[i], absl::StrCat(path, "[", i, "]"), leaves);
  } else if (!path.empty()) {  // A message without any field has no leaf at all.
    leaves[path] = value.dump();
  }
}

// Top-level bookkeeping is not a change anybody made.
void DropBookkeeping(nlohmann::json& json) {
  for (const char* name : {"uid", "version", "createdAt", "updatedAt", "binding"}) json.erase(name);
}

Leaves LeavesOf(const google::protobuf::Message& message, std::map<std::string, int64_t>& secret_versions) {
  std::unique_ptr<google::protobuf::Message> copy(message.New());
  copy->CopyFrom(message);
  std::vector<std::string> secret_paths;
  ForEachSecret(*copy, [&](const SecretField& field) {
    if (field.secret->set()) secret_versions[field.json_path] = field.secret->version();
    secret_paths.push_back(field.json_path);
    field.secret->Clear();
  });
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(*copy, &text).ok()) return {};
  nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) return {};
  DropBookkeeping(json);
  Leaves leaves;
  Collect(json, "", leaves);
  for (const std::string& path : secret_paths) leaves.erase(path);
  return leaves;
}

v1::ApplyResponse::FieldChange Change(const std::string& field, const std::string& before, const std::string& after) {
  v1::ApplyResponse::FieldChange change;
  change.set_field(field);
  change.set_before(before);
  change.set_after(after);
  return change;
}

}  // namespace

std::vector<v1::ApplyResponse::FieldChange> DiffResources(const google::protobuf::Message& before,
                                                          const google::protobuf::Message& after) {
  std::map<std::string, int64_t> secrets_before;
  std::map<std::string, int64_t> secrets_after;
  Leaves old_leaves = LeavesOf(before, secrets_before);
  const Leaves new_leaves = LeavesOf(after, secrets_after);
  std::vector<v1::ApplyResponse::FieldChange> changes;
  for (const auto& [path, value] : new_leaves) {
    const auto old = old_leaves.extract(path);
    const std::string was = old.empty() ? "" : old.mapped();
    if (was != value) changes.push_back(Change(path, was, value));
  }
  for (const auto& [path, value] : old_leaves) changes.push_back(Change(path, value, ""));
  for (const auto& [path, version] : secrets_after) {
    const auto old = secrets_before.find(path);
    if (old == secrets_before.end()) {
      changes.push_back(Change(path, "", "(secret)"));
    } else if (old->second != version) {
      changes.push_back(Change(path, "(secret)", "(secret)"));
    }
  }
  for (const auto& [path, version] : secrets_before) {
    if (!secrets_after.contains(path)) changes.push_back(Change(path, "(secret)", ""));
  }
  return changes;
}

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#include "common/config/yaml_config.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/util/time_util.h>
#include <sys/stat.h>
#include <yaml-cpp/yaml.h>

#include "common/error.h"
#include "common/files.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "sallyport/common/v1/secret.pb.h"

namespace sallyport {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Deeper than any schema of ours; a guard against hostile nesting.
constexpr int kMaxDepth = 32;
constexpr size_t kMaxYamlBytes = 4 << 20;

std::string Shown(const std::string& text) {
  return text.size() <= 64 ? text : absl::StrCat(text.substr(0, 61), "...");
}

int LineOfNode(const YAML::Node& node) { return node.Mark().is_null() ? 1 : node.Mark().line + 1; }

bool IsString(const YAML::Node& node) { return node.Tag() == "!"; }  // Quoted.

std::string Join(const std::string& path, const std::string& key) {
  return path.empty() ? key : absl::StrCat(path, ".", key);
}

// Plain (unquoted) text, as numbers and booleans are written.
std::optional<std::string> Plain(const YAML::Node& node) {
  if (!node.IsScalar() || IsString(node)) {
    return std::nullopt;
  }
  return node.Scalar();
}

class Loader {
 public:
  Loader(const std::string& file, const YamlOptions& options, FieldLines& lines)
      : file_(file), options_(options), lines_(lines) {}

  absl::Status Fill(const YAML::Node& node, const std::string& path, int depth, Message* message);

 private:
  absl::Status Error(const YAML::Node& node, const std::string& path, absl::string_view what) const {
    if (!path.empty()) {
      lines_.Set(path, LineOfNode(node));
      return lines_.Error(path, what);
    }
    return InvalidField("", absl::StrCat(file_, ":", LineOfNode(node), ": ", what));
  }

  absl::Status FillField(const YAML::Node& node, const std::string& path, int depth, const FieldDescriptor* field,
                         Message* message);
  absl::Status FillList(const YAML::Node& node, const std::string& path, int depth, const FieldDescriptor* field,
                        Message* message);
  absl::Status FillMap(const YAML::Node& node, const std::string& path, int depth, const FieldDescriptor* field,
                       Message* message);
  absl::Status FillMessage(const YAML::Node& node, const std::string& path, int depth, Message* message);
  // Sets, or adds to a repeated field.
  absl::Status FillScalar(const YAML::Node& node, const std::string& path, const FieldDescriptor* field,
                          Message* message);
  absl::Status FillEnum(const YAML::Node& node, const std::string& path, const FieldDescriptor* field,
                        Message* message);
  absl::Status FillDuration(const YAML::Node& node, const std::string& path, Message* message) const;
  absl::Status FillTimestamp(const YAML::Node& node, const std::string& path, Message* message) const;
  absl::Status FillValueFrom(const YAML::Node& node, const std::string& path, Message* message) const;
  absl::StatusOr<std::string> ReadValue(const YAML::Node& node, const std::string& path) const;

  const std::string& file_;
  const YamlOptions& options_;
  FieldLines& lines_;
};

const FieldDescriptor* FindByJsonName(const google::protobuf::Descriptor& type, const std::string& key) {
  for (int i = 0; i < type.field_count(); ++i) {
    if (type.field(i)->json_name() == key) {
      return type.field(i);
    }
  }
  return nullptr;
}

absl::Status Loader::Fill(const YAML::Node& node, const std::string& path, int depth, Message* message) {
  if (depth > kMaxDepth) {
    return Error(node, path, "is nested too deeply");
  }
  if (!node.IsMap()) {
    return Error(node, path, "must be a mapping of fields");
  }
  const google::protobuf::Descriptor& type = *message->GetDescriptor();
  std::set<std::string> seen;
  std::map<std::string, std::string> chosen;  // Name of a oneof to the key that set it.
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) {
      return Error(entry.first, path, "has a key that is no name");
    }
    const std::string key = entry.first.Scalar();
    const std::string field_path = Join(path, key);
    const FieldDescriptor* field = FindByJsonName(type, key);
    if (field == nullptr) {
      return Error(entry.first, Join(path, Shown(key)), "unknown field");
    }
    if (!seen.insert(key).second) {
      return Error(entry.first, field_path, "is given twice");
    }
    lines_.Set(field_path, LineOfNode(entry.first));
    if (entry.second.IsNull()) {
      continue;  // "field:" with nothing behind it is absent.
    }
    if (const auto* oneof = field->real_containing_oneof(); oneof != nullptr) {
      const auto [other, first] = chosen.emplace(oneof->name(), key);
      if (!first) {
        return Error(entry.first, field_path,
                     absl::StrCat("only one of ", other->second, " and ", key, " may be given"));
      }
    }
    RETURN_IF_ERROR(FillField(entry.second, field_path, depth, field, message));
  }
  return absl::OkStatus();
}

absl::Status Loader::FillField(const YAML::Node& node, const std::string& path, int depth, const FieldDescriptor* field,
                               Message* message) {
  if (field->is_map()) {
    return FillMap(node, path, depth, field, message);
  }
  if (field->is_repeated()) {
    return FillList(node, path, depth, field, message);
  }
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return FillMessage(node, path, depth, message->GetReflection()->MutableMessage(message, field));
  }
  return FillScalar(node, path, field, message);
}

absl::Status Loader::FillList(const YAML::Node& node, const std::string& path, int depth, const FieldDescriptor* field,
                              Message* message) {
  if (!node.IsSequence()) {
    return Error(node, path, "must be a list");
  }
  for (size_t i = 0; i < node.size(); ++i) {
    const std::string item = absl::StrCat(path, "[", i, "]");
    lines_.Set(item, LineOfNode(node[i]));
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      RETURN_IF_ERROR(FillMessage(node[i], item, depth, message->GetReflection()->AddMessage(message, field)));
    } else {
      RETURN_IF_ERROR(FillScalar(node[i], item, field, message));
    }
  }
  return absl::OkStatus();
}

absl::Status Loader::FillMap(const YAML::Node& node, const std::string& path, int depth, const FieldDescriptor* field,
                             Message* message) {
  if (!node.IsMap()) {
    return Error(node, path, "must be a mapping");
  }
  const FieldDescriptor* value_field = field->message_type()->map_value();
  std::set<std::string> seen;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) {
      return Error(entry.first, path, "has a key that is no name");
    }
    const std::string key = entry.first.Scalar();
    const std::string entry_path = Join(path, key);
    if (!seen.insert(key).second) {
      return Error(entry.first, entry_path, "is given twice");
    }
    lines_.Set(entry_path, LineOfNode(entry.first));
    Message* added = message->GetReflection()->AddMessage(message, field);
    RETURN_IF_ERROR(FillScalar(entry.first, entry_path, field->message_type()->map_key(), added));
    RETURN_IF_ERROR(FillField(entry.second, entry_path, depth + 1, value_field, added));
  }
  return absl::OkStatus();
}

absl::Status Loader::FillMessage(const YAML::Node& node, const std::string& path, int depth, Message* message) {
  const std::string& type = message->GetDescriptor()->full_name();
  if (type == "google.protobuf.Duration") {
    return FillDuration(node, path, message);
  }
  if (type == "google.protobuf.Timestamp") {
    return FillTimestamp(node, path, message);
  }
  if (type == "sallyport.common.v1.Secret" && node.IsMap() && node["valueFrom"]) {
    return FillValueFrom(node, path, message);
  }
  return Fill(node, path, depth + 1, message);
}

template <typename Int>
std::optional<Int> ParseInt(const YAML::Node& node) {
  const std::optional<std::string> text = Plain(node);
  Int value = 0;
  if (!text || !absl::SimpleAtoi(*text, &value)) {
    return std::nullopt;
  }
  return value;
}

absl::Status Loader::FillScalar(const YAML::Node& node, const std::string& path, const FieldDescriptor* field,
                                Message* message) {
  const google::protobuf::Reflection* reflection = message->GetReflection();
  const bool add = field->is_repeated();
  const auto put = [&](auto value, auto setter, auto adder) {
    add ? (reflection->*adder)(message, field, value) : (reflection->*setter)(message, field, value);
    return absl::OkStatus();
  };
  using R = google::protobuf::Reflection;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      if (const auto value = ParseInt<int32_t>(node)) {
        return put(*value, &R::SetInt32, &R::AddInt32);
      }
      return Error(node, path, "must be a whole number of 32 bits");
    case FieldDescriptor::CPPTYPE_INT64:
      if (const auto value = ParseInt<int64_t>(node)) {
        return put(*value, &R::SetInt64, &R::AddInt64);
      }
      return Error(node, path, "must be a whole number");
    case FieldDescriptor::CPPTYPE_UINT32:
      if (const auto value = ParseInt<uint32_t>(node)) {
        return put(*value, &R::SetUInt32, &R::AddUInt32);
      }
      return Error(node, path, "must be a whole number of 32 bits, not negative");
    case FieldDescriptor::CPPTYPE_UINT64:
      if (const auto value = ParseInt<uint64_t>(node)) {
        return put(*value, &R::SetUInt64, &R::AddUInt64);
      }
      return Error(node, path, "must be a whole number, not negative");
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT: {
      const std::optional<std::string> text = Plain(node);
      double value = 0;
      if (!text || !absl::SimpleAtod(*text, &value) || !std::isfinite(value)) {
        return Error(node, path, "must be a number");
      }
      return field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE
                 ? put(value, &R::SetDouble, &R::AddDouble)
                 : put(static_cast<float>(value), &R::SetFloat, &R::AddFloat);
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      // Only JSON's two words: YAML 1.1's "no" and "off" surprise people.
      const std::optional<std::string> text = Plain(node);
      if (!text || (*text != "true" && *text != "false")) {
        return Error(node, path, "must be true or false");
      }
      return put(*text == "true", &R::SetBool, &R::AddBool);
    }
    case FieldDescriptor::CPPTYPE_ENUM:
      return FillEnum(node, path, field, message);
    case FieldDescriptor::CPPTYPE_STRING: {
      if (!node.IsScalar()) {
        return Error(node, path, "must be text");
      }
      std::string text = node.Scalar();
      if (field->type() == FieldDescriptor::TYPE_BYTES) {
        absl::StatusOr<std::string> bytes = Base64Decode(text);
        if (!bytes.ok()) {
          return Error(node, path, "must be base64");
        }
        text = *std::move(bytes);
      }
      add ? reflection->AddString(message, field, std::move(text))
          : reflection->SetString(message, field, std::move(text));
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  return Error(node, path, "has a type that cannot be configured");
}

absl::Status Loader::FillEnum(const YAML::Node& node, const std::string& path, const FieldDescriptor* field,
                              Message* message) {
  const google::protobuf::EnumValueDescriptor* value =
      node.IsScalar() ? field->enum_type()->FindValueByName(node.Scalar()) : nullptr;
  if (value == nullptr || value->number() == 0) {
    std::string names;
    for (int i = 0; i < field->enum_type()->value_count(); ++i) {
      if (field->enum_type()->value(i)->number() != 0) {
        absl::StrAppend(&names, names.empty() ? "" : ", ", field->enum_type()->value(i)->name());
      }
    }
    return Error(node, path, absl::StrCat("must be one of ", names));
  }
  if (field->is_repeated()) {
    message->GetReflection()->AddEnum(message, field, value);
  } else {
    message->GetReflection()->SetEnum(message, field, value);
  }
  return absl::OkStatus();
}

absl::Status Loader::FillDuration(const YAML::Node& node, const std::string& path, Message* message) const {
  absl::Duration duration;
  if (!node.IsScalar() || !absl::ParseDuration(node.Scalar(), &duration) || duration == absl::InfiniteDuration() ||
      duration == -absl::InfiniteDuration() || absl::AbsDuration(duration) > absl::Hours(24 * 366 * 100)) {
    return Error(node, path, "must be a duration such as \"250ms\", \"5s\" or \"1h30m\"");
  }
  message->ParseFromString(ToProtoDuration(duration).SerializeAsString());  // The message may be of a dynamic type.
  return absl::OkStatus();
}

absl::Status Loader::FillTimestamp(const YAML::Node& node, const std::string& path, Message* message) const {
  google::protobuf::Timestamp proto;
  if (!node.IsScalar() || !google::protobuf::util::TimeUtil::FromString(node.Scalar(), &proto)) {
    return Error(node, path, "must be a time such as \"2026-01-02T03:04:05Z\"");
  }
  message->ParseFromString(proto.SerializeAsString());
  return absl::OkStatus();
}

absl::StatusOr<std::string> Loader::ReadValue(const YAML::Node& node, const std::string& path) const {
  if (!node.IsMap() || node.size() != 1 || !node.begin()->first.IsScalar() || !node.begin()->second.IsScalar()) {
    return Error(node, path, "must be {env: NAME} or {file: path}");
  }
  const std::string kind = node.begin()->first.Scalar();
  const std::string name = node.begin()->second.Scalar();
  if (kind == "env") {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr || *value == '\0') {
      return Error(node, path, absl::StrCat("environment variable ", Shown(name), " is not set"));
    }
    return std::string(value);
  }
  if (kind != "file") {
    return Error(node, path, "must be {env: NAME} or {file: path}");
  }
  const size_t slash = file_.rfind('/');
  const std::string file =
      absl::StartsWith(name, "/") || slash == std::string::npos ? name : absl::StrCat(file_.substr(0, slash + 1), name);
  absl::StatusOr<std::string> value = ReadFile(file, 64 << 10);
  if (!value.ok()) {
    return Error(node, path, value.status().message());
  }
  if (absl::EndsWith(*value, "\n")) {
    value->pop_back();
  }
  if (value->empty()) {
    return Error(node, path, absl::StrCat("the file ", file, " is empty"));
  }
  return *std::move(value);
}

absl::Status Loader::FillValueFrom(const YAML::Node& node, const std::string& path, Message* message) const {
  if (!options_.resolve_value_from) {
    return Error(node["valueFrom"], path, "valueFrom is not accepted here");
  }
  if (node.size() != 1) {
    return Error(node, path, "valueFrom excludes every other field");
  }
  ASSIGN_OR_RETURN(std::string value, ReadValue(node["valueFrom"], Join(path, "valueFrom")));
  message->GetReflection()->SetString(message, message->GetDescriptor()->FindFieldByName("value"), std::move(value));
  return absl::OkStatus();
}

// yaml-cpp throws; nothing of that leaves this function.
absl::Status ParseAndFill(absl::string_view text, const std::string& file, const YamlOptions& options,
                          FieldLines& lines, Message* message) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() > 1) {
      return InvalidField("", absl::StrCat(file, ": must hold one YAML document"));
    }
    if (documents.empty() || documents[0].IsNull()) {
      return absl::OkStatus();
    }
    return Loader(file, options, lines).Fill(documents[0], "", 0, message);
  } catch (const YAML::Exception& error) {
    return InvalidField("", absl::StrCat(file, ":", error.mark.is_null() ? 1 : error.mark.line + 1, ": ", error.msg));
  } catch (const std::exception& error) {
    return InvalidField("", absl::StrCat(file, ": ", error.what()));
  }
}

}  // namespace

int FieldLines::LineOf(absl::string_view path) const {
  while (!path.empty()) {
    if (const auto found = lines_.find(std::string(path)); found != lines_.end()) {
      return found->second;
    }
    const size_t cut = path.find_last_of(".[");
    path = cut == absl::string_view::npos ? absl::string_view() : path.substr(0, cut);
  }
  return 1;
}

absl::Status FieldLines::Error(absl::string_view path, absl::string_view message) const {
  ErrorDetail detail;
  detail.violations = {{std::string(path), std::string(message)}};
  return WithDetail(absl::InvalidArgumentError(absl::StrCat(file_, ":", LineOf(path), ": field ", path, ": ", message)),
                    detail);
}

absl::Status FieldLines::Locate(const absl::Status& status) const {
  const ErrorDetail detail = DetailOf(status);
  if (detail.violations.empty()) {
    return status;
  }
  std::string message;
  for (const ErrorDetail::Violation& violation : detail.violations) {
    absl::StrAppend(&message, message.empty() ? "" : "\n", file_, ":", LineOf(violation.field), ": field ",
                    violation.field, ": ", violation.message);
  }
  return WithDetail(absl::Status(status.code(), message), detail);
}

absl::Status LoadYaml(absl::string_view text, const std::string& file_name, Message* message,
                      const YamlOptions& options, FieldLines* lines) {
  message->Clear();
  FieldLines local(file_name);
  if (text.size() > kMaxYamlBytes) {
    return InvalidField("", absl::StrCat(file_name, ": is larger than 4 MiB"));
  }
  absl::Status status = ParseAndFill(text, file_name, options, local, message);
  if (lines != nullptr) {
    *lines = std::move(local);
  }
  return status;
}

absl::Status LoadYamlFile(const std::string& path, Message* message, const YamlOptions& options, FieldLines* lines) {
  struct stat info = {};
  if (options.refuse_writable_by_others && stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
      (info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": others than its owner may write this file; run chmod go-w ", path));
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return LoadYaml(text, path, message, options, lines);
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/yaml_printer.h"

#include <algorithm>
#include <array>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>

#include "common/text/base64url.h"
#include "common/text/json.h"

namespace sallyport::cli {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using google::protobuf::util::TimeUtil;

// Text that means itself in YAML without quotes, whatever version of YAML reads it.
bool IsPlain(const std::string& text) {
  static constexpr std::array<absl::string_view, 9> kWords = {"true", "false", "null", "yes", "no",
                                                              "on",   "off",   "y",    "n"};
  if (text.empty() || !absl::ascii_isalpha(static_cast<unsigned char>(text[0])) || text.back() == ':') return false;
  if (std::find(kWords.begin(), kWords.end(), absl::AsciiStrToLower(text)) != kWords.end()) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
           std::string_view("_-./:@").find(c) != std::string::npos;
  });
}

// A JSON string is a double-quoted YAML scalar.
std::string Quoted(const std::string& text) { return IsPlain(text) ? text : DumpJson(text); }

class Printer {
 public:
  std::string Print(const Message& message) {
    Fields(message, 0);
    return std::move(out_);
  }

 private:
  static std::string Indent(int depth) { return std::string(static_cast<size_t>(depth) * 2, ' '); }

  void Fields(const Message& message, int depth) {
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      absl::StrAppend(&out_, Indent(depth), field->json_name(), ":");
      if (field->is_map()) {
        Map(message, field, depth + 1);
      } else if (field->is_repeated()) {
        List(message, field, depth + 1);
      } else {
        Value(message, field, -1, depth + 1);
      }
    }
  }

  void Map(const Message& message, const FieldDescriptor* field, int depth) {
    out_ += "\n";
    const Reflection* reflection = message.GetReflection();
    std::vector<const Message*> entries;
    entries.reserve(static_cast<size_t>(reflection->FieldSize(message, field)));
    for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
      entries.push_back(&reflection->GetRepeatedMessage(message, field, i));
    }
    const FieldDescriptor* key = field->message_type()->map_key();
    const auto text = [key](const Message* entry) { return Scalar(*entry, key, -1); };
    std::sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) { return text(a) < text(b); });
    for (const Message* entry : entries) {
      absl::StrAppend(&out_, Indent(depth), text(entry), ":");
      Value(*entry, field->message_type()->map_value(), -1, depth + 1);
    }
  }

  void List(const Message& message, const FieldDescriptor* field, int depth) {
    out_ += "\n";
    for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i) {
      absl::StrAppend(&out_, Indent(depth), "-");
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
        Value(message, field, i, depth + 1);
        continue;
      }
      // The first field stands on the line of the dash.
      const size_t begin = out_.size();
      Value(message, field, i, depth + 1);
      if (out_[begin] == '\n') out_.erase(begin, Indent(depth + 1).size());
      out_[begin] = ' ';
    }
  }

  // Behind "name:" or "-": a scalar on the same line, or fields on the lines below.
  void Value(const Message& message, const FieldDescriptor* field, int index, int depth) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      absl::StrAppend(&out_, " ", Scalar(message, field, index), "\n");
      return;
    }
    const Reflection* reflection = message.GetReflection();
    const Message& value =
        index < 0 ? reflection->GetMessage(message, field) : reflection->GetRepeatedMessage(message, field, index);
    if (const auto* time = dynamic_cast<const google::protobuf::Timestamp*>(&value)) {
      absl::StrAppend(&out_, " \"", TimeUtil::ToString(*time), "\"\n");
    } else if (const auto* duration = dynamic_cast<const google::protobuf::Duration*>(&value)) {
      absl::StrAppend(&out_, " ", TimeUtil::ToString(*duration), "\n");
    } else if (std::vector<const FieldDescriptor*> fields;
               value.GetReflection()->ListFields(value, &fields), fields.empty()) {
      out_ += " {}\n";
    } else {
      out_ += "\n";
      Fields(value, depth);
    }
  }

  static std::string Scalar(const Message& message, const FieldDescriptor* field, int index) {
    const Reflection* r = message.GetReflection();
    const bool one = index < 0;
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return absl::StrCat(one ? r->GetInt32(message, field) : r->GetRepeatedInt32(message, field, index));
      case FieldDescriptor::CPPTYPE_INT64:
        return absl::StrCat(one ? r->GetInt64(message, field) : r->GetRepeatedInt64(message, field, index));
      case FieldDescriptor::CPPTYPE_UINT32:
        return absl::StrCat(one ? r->GetUInt32(message, field) : r->GetRepeatedUInt32(message, field, index));
      case FieldDescriptor::CPPTYPE_UINT64:
        return absl::StrCat(one ? r->GetUInt64(message, field) : r->GetRepeatedUInt64(message, field, index));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return absl::StrCat(one ? r->GetDouble(message, field) : r->GetRepeatedDouble(message, field, index));
      case FieldDescriptor::CPPTYPE_FLOAT:
        return absl::StrCat(one ? r->GetFloat(message, field) : r->GetRepeatedFloat(message, field, index));
      case FieldDescriptor::CPPTYPE_BOOL:
        return (one ? r->GetBool(message, field) : r->GetRepeatedBool(message, field, index)) ? "true" : "false";
      case FieldDescriptor::CPPTYPE_ENUM:
        return (one ? r->GetEnum(message, field) : r->GetRepeatedEnum(message, field, index))->name();
      case FieldDescriptor::CPPTYPE_STRING: {
        const std::string text = one ? r->GetString(message, field) : r->GetRepeatedString(message, field, index);
        return Quoted(field->type() == FieldDescriptor::TYPE_BYTES ? Base64Encode(text) : text);
      }
      case FieldDescriptor::CPPTYPE_MESSAGE:
        break;
    }
    return "{}";
  }

  std::string out_;
};

}  // namespace

std::string ToYaml(const Message& message) { return Printer().Print(message); }

std::string ToJson(const Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : "{}\n";
}

}  // namespace sallyport::cli

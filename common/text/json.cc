// SPDX-License-Identifier: Apache-2.0
#include "common/text/json.h"

#include <set>
#include <utility>

#include "absl/strings/match.h"

namespace sallyport {
namespace {

// Builds the value and stops at the first thing we do not take, so that a hostile document costs no more than its good
// prefix.
class StrictReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit StrictReader(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return Fail("binary"); }
  bool start_object(std::size_t /*size*/) override { return Open(nlohmann::json::object()); }
  bool start_array(std::size_t /*size*/) override { return Open(nlohmann::json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (stack_.back()->contains(name)) return Fail("duplicate key");
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::json::exception& /*error*/) override {
    return Fail("not valid JSON");
  }

  nlohmann::json& root() { return root_; }
  const char* error() const { return error_; }

 private:
  bool Fail(const char* error) {
    if (error_ == nullptr) error_ = error;
    return false;
  }
  nlohmann::json* Place(nlohmann::json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (++count_ > limits_.max_keys) return nullptr;
    nlohmann::json& parent = *stack_.back();
    if (parent.is_object()) return &(parent[std::move(key_)] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }
  bool Add(nlohmann::json value) { return Place(std::move(value)) != nullptr || Fail("too many members"); }
  bool Open(nlohmann::json value) {
    if (stack_.size() >= limits_.max_depth) return Fail("nested too deeply");
    nlohmann::json* placed = Place(std::move(value));
    if (placed == nullptr) return Fail("too many members");
    stack_.push_back(placed);
    return true;
  }
  bool Close() {
    stack_.pop_back();
    return true;
  }

  const JsonLimits limits_;
  nlohmann::json root_;
  std::vector<nlohmann::json*> stack_;  // Only the last element of a container grows, so these stay valid.
  std::string key_;
  size_t count_ = 0;
  const char* error_ = nullptr;
};

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) return absl::InvalidArgumentError("JSON is too long");
  if (absl::StartsWith(text, "\xef\xbb\xbf")) return absl::InvalidArgumentError("JSON begins with a byte order mark");
  // nlohmann's lexer takes a NUL for the end of the input and would ignore what follows.
  if (text.find('\0') != absl::string_view::npos) return absl::InvalidArgumentError("not valid JSON");
  StrictReader reader(limits);
  const bool ok = nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  if (reader.error() != nullptr) return absl::InvalidArgumentError(reader.error());
  if (!ok) return absl::InvalidArgumentError("not valid JSON");
  return std::move(reader.root());
}

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, const JsonLimits& limits) {
  auto value = ParseJson(text, limits);
  if (value.ok() && !value->is_object()) return absl::InvalidArgumentError("not a JSON object");
  return value;
}

std::string DumpJson(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

const nlohmann::json* JsonMember(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

std::optional<std::string> JsonString(const nlohmann::json& object, const char* key) {
  const nlohmann::json* member = JsonMember(object, key);
  if (member == nullptr || !member->is_string()) return std::nullopt;
  return member->get_ref<const std::string&>();
}

std::optional<int64_t> JsonInt(const nlohmann::json& object, const char* key) {
  const nlohmann::json* member = JsonMember(object, key);
  if (member == nullptr || !member->is_number_integer()) return std::nullopt;
  if (member->is_number_unsigned() && member->get<uint64_t>() > INT64_MAX) return std::nullopt;
  return member->get<int64_t>();
}

std::optional<bool> JsonBool(const nlohmann::json& object, const char* key) {
  const nlohmann::json* member = JsonMember(object, key);
  if (member == nullptr || !member->is_boolean()) return std::nullopt;
  return member->get<bool>();
}

std::optional<std::vector<std::string>> JsonStrings(const nlohmann::json& object, const char* key) {
  const nlohmann::json* member = JsonMember(object, key);
  if (member == nullptr || !member->is_array()) return std::nullopt;
  std::vector<std::string> strings;
  for (const nlohmann::json& element : *member) {
    if (!element.is_string()) return std::nullopt;
    strings.push_back(element.get_ref<const std::string&>());
  }
  return strings;
}

}  // namespace sallyport

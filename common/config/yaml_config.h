// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include <google/protobuf/message.h>

namespace sallyport {

// Where in a YAML file each field stands, so that later validation can name file, line and field. Paths are as the user
// writes them: "server.listen", "replicas[1].tls.caBundle", "labels.team" (map entries by key).
class FieldLines {
 public:
  FieldLines() = default;
  explicit FieldLines(std::string file) : file_(std::move(file)) {}
  void Set(const std::string& path, int line) { lines_[path] = line; }
  // Line (from 1) of the field, or of the nearest enclosing field that is there; 1 if none.
  int LineOf(absl::string_view path) const;
  const std::string& file() const { return file_; }

  // INVALID_ARGUMENT "file.yaml:12: field server.listen: message", with the violation as detail.
  absl::Status Error(absl::string_view path, absl::string_view message) const;
  // Puts file and line before every violation of `status` (made by InvalidField(s), paths as above). Others come back
  // as they are.
  absl::Status Locate(const absl::Status& status) const;

 private:
  std::string file_;
  std::map<std::string, int> lines_;
};

struct YamlOptions {
  // Accepts {valueFrom: {env: NAME}} and {valueFrom: {file: path}} where a sallyport.common.v1.Secret stands, and puts
  // the value in (one trailing newline of a file is cut). Relative files lie beside the YAML file.
  bool resolve_value_from = false;
  // LoadYamlFile only: refuses a file that group or others may write.
  bool refuse_writable_by_others = true;
};

// Fills `message` (cleared first) from one YAML document. Keys are lowerCamelCase field names; enums by name; durations
// "5s", "250ms", "1h30m"; timestamps RFC 3339; bytes base64. Nothing is expanded. INVALID_ARGUMENT "file.yaml:12: field
// server.listen: …" for what does not parse, an unknown or repeated key, a wrong type or value, two members of a oneof.
// `file_name` is for messages and for relative valueFrom files. `lines` may be null.
absl::Status LoadYaml(absl::string_view text, const std::string& file_name, google::protobuf::Message* message,
                      const YamlOptions& options = {}, FieldLines* lines = nullptr);

// Also NOT_FOUND, PERMISSION_DENIED (unreadable), FAILED_PRECONDITION (writable by others).
absl::Status LoadYamlFile(const std::string& path, google::protobuf::Message* message, const YamlOptions& options = {},
                          FieldLines* lines = nullptr);

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/config/yaml_config.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "tools/cli/api_client.h"

namespace sallyport::cli {

// What `apply -f` and `diff -f` read: a YAML file of registry.v1.ApplyRequest, "-" for standard input. Values of
// `valueFrom: {env|file}` are put in here, so that they travel with the request and stand in no file. INVALID_ARGUMENT
// "file:line: field path: message".
absl::StatusOr<registry::v1::ApplyRequest> ReadResources(const std::string& file, const Terminal& terminal,
                                                         FieldLines& lines);

// What changed (or would), a paragraph a resource, what that means for users and callers, warnings with file and line
// behind, one line of sum at the end. A warning that several places share is printed once, with their lines.
//   + McpServer echo
//       upstreamUrl: "http://127.0.0.1:9000/mcp"
//   ~ McpServer github
//       description: "old" -> "new"
// `request` tells where in the file a resource stands.
std::string FormatResults(const registry::v1::ApplyResponse& response, const registry::v1::ApplyRequest& request,
                          const FieldLines& lines);
// A line for each: "consequence: 42 users must connect GitHub again: …".
std::string FormatConsequences(const google::protobuf::RepeatedPtrField<registry::v1::Consequence>& consequences,
                               const std::string& indent);
// A secret that is given but cannot be compared before it is applied counts as no change.
bool HasChanges(const registry::v1::ApplyResponse& response);

// Sends the file and prints the outcome. Fields the gateway refuses come back with file and line.
absl::StatusOr<registry::v1::ApplyResponse> Apply(ApiClient& api, const std::string& file, bool dry_run,
                                                  const Terminal& terminal);

}  // namespace sallyport::cli

// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/apply.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/status_macros.h"

namespace sallyport::cli {
namespace {

using registry::v1::ApplyResponse;

constexpr size_t kMaxShown = 200;

std::string Shorten(const std::string& text) {
  return text.size() <= kMaxShown ? text : absl::StrCat(text.substr(0, kMaxShown), "…");
}

// What a dry run says of the value given for a secret that has one: only the vault could compare the two.
constexpr char kOpenSecret[] = "(secret, compared when applied)";

ApplyResponse::Action ActionOf(const ApplyResponse::Result& result) {
  const bool only_open = std::all_of(result.changes().begin(), result.changes().end(), [](const auto& change) {
    return change.after() == kOpenSecret && !change.before().empty();
  });
  return result.action() == ApplyResponse::UPDATED && only_open ? ApplyResponse::UNCHANGED : result.action();
}

char MarkOf(ApplyResponse::Action action) {
  switch (action) {
    case ApplyResponse::CREATED:
      return '+';
    case ApplyResponse::UPDATED:
      return '~';
    default:
      return '=';
  }
}

template <typename List>
std::string PlaceIn(const List& list, const char* name, const std::string& slug) {
  for (int i = 0; i < list.size(); ++i) {
    if (list.Get(i).slug() == slug) return absl::StrCat(name, "[", i, "].");
  }
  return "";
}

// "mcpServers[0].": what stands before the names of the resource's fields.
std::string PlaceOf(const registry::v1::ApplyRequest& request, const ApplyResponse::Result& result) {
  if (result.kind() == "McpServer") return PlaceIn(request.mcp_servers(), "mcpServers", result.slug());
  if (result.kind() == "App") return PlaceIn(request.apps(), "apps", result.slug());
  return PlaceIn(request.credentials(), "credentials", result.slug());
}

std::string FormatChange(const ApplyResponse::FieldChange& change) {
  if (change.before().empty()) return absl::StrCat("    ", change.field(), ": ", Shorten(change.after()), "\n");
  const std::string after = change.after().empty() ? "(removed)" : Shorten(change.after());
  return absl::StrCat("    ", change.field(), ": ", Shorten(change.before()), " -> ", after, "\n");
}

// Where a message stands, by its text: ten servers in one network are one thing to know.
std::map<std::string, std::vector<std::string>> PlacesOfWarnings(const ApplyResponse& response,
                                                                 const registry::v1::ApplyRequest& request,
                                                                 const FieldLines& lines) {
  std::map<std::string, std::vector<std::string>> places;
  for (const ApplyResponse::Result& result : response.results()) {
    for (const registry::v1::Warning& warning : result.warnings()) {
      places[warning.message()].push_back(absl::StrCat(lines.LineOf(PlaceOf(request, result) + warning.field())));
    }
  }
  return places;
}

}  // namespace

absl::StatusOr<registry::v1::ApplyRequest> ReadResources(const std::string& file, const Terminal& terminal,
                                                         FieldLines& lines) {
  registry::v1::ApplyRequest request;
  const YamlOptions options{.resolve_value_from = true};
  if (file == "-") {
    const std::string text(std::istreambuf_iterator<char>(terminal.in), {});
    RETURN_IF_ERROR(LoadYaml(text, "standard input", &request, options, &lines));
  } else {
    RETURN_IF_ERROR(LoadYamlFile(file, &request, options, &lines));
  }
  if (request.mcp_servers().empty() && request.apps().empty() && request.credentials().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": names no resource: give lists `mcpServers`, `apps` or `credentials`"));
  }
  return request;
}

std::string FormatConsequences(const google::protobuf::RepeatedPtrField<registry::v1::Consequence>& consequences,
                               const std::string& indent) {
  std::string out;
  for (const registry::v1::Consequence& consequence : consequences) {
    absl::StrAppend(&out, indent, "consequence: ", consequence.message(), "\n");
  }
  return out;
}

bool HasChanges(const ApplyResponse& response) {
  return std::any_of(response.results().begin(), response.results().end(),
                     [](const auto& result) { return ActionOf(result) != ApplyResponse::UNCHANGED; });
}

std::string FormatResults(const ApplyResponse& response, const registry::v1::ApplyRequest& request,
                          const FieldLines& lines) {
  std::string out;
  int counts[ApplyResponse::Action_ARRAYSIZE] = {};
  std::map<std::string, std::vector<std::string>> places = PlacesOfWarnings(response, request, lines);
  for (const ApplyResponse::Result& result : response.results()) {
    const ApplyResponse::Action action = ActionOf(result);
    if (ApplyResponse::Action_IsValid(action)) ++counts[action];
    absl::StrAppend(&out, std::string(1, MarkOf(action)), " ", result.kind(), " ", result.slug(), "\n");
    for (const ApplyResponse::FieldChange& change : result.changes()) out += FormatChange(change);
    out += FormatConsequences(result.consequences(), "    ");
    for (const registry::v1::Warning& warning : result.warnings()) {
      const auto found = places.find(warning.message());
      if (found == places.end()) continue;  // It was printed with the first of its places.
      const std::vector<std::string> others(found->second.begin() + 1, found->second.end());
      const std::string field = PlaceOf(request, result) + warning.field();
      absl::StrAppend(&out, "    warning: ", lines.file(), ":", lines.LineOf(field), ": ", field, ": ",
                      warning.message());
      if (!others.empty()) {
        absl::StrAppend(&out, " (also ", others.size() == 1 ? "line " : "lines ", absl::StrJoin(others, ", "), ")");
      }
      absl::StrAppend(&out, "\n");
      places.erase(found);
    }
  }
  absl::StrAppend(&out, counts[ApplyResponse::CREATED], " created, ", counts[ApplyResponse::UPDATED], " updated, ",
                  counts[ApplyResponse::UNCHANGED], " unchanged", request.dry_run() ? " (not applied)\n" : "\n");
  return out;
}

absl::StatusOr<ApplyResponse> Apply(ApiClient& api, const std::string& file, bool dry_run, const Terminal& terminal) {
  FieldLines lines;
  ASSIGN_OR_RETURN(registry::v1::ApplyRequest request, ReadResources(file, terminal, lines));
  // The file may carry it too; the command line only adds.
  request.set_dry_run(dry_run || request.dry_run());
  ApplyResponse response;
  RETURN_IF_ERROR(lines.Locate(api.Call("sallyport.registry.v1.Registry/Apply", request, &response)));
  terminal.out << FormatResults(response, request, lines);
  return response;
}

}  // namespace sallyport::cli

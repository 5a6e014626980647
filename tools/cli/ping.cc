// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/ping.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "common/files.h"
#include "common/status_macros.h"
#include "common/text/json.h"
#include "common/text/utf8.h"

namespace sallyport::cli {
namespace {

constexpr char kVersion[] = "2025-06-18";
constexpr size_t kMaxName = 100;

class Session {
 public:
  Session(ApiClient& api, std::string path, Secret token)
      : api_(api), path_(std::move(path)), token_(std::move(token)) {}

  // `result` of the answer to this request.
  absl::StatusOr<nlohmann::json> Ask(const char* method, const nlohmann::json& params) {
    const nlohmann::json message = {{"jsonrpc", "2.0"}, {"id", ++id_}, {"method", method}, {"params", params}};
    ASSIGN_OR_RETURN(const HttpResponse answer, Send("POST", DumpJson(message)));
    if (answer.status != 200) return Refused(method, answer);
    if (session_.empty()) session_ = answer.Header("mcp-session-id");
    ASSIGN_OR_RETURN(const nlohmann::json body, Message(answer));
    if (const nlohmann::json* error = JsonMember(body, "error"); error != nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat("the server answered ", method, " with an error: ", Shown(JsonString(*error, "message"))));
    }
    const nlohmann::json* result = JsonMember(body, "result");
    if (result == nullptr) return absl::DataLossError(absl::StrCat("the answer to ", method, " has no result"));
    return *result;
  }
  absl::Status Tell(const char* method) {
    const nlohmann::json message = {{"jsonrpc", "2.0"}, {"method", method}};
    ASSIGN_OR_RETURN(const HttpResponse answer, Send("POST", DumpJson(message)));
    return answer.status >= 200 && answer.status < 300 ? absl::OkStatus() : Refused(method, answer).status();
  }
  // A server need not know of it (405).
  absl::Status End() { return session_.empty() ? absl::OkStatus() : Send("DELETE", "").status(); }

  // What somebody else wrote, for a terminal.
  static std::string Shown(const std::optional<std::string>& text) { return PlainText(text.value_or(""), kMaxName); }

 private:
  absl::StatusOr<HttpResponse> Send(const char* http_method, std::string body) {
    HttpRequest request{.method = http_method};
    request.headers = {{"Accept", "application/json, text/event-stream"}, {"MCP-Protocol-Version", kVersion}};
    if (!body.empty()) request.headers.emplace_back("Content-Type", "application/json");
    if (!session_.empty()) request.headers.emplace_back("Mcp-Session-Id", session_);
    if (!token_.empty()) request.headers.emplace_back("Authorization", absl::StrCat("Bearer ", token_.Expose()));
    request.body = std::move(body);
    return api_.Exchange(path_, std::move(request));
  }
  // Of a JSON body, or of the event that holds the answer to the newest request.
  absl::StatusOr<nlohmann::json> Message(const HttpResponse& answer) const {
    if (answer.MediaType() != "text/event-stream") return ParseJsonObject(answer.body);
    for (absl::string_view line : absl::StrSplit(answer.body, '\n')) {
      if (!absl::ConsumePrefix(&line, "data:")) continue;
      const absl::StatusOr<nlohmann::json> event = ParseJsonObject(absl::StripAsciiWhitespace(line));
      if (event.ok() && JsonInt(*event, "id") == id_) return *event;
    }
    return absl::DataLossError("the event stream ended without an answer");
  }
  absl::StatusOr<nlohmann::json> Refused(const char* method, const HttpResponse& answer) const {
    const absl::StatusOr<nlohmann::json> body = ParseJsonObject(answer.body);
    const std::string why = body.ok() ? Shown(JsonString(*body, "message")) : "";
    const char* hint = answer.status == 401 && token_.empty() ? ": give a token with --token-file" : "";
    return absl::FailedPreconditionError(
        absl::StrCat(api_.url(), path_, " answered ", method, " with HTTP ", answer.status, " ", why, hint));
  }

  ApiClient& api_;
  const std::string path_;
  const Secret token_;
  std::string session_;
  int64_t id_ = 0;
};

}  // namespace

absl::Status PingServer(ApiClient& api, const Ping& ping, const Terminal& terminal) {
  Secret token;
  if (!ping.token_file.empty()) {
    ASSIGN_OR_RETURN(token, ReadSecretFile(ping.token_file));
  }
  Session session(api, absl::StrCat("/mcp/", ping.server), std::move(token));
  ASSIGN_OR_RETURN(
      const nlohmann::json hello,
      session.Ask("initialize", {{"protocolVersion", kVersion},
                                 {"capabilities", nlohmann::json::object()},
                                 {"clientInfo", {{"name", "sallyport"}, {"version", SALLYPORT_VERSION}}}}));
  RETURN_IF_ERROR(session.Tell("notifications/initialized"));
  ASSIGN_OR_RETURN(const nlohmann::json listed, session.Ask("tools/list", nlohmann::json::object()));
  const nlohmann::json* tools = JsonMember(listed, "tools");
  if (tools == nullptr || !tools->is_array()) return absl::DataLossError("the answer to tools/list has no tools");
  RETURN_IF_ERROR(session.End());
  const nlohmann::json* info = JsonMember(hello, "serverInfo");
  terminal.out << ping.server << " answers: "
               << (info == nullptr
                       ? ""
                       : Session::Shown(JsonString(*info, "name")) + " " + Session::Shown(JsonString(*info, "version")))
               << ", " << tools->size() << " tools\n";
  return absl::OkStatus();
}

}  // namespace sallyport::cli

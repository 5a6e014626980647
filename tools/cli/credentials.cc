// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/credentials.h"

#include "absl/strings/str_cat.h"

#include "common/files.h"
#include "common/status_macros.h"
#include "common/text/json.h"

namespace sallyport::cli {
namespace {

absl::Status Unreadable(const std::string& path) {
  return absl::DataLossError(absl::StrCat(path, ": does not parse; remove it and run `sallyport login` again"));
}

std::string TimeText(absl::Time time) { return absl::FormatTime(absl::RFC3339_full, time, absl::UTCTimeZone()); }

}  // namespace

absl::StatusOr<std::string> CredentialsPath(const Terminal& terminal) {
  if (const std::string config = terminal.environment("XDG_CONFIG_HOME"); !config.empty()) {
    return config + "/sallyport/credentials.json";
  }
  const std::string home = terminal.environment("HOME");
  if (home.empty()) {
    return absl::FailedPreconditionError("neither HOME nor XDG_CONFIG_HOME is set: there is no place for credentials");
  }
  return home + "/.config/sallyport/credentials.json";
}

absl::StatusOr<Credentials> LoadCredentials(const std::string& path) {
  const absl::StatusOr<Secret> text = ReadSecretFile(path, 1 << 20);
  if (absl::IsNotFound(text.status())) {
    return Credentials();
  }
  RETURN_IF_ERROR(text.status());
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(text->Expose());
  if (!json.ok()) {
    return Unreadable(path);
  }
  Credentials credentials;
  credentials.url = JsonString(*json, "url").value_or("");
  const nlohmann::json* logins = JsonMember(*json, "logins");
  if (logins == nullptr || !logins->is_object()) {
    return Unreadable(path);
  }
  for (const auto& [url, entry] : logins->items()) {
    Login login;
    login.access_token = Secret(JsonString(entry, "accessToken").value_or(""));
    login.refresh_token = Secret(JsonString(entry, "refreshToken").value_or(""));
    std::string error;
    if (!absl::ParseTime(absl::RFC3339_full, JsonString(entry, "expiresAt").value_or(""), &login.expires_at, &error)) {
      return Unreadable(path);
    }
    credentials.logins[url] = std::move(login);
  }
  return credentials;
}

absl::Status SaveCredentials(const std::string& path, const Credentials& credentials) {
  nlohmann::json json = {{"url", credentials.url}, {"logins", nlohmann::json::object()}};
  for (const auto& [url, login] : credentials.logins) {
    nlohmann::json& entry = json["logins"][url];
    entry = {{"accessToken", std::string(login.access_token.Expose())}, {"expiresAt", TimeText(login.expires_at)}};
    if (!login.refresh_token.empty()) {
      entry["refreshToken"] = std::string(login.refresh_token.Expose());
    }
  }
  RETURN_IF_ERROR(MakeDirectories(path.substr(0, path.rfind('/')), 0700));
  return WriteFileAtomic(path, DumpJson(json) + "\n", 0600);
}

}  // namespace sallyport::cli

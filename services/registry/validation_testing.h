// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "services/registry/registry_testing.h"
#include "services/registry/urls.h"
#include "services/registry/validation.h"

namespace sallyport::registry {

// What is refused and warned of in one resource.
class ValidationTest : public ::testing::Test {
 protected:
  ValidationTest() {
    context_.upstream_networks = {"10.0.0.0/8", "127.0.0.0/8"};
    context_.app = [this](absl::string_view slug) { return slug == "github" ? &app_ : nullptr; };
    context_.credential = [this](absl::string_view slug) { return slug == "key" ? &credential_ : nullptr; };
    context_.connectors = Connectors{{"okta", {"oidc"}}, {"users", {"local"}}};
    app_ = FromJson<v1::App>(R"({"slug": "github", "uid": "app_1"})");
    credential_ = FromJson<v1::Credential>(R"({"slug": "key", "uid": "crd_1", "kind": "API_KEY",
        "allowedUpstreamOrigins": ["https://api.example.com"]})");
  }
  // A valid server with the fields of `json` on top (a field given replaces the default one).
  static v1::McpServer Server(const std::string& json = "{}") {
    auto server = FromJson<v1::McpServer>(R"({"slug": "github", "upstreamUrl": "https://api.example.com/mcp",
        "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"bearer": {}}})");
    const auto given = FromJson<v1::McpServer>(json);
    if (given.has_agent_auth()) server.clear_agent_auth();
    if (given.has_app_auth()) server.clear_app_auth();
    server.MergeFrom(given);
    return server;
  }
  static v1::App App(const std::string& json = "{}") {
    auto app = FromJson<v1::App>(R"({"slug": "github", "authorizationUrl": "https://idp.example.com/authorize",
        "tokenUrl": "https://idp.example.com/token", "clientId": "me"})");
    app.MergeFrom(FromJson<v1::App>(json));
    return app;
  }
  std::vector<std::string> Refused(const v1::McpServer& server) {
    findings_ = {};
    ValidateMcpServer(server, ResourceUrls(server), context_, findings_);
    return Fields();
  }
  std::vector<std::string> Refused(const v1::App& app) {
    findings_ = {};
    ValidateApp(app, ResourceUrls(app), context_, findings_);
    return Fields();
  }
  std::vector<std::string> Refused(const v1::Credential& credential) {
    findings_ = {};
    ValidateCredential(credential, findings_);
    return Fields();
  }
  std::vector<std::string> Fields() const {
    std::vector<std::string> fields;
    for (const auto& violation : findings_.violations) fields.push_back(violation.field);
    return fields;
  }
  std::vector<std::string> Warned() const {
    std::vector<std::string> fields;
    for (const auto& warning : findings_.warnings) fields.push_back(warning.field());
    return fields;
  }
  std::string Messages() const {
    std::string all;
    for (const auto& violation : findings_.violations) all += violation.field + ": " + violation.message + "\n";
    return all;
  }

  v1::App app_;
  v1::Credential credential_;
  ValidationContext context_;
  Findings findings_;
};

// One mistake, and the field that is named.
struct ValidationCase {
  const char* name;
  const char* json;
  const char* field;
};

inline void PrintTo(const ValidationCase& value, std::ostream* out) { *out << value.name; }
inline std::string CaseName(const ::testing::TestParamInfo<ValidationCase>& info) { return info.param.name; }

}  // namespace sallyport::registry

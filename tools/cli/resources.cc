// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/resources.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/status_macros.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "tools/cli/apply.h"
#include "tools/cli/table.h"
#include "tools/cli/yaml_printer.h"

namespace sallyport::cli {
namespace {

using namespace registry::v1;  // NOLINT(google-build-using-namespace): messages of one package only.

constexpr char kRegistry[] = "sallyport.registry.v1.Registry/";
constexpr int kPage = 1000;

// Name of the member of a oneof that is set, as it is written in YAML.
std::string Chosen(const google::protobuf::Message& message, const char* oneof) {
  const auto* field =
      message.GetReflection()->GetOneofFieldDescriptor(message, message.GetDescriptor()->FindOneofByName(oneof));
  return field == nullptr ? "" : field->json_name();
}

struct Servers {
  using Get = GetMcpServerRequest;
  using List = ListMcpServersRequest;
  using Listed = ListMcpServersResponse;
  using Delete = DeleteMcpServerRequest;
  using Deleted = DeleteMcpServerResponse;
  static constexpr char kKind[] = "McpServer";
  static auto& In(Listed& listed) { return *listed.mutable_mcp_servers(); }
  static auto& In(ApplyRequest& file) { return *file.mutable_mcp_servers(); }
  static std::vector<std::string> Titles() {
    return {"SLUG", "ENABLED", "AGENT AUTH", "APP AUTH", "VERSION", "UPSTREAM"};
  }
  static std::vector<std::string> Row(const McpServer& server) {
    return {server.slug(),
            !server.has_enabled() || server.enabled() ? "yes" : "no",
            Chosen(server.agent_auth(), "method"),
            Chosen(server.app_auth(), "method"),
            absl::StrCat(server.version()),
            server.upstream_url()};
  }
};

struct Apps {
  using Get = GetAppRequest;
  using List = ListAppsRequest;
  using Listed = ListAppsResponse;
  using Delete = DeleteAppRequest;
  using Deleted = DeleteAppResponse;
  static constexpr char kKind[] = "App";
  static auto& In(Listed& listed) { return *listed.mutable_apps(); }
  static auto& In(ApplyRequest& file) { return *file.mutable_apps(); }
  static std::vector<std::string> Titles() { return {"SLUG", "CLIENT ID", "VERSION", "ISSUER OR TOKEN URL"}; }
  static std::vector<std::string> Row(const App& app) {
    return {app.slug(), app.client_id(), absl::StrCat(app.version()),
            app.issuer().empty() ? app.token_url() : app.issuer()};
  }
};

struct StoredCredentials {
  using Get = GetCredentialRequest;
  using List = ListCredentialsRequest;
  using Listed = ListCredentialsResponse;
  using Delete = DeleteCredentialRequest;
  using Deleted = DeleteCredentialResponse;
  static constexpr char kKind[] = "Credential";
  static auto& In(Listed& listed) { return *listed.mutable_credentials(); }
  static auto& In(ApplyRequest& file) { return *file.mutable_credentials(); }
  static std::vector<std::string> Titles() { return {"SLUG", "KIND", "OWNER", "VERSION", "ORIGINS"}; }
  static std::vector<std::string> Row(const Credential& credential) {
    return {credential.slug(), Credential::Kind_Name(credential.kind()), Credential::Owner_Name(credential.owner()),
            absl::StrCat(credential.version()), absl::StrJoin(credential.allowed_upstream_origins(), " ")};
  }
};

template <typename Kind>
absl::Status GetOne(ApiClient& api, const std::string& slug, Output output, const Terminal& terminal) {
  typename Kind::Get request;
  request.set_slug(slug);
  ApplyRequest file;
  auto* resource = Kind::In(file).Add();
  RETURN_IF_ERROR(api.Call(absl::StrCat(kRegistry, "Get", Kind::kKind), request, resource));
  terminal.out << (output == Output::kJson ? ToJson(*resource) : ToYaml(file));
  return absl::OkStatus();
}

template <typename Kind>
absl::Status GetAll(ApiClient& api, Output output, const Terminal& terminal) {
  ApplyRequest file;
  typename Kind::List request;
  request.set_page_size(kPage);
  do {
    typename Kind::Listed listed;
    RETURN_IF_ERROR(api.Call(absl::StrCat(kRegistry, "List", Kind::kKind, "s"), request, &listed));
    Kind::In(file).MergeFrom(Kind::In(listed));
    request.set_page_token(listed.next_page_token());
  } while (!request.page_token().empty());
  if (output == Output::kDefault) {
    std::vector<std::vector<std::string>> rows;
    for (const auto& resource : Kind::In(file)) rows.push_back(Kind::Row(resource));
    terminal.out << FormatTable(Kind::Titles(), rows);
  } else {
    terminal.out << (output == Output::kJson ? ToJson(file) : ToYaml(file));
  }
  return absl::OkStatus();
}

template <typename Kind>
absl::Status DeleteOne(ApiClient& api, const std::string& slug, bool dry_run, const Terminal& terminal) {
  typename Kind::Delete request;
  request.set_slug(slug);
  request.set_dry_run(dry_run);
  typename Kind::Deleted response;
  RETURN_IF_ERROR(api.Call(absl::StrCat(kRegistry, "Delete", Kind::kKind), request, &response));
  terminal.out << "- " << Kind::kKind << " " << slug << (dry_run ? " (not deleted)\n" : " deleted\n")
               << FormatConsequences(response.consequences(), "    ");
  return absl::OkStatus();
}

template <typename Kind>
absl::Status Get(ApiClient& api, const std::string& slug, Output output, const Terminal& terminal) {
  return slug.empty() ? GetAll<Kind>(api, output, terminal) : GetOne<Kind>(api, slug, output, terminal);
}

}  // namespace

absl::Status GetResources(ApiClient& api, ResourceKind kind, const std::string& slug, Output output,
                          const Terminal& terminal) {
  switch (kind) {
    case ResourceKind::kServer:
      return Get<Servers>(api, slug, output, terminal);
    case ResourceKind::kApp:
      return Get<Apps>(api, slug, output, terminal);
    case ResourceKind::kCredential:
      return Get<StoredCredentials>(api, slug, output, terminal);
  }
  return absl::InternalError("unknown kind");
}

absl::Status DeleteResource(ApiClient& api, ResourceKind kind, const std::string& slug, bool dry_run,
                            const Terminal& terminal) {
  switch (kind) {
    case ResourceKind::kServer:
      return DeleteOne<Servers>(api, slug, dry_run, terminal);
    case ResourceKind::kApp:
      return DeleteOne<Apps>(api, slug, dry_run, terminal);
    case ResourceKind::kCredential:
      return DeleteOne<StoredCredentials>(api, slug, dry_run, terminal);
  }
  return absl::InternalError("unknown kind");
}

}  // namespace sallyport::cli

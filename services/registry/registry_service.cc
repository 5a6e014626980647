// SPDX-License-Identifier: Apache-2.0
#include "services/registry/registry_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "common/text/utf8.h"
#include "sallyport/audit/v1/audit.grpc.pb.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"
#include "services/registry/resource.h"
#include "services/registry/store.h"

namespace sallyport::registry {
namespace {

using grpc::ServerContext;
using grpc::Status;

Writer WriterFrom(const Caller& caller) {
  Writer writer;
  if (caller.passport) {
    writer.subject = caller.passport->subject;
    writer.client_id = caller.passport->client_id;
    writer.passport = caller.passport->jwt;
    writer.credential_admin = caller.passport->HasRole("credential-admin");
  }
  return writer;
}

// What a request wants to write.
template <typename T>
Denial Writing(const T& resource, bool dry_run) {
  Denial attempt;
  attempt.kind = ResourceTraits<T>::kKind;
  attempt.slug = resource.slug();
  attempt.dry_run = dry_run;
  return attempt;
}
template <typename T, typename Request>
Denial Deleting(const Request& request) {
  Denial attempt;
  attempt.kind = ResourceTraits<T>::kKind;
  attempt.slug = request.slug();
  attempt.dry_run = request.dry_run();
  return attempt;
}
Denial Writing(const v1::ApplyRequest& request) {
  Denial attempt;
  attempt.kind = "file";
  attempt.dry_run = request.dry_run();
  const auto add = [&attempt](const auto& resources, absl::string_view list) {
    for (const auto& resource : resources) attempt.fields.push_back(absl::StrCat(list, "/", resource.slug()));
  };
  add(request.apps(), "apps");
  add(request.credentials(), "credentials");
  add(request.mcp_servers(), "mcpServers");
  return attempt;
}

template <typename Response>
absl::Status FillConsequences(absl::StatusOr<std::vector<v1::Consequence>> consequences, Response* response) {
  RETURN_IF_ERROR(consequences.status());
  for (v1::Consequence& consequence : *consequences) *response->add_consequences() = std::move(consequence);
  return absl::OkStatus();
}

template <typename Response, typename T>
absl::Status FillWritten(absl::StatusOr<Catalog::Written<T>> written, T* (Response::*mutable_resource)(),
                         Response* response) {
  RETURN_IF_ERROR(written.status());
  *(response->*mutable_resource)() = std::move(written->resource);
  for (v1::Warning& warning : written->warnings) *response->add_warnings() = std::move(warning);
  return FillConsequences(std::move(written->consequences), response);
}

class RegistryService final : public v1::Registry::WithCallbackMethod_Watch<v1::Registry::Service> {
 public:
  RegistryService(const RegistryParts& parts, std::shared_ptr<const PeerIdentity> peer)
      : parts_(parts),
        rpc_({"sallyport.registry.v1.Registry", &parts.guard, std::move(peer), &parts.verifier, &parts.clock}) {}

  Status CreateMcpServer(ServerContext* context, const v1::CreateMcpServerRequest* request,
                         v1::WriteMcpServerResponse* response) override {
    return Write("CreateMcpServer", context, Writing(request->mcp_server(), request->dry_run()),
                 [&](const Writer& writer) {
                   return FillWritten(parts_.catalog.Create(request->mcp_server(), request->dry_run(), writer),
                                      &v1::WriteMcpServerResponse::mutable_mcp_server, response);
                 });
  }
  Status UpdateMcpServer(ServerContext* context, const v1::UpdateMcpServerRequest* request,
                         v1::WriteMcpServerResponse* response) override {
    return Write("UpdateMcpServer", context, Writing(request->mcp_server(), request->dry_run()),
                 [&](const Writer& writer) {
                   return FillWritten(parts_.catalog.Update(request->mcp_server(), request->dry_run(), writer),
                                      &v1::WriteMcpServerResponse::mutable_mcp_server, response);
                 });
  }
  Status GetMcpServer(ServerContext* context, const v1::GetMcpServerRequest* request,
                      v1::McpServer* response) override {
    return rpc_.Handle("GetMcpServer", context, response,
                       [&](const Caller&) { return parts_.catalog.Get<v1::McpServer>(request->slug()); });
  }
  Status ListMcpServers(ServerContext* context, const v1::ListMcpServersRequest* request,
                        v1::ListMcpServersResponse* response) override {
    return List<v1::McpServer>("ListMcpServers", context, *request, response,
                               &v1::ListMcpServersResponse::add_mcp_servers);
  }
  Status DeleteMcpServer(ServerContext* context, const v1::DeleteMcpServerRequest* request,
                         v1::DeleteMcpServerResponse* response) override {
    return Write("DeleteMcpServer", context, Deleting<v1::McpServer>(*request), [&](const Writer& writer) {
      return FillConsequences(
          parts_.catalog.Delete<v1::McpServer>(request->slug(), request->version(), writer, request->dry_run()),
          response);
    });
  }

  Status CreateApp(ServerContext* context, const v1::CreateAppRequest* request,
                   v1::WriteAppResponse* response) override {
    return Write("CreateApp", context, Writing(request->app(), request->dry_run()), [&](const Writer& writer) {
      return FillWritten(parts_.catalog.Create(request->app(), request->dry_run(), writer),
                         &v1::WriteAppResponse::mutable_app, response);
    });
  }
  Status UpdateApp(ServerContext* context, const v1::UpdateAppRequest* request,
                   v1::WriteAppResponse* response) override {
    return Write("UpdateApp", context, Writing(request->app(), request->dry_run()), [&](const Writer& writer) {
      return FillWritten(parts_.catalog.Update(request->app(), request->dry_run(), writer),
                         &v1::WriteAppResponse::mutable_app, response);
    });
  }
  Status GetApp(ServerContext* context, const v1::GetAppRequest* request, v1::App* response) override {
    return rpc_.Handle("GetApp", context, response,
                       [&](const Caller&) { return parts_.catalog.Get<v1::App>(request->slug()); });
  }
  Status ListApps(ServerContext* context, const v1::ListAppsRequest* request, v1::ListAppsResponse* response) override {
    return List<v1::App>("ListApps", context, *request, response, &v1::ListAppsResponse::add_apps);
  }
  Status DeleteApp(ServerContext* context, const v1::DeleteAppRequest* request,
                   v1::DeleteAppResponse* response) override {
    return Write("DeleteApp", context, Deleting<v1::App>(*request), [&](const Writer& writer) {
      return FillConsequences(
          parts_.catalog.Delete<v1::App>(request->slug(), request->version(), writer, request->dry_run()), response);
    });
  }

  Status CreateCredential(ServerContext* context, const v1::CreateCredentialRequest* request,
                          v1::WriteCredentialResponse* response) override {
    return Write("CreateCredential", context, Writing(request->credential(), request->dry_run()),
                 [&](const Writer& writer) {
                   return FillWritten(parts_.catalog.Create(request->credential(), request->dry_run(), writer),
                                      &v1::WriteCredentialResponse::mutable_credential, response);
                 });
  }
  Status UpdateCredential(ServerContext* context, const v1::UpdateCredentialRequest* request,
                          v1::WriteCredentialResponse* response) override {
    return Write("UpdateCredential", context, Writing(request->credential(), request->dry_run()),
                 [&](const Writer& writer) {
                   return FillWritten(parts_.catalog.Update(request->credential(), request->dry_run(), writer),
                                      &v1::WriteCredentialResponse::mutable_credential, response);
                 });
  }
  Status GetCredential(ServerContext* context, const v1::GetCredentialRequest* request,
                       v1::Credential* response) override {
    return rpc_.Handle("GetCredential", context, response,
                       [&](const Caller&) { return parts_.catalog.Get<v1::Credential>(request->slug()); });
  }
  Status ListCredentials(ServerContext* context, const v1::ListCredentialsRequest* request,
                         v1::ListCredentialsResponse* response) override {
    return List<v1::Credential>("ListCredentials", context, *request, response,
                                &v1::ListCredentialsResponse::add_credentials);
  }
  Status DeleteCredential(ServerContext* context, const v1::DeleteCredentialRequest* request,
                          v1::DeleteCredentialResponse* response) override {
    return Write("DeleteCredential", context, Deleting<v1::Credential>(*request), [&](const Writer& writer) {
      return FillConsequences(
          parts_.catalog.Delete<v1::Credential>(request->slug(), request->version(), writer, request->dry_run()),
          response);
    });
  }

  Status Apply(ServerContext* context, const v1::ApplyRequest* request, v1::ApplyResponse* response) override {
    return Write("Apply", context, Writing(*request), [&](const Writer& writer) -> absl::Status {
      ASSIGN_OR_RETURN(*response, parts_.catalog.Apply(*request, writer));
      return absl::OkStatus();
    });
  }

  Status FinishApp(ServerContext* context, const v1::FinishAppRequest* request,
                   v1::FinishAppResponse* /*response*/) override {
    return Write("FinishApp", context, {}, [&](const Writer&) { return parts_.catalog.FinishApp(request->app_uid()); });
  }

  Status PublishInvalidations(ServerContext* context, const v1::PublishInvalidationsRequest* request,
                              v1::PublishInvalidationsResponse* response) override {
    return Write("PublishInvalidations", context, {}, [&](const Writer&) {
      return parts_.database.Write([&](Transaction& tx) -> absl::Status {
        RETURN_IF_ERROR(Store::AppendInvalidations(tx, request->invalidations()));
        ASSIGN_OR_RETURN(const int64_t revision, Store::Revision(tx));
        response->set_revision(revision);
        return absl::OkStatus();
      });
    });
  }

  grpc::ServerWriteReactor<v1::WatchEvent>* Watch(grpc::CallbackServerContext* context,
                                                  const v1::WatchRequest* request) override {
    auto call = std::make_shared<RpcHandler::Call>(rpc_.Begin("Watch", *context));
    if (!call->caller.ok()) {
      class Refused final : public grpc::ServerWriteReactor<v1::WatchEvent> {
       public:
        explicit Refused(const Status& status) { Finish(status); }
        void OnDone() override { delete this; }
      };
      return new Refused(rpc_.Finish(*call, call->caller.status()));
    }
    return MakeWatchReactor(parts_.hub, *request, [this, call](const absl::Status& end) { rpc_.Finish(*call, end); });
  }

 private:
  // A change: watchers hear of it at once. `attempt` is what the audit has of one that is refused for want of a role.
  template <typename Act>
  Status Write(absl::string_view method, ServerContext* context, const Denial& attempt, const Act& act) {
    const RpcHandler::Call call = rpc_.Begin(method, *context);
    if (!call.caller.ok()) {
      RecordRefusal(*context, call.caller.status(), attempt);
      return rpc_.Finish(call, call.caller.status());
    }
    const absl::Status status = act(WriterFrom(*call.caller));
    if (status.ok()) parts_.hub.Kick();
    return rpc_.Finish(call, status);
  }

  // Only of somebody who is known: everything else is the business of whoever keeps the door.
  void RecordRefusal(const ServerContext& context, const absl::Status& refused, Denial attempt) {
    attempt.rule = ReasonOf(refused);
    if (attempt.rule != "role_missing" && attempt.rule != "wrong_purpose") return;
    const auto jwt = context.client_metadata().find(kPassportMetadata);
    if (jwt == context.client_metadata().end()) return;
    Caller caller;  // The guard has verified the passport and kept nothing, as it admitted nobody.
    if (auto passport = parts_.verifier.Verify({jwt->second.data(), jwt->second.size()}, parts_.clock.Now());
        passport.ok()) {
      caller.passport = *std::move(passport);
      parts_.catalog.RecordDenial(attempt, WriterFrom(caller));
    }
  }

  template <typename T, typename Request, typename Response>
  Status List(absl::string_view method, ServerContext* context, const Request& request, Response* response,
              T* (Response::*add)()) {
    return rpc_.Handle(method, context, response, [&](const Caller&) -> absl::Status {
      ASSIGN_OR_RETURN(auto resources, parts_.catalog.List<T>(request.page_size(), request.page_token(),
                                                              response->mutable_next_page_token()));
      for (T& resource : resources) *(response->*add)() = std::move(resource);
      return absl::OkStatus();
    });
  }

  const RegistryParts parts_;
  const RpcHandler rpc_;
};

class AuditService final : public audit::v1::Audit::Service {
 public:
  AuditService(const RegistryParts& parts, std::shared_ptr<const PeerIdentity> peer)
      : parts_(parts),
        rpc_({"sallyport.audit.v1.Audit", &parts.guard, std::move(peer), &parts.verifier, &parts.clock}) {}

  Status Append(ServerContext* context, const audit::v1::AppendRequest* request,
                audit::v1::AppendResponse* response) override {
    return rpc_.Handle("Append", context, response,
                       [&](const Caller& caller) -> absl::StatusOr<audit::v1::AppendResponse> {
                         // Nobody writes in another's name.
                         for (const audit::v1::Event& event : request->events()) {
                           if (event.source() != caller.service && event.source().rfind(caller.service + "/", 0) != 0) {
                             return absl::PermissionDeniedError("source is not the caller's");
                           }
                         }
                         return parts_.audit_store.Append(*request);
                       });
  }
  Status ListEvents(ServerContext* context, const audit::v1::ListEventsRequest* request,
                    audit::v1::ListEventsResponse* response) override {
    return rpc_.Handle("ListEvents", context, response,
                       [&](const Caller&) { return parts_.audit_store.List(*request); });
  }
  Status EraseNames(ServerContext* context, const audit::v1::EraseNamesRequest* request,
                    audit::v1::EraseNamesResponse* response) override {
    return rpc_.Handle("EraseNames", context, response, [&](const Caller& caller) { return Erase(caller, *request); });
  }

 private:
  absl::StatusOr<audit::v1::EraseNamesResponse> Erase(const Caller& caller,
                                                      const audit::v1::EraseNamesRequest& request) const {
    const Writer writer = WriterFrom(caller);
    audit::v1::Event event;
    event.set_type("audit.names_erased");
    event.set_decision(audit::v1::DECISION_ALLOWED);
    event.set_rule("admin");
    event.set_subject(writer.subject);
    event.set_client_id(writer.client_id);
    for (const auto& [name, value] : {std::pair("user", request.subject()), std::pair("client", request.client_id())}) {
      if (!value.empty()) (*event.mutable_details())[name] = std::string(Utf8Prefix(value, 256));
    }
    ASSIGN_OR_RETURN(
        audit::v1::EraseNamesResponse response,
        parts_.audit_store.EraseNames(request, [&](Transaction& tx) { return parts_.audit.Append(tx, event); }));
    parts_.audit.Kick();
    return response;
  }

  const RegistryParts parts_;
  const RpcHandler rpc_;
};

}  // namespace

absl::StatusOr<CallGuard> MakeRegistryGuard() {
  const std::set<std::string> edge = {"edge"};
  MethodTable registry;
  for (const char* method : {"CreateMcpServer", "UpdateMcpServer", "GetMcpServer", "ListMcpServers", "DeleteMcpServer",
                             "CreateApp", "UpdateApp", "GetApp", "ListApps", "DeleteApp", "CreateCredential",
                             "UpdateCredential", "GetCredential", "ListCredentials", "DeleteCredential", "Apply"}) {
    registry[method] = edge;
  }
  registry["Watch"] = {"edge", "authn", "token_broker"};
  registry["FinishApp"] = {"token_broker"};
  registry["PublishInvalidations"] = {"authn", "token_broker"};
  const MethodTable audit = {
      {"Append", {"edge", "authn", "token_broker", "vault", "registry"}}, {"ListEvents", edge}, {"EraseNames", edge}};
  return CallGuard::Create({{"sallyport.registry.v1.Registry", registry}, {"sallyport.audit.v1.Audit", audit}});
}

std::vector<std::unique_ptr<grpc::Service>> MakeRegistryServices(const RegistryParts& parts,
                                                                 const std::shared_ptr<const PeerIdentity>& peer) {
  std::vector<std::unique_ptr<grpc::Service>> services;
  services.push_back(std::make_unique<RegistryService>(parts, peer));
  services.push_back(std::make_unique<AuditService>(parts, peer));
  return services;
}

}  // namespace sallyport::registry

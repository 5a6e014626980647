// SPDX-License-Identifier: Apache-2.0
#include "services/standalone/standalone.h"

#include <filesystem>

#include "absl/strings/str_cat.h"

#include "common/config/service_config.h"
#include "common/error.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "services/authn/authn_server.h"
#include "services/edge/edge_server.h"
#include "services/registry/registry_server.h"
#include "services/token_broker/token_broker_server.h"
#include "services/vault/vault_server.h"

namespace sallyport::standalone {
namespace {

using config::v1::StandaloneConfig;

// "127.0.0.1:8080" is reached as http://127.0.0.1:8080; anything else needs a name only the administrator knows.
std::string DefaultPublicUrl(const StandaloneConfig& config) {
  const bool loopback = config.listen().starts_with("127.") || config.listen().starts_with("localhost:");
  if (!loopback) return "";
  return absl::StrCat(config.tls().certificate().empty() ? "http://" : "https://", config.listen());
}

config::v1::Deployment DeriveDeployment(const StandaloneConfig& config) {
  config::v1::Deployment deployment = config.deployment();
  if (deployment.public_url().empty()) deployment.set_public_url(DefaultPublicUrl(config));
  auto& networks = *deployment.mutable_egress()->mutable_upstream_networks();
  if (networks.empty()) {
    for (const char* network :
         {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "127.0.0.0/8", "::1/128"}) {
      *networks.Add() = network;
    }
  }
  return deployment;
}

class Standalone final : public RunningService {
 public:
  Standalone() = default;

  absl::Status Start(const StandaloneConfig& config, const Clock& clock) {
    const ServiceConfigs configs = DeriveConfigs(config);
    // They need each other: links exist before the services they lead to.
    ASSIGN_OR_RETURN(vault_, vault::VaultServer::Start(configs.vault, clock,
                                                       {vault_to_authn_.channel(), vault_to_registry_.channel()}));
    ASSIGN_OR_RETURN(
        registry_, registry::RegistryServer::Start(
                       configs.registry, clock, {vault_->InProcessChannel("registry"), registry_to_authn_.channel()}));
    registry_->Attach("vault", vault_to_registry_);
    ASSIGN_OR_RETURN(authn_,
                     authn::AuthnServer::Start(configs.authn, clock,
                                               {registry_->InProcessChannel("authn"), vault_->InProcessChannel("authn"),
                                                authn_to_token_broker_.channel()}));
    authn_->Attach("vault", vault_to_authn_);
    authn_->Attach("registry", registry_to_authn_);
    ASSIGN_OR_RETURN(token_broker_, token_broker::TokenBrokerServer::Start(configs.token_broker, clock,
                                                                           {registry_->InProcessChannel("token_broker"),
                                                                            authn_->InProcessChannel("token_broker"),
                                                                            vault_->InProcessChannel("token_broker")}));
    token_broker_->Attach("authn", authn_to_token_broker_);
    ASSIGN_OR_RETURN(edge_,
                     edge::EdgeServer::Start(configs.edge, clock,
                                             {authn_->InProcessChannel("edge"), token_broker_->InProcessChannel("edge"),
                                              vault_->InProcessChannel("edge"), registry_->InProcessChannel("edge")}));
    return ListenForHealth(config.health_listen());
  }

  absl::Status Ready() const override {
    RETURN_IF_ERROR(vault_->Ready());
    RETURN_IF_ERROR(registry_->Ready());
    RETURN_IF_ERROR(authn_->Ready());
    RETURN_IF_ERROR(token_broker_->Ready());
    return edge_->Ready();
  }

  void SetServing(bool serving) override {
    if (health_ != nullptr) health_->SetServing(serving);
    // Its listener for platforms answers health checks, too.
    if (token_broker_ != nullptr) token_broker_->SetServing(serving);
  }

  // Callers before the called.
  void Shutdown(absl::Duration grace) override {
    SetServing(false);
    // No refresh begins while the edge still waits for open streams: it could not be ended in time.
    if (token_broker_ != nullptr) token_broker_->StopTaking();
    if (edge_ != nullptr) edge_->Shutdown(grace);
    if (token_broker_ != nullptr) token_broker_->Shutdown(grace);
    edge_.reset();
    token_broker_.reset();
    if (authn_ != nullptr) authn_->Shutdown(grace);
    if (registry_ != nullptr) registry_->Shutdown(grace);
    if (vault_ != nullptr) vault_->Shutdown(grace);
    if (health_ != nullptr) health_->Shutdown(absl::ZeroDuration());
  }
  ~Standalone() override { Shutdown(absl::ZeroDuration()); }

 private:
  absl::Status ListenForHealth(const std::string& listen) {
    if (listen.empty()) return absl::OkStatus();
    RpcServer::Options options;
    options.listen = listen;
    options.insecure_peer = "health";  // There are no services that would ask who calls.
    ASSIGN_OR_RETURN(health_, RpcServer::Start(options, NoServices));
    return absl::OkStatus();
  }

  InProcessLink vault_to_authn_;
  InProcessLink vault_to_registry_;
  InProcessLink registry_to_authn_;
  InProcessLink authn_to_token_broker_;
  std::unique_ptr<vault::VaultServer> vault_;
  std::unique_ptr<registry::RegistryServer> registry_;
  std::unique_ptr<authn::AuthnServer> authn_;
  std::unique_ptr<token_broker::TokenBrokerServer> token_broker_;
  std::unique_ptr<edge::EdgeServer> edge_;
  std::unique_ptr<RpcServer> health_;
};

// Errors of the services are about derived configurations: as the administrator's file has it, each fault once.
absl::Status InOurWords(const absl::Status& status) {
  std::vector<ErrorDetail::Violation> violations = DetailOf(status).violations;
  for (ErrorDetail::Violation& violation : violations) {
    if (violation.field == "database.auditOutboxLimit") violation.field = "auditOutboxLimit";
  }
  return violations.empty() ? status : InvalidFields(violations);
}

absl::Status ValidateHealthListen(const std::string& listen) {
  if (listen.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(CheckListenAddress("healthListen", listen));
  return IsLoopbackListen(listen)
             ? absl::OkStatus()
             : InvalidField("healthListen", "must be on loopback, such as 127.0.0.1:9081: it is not encrypted");
}

}  // namespace

ServiceConfigs DeriveConfigs(const StandaloneConfig& config) {
  ServiceConfigs configs;
  const std::string& data = config.data_directory();
  const config::v1::Deployment deployment = DeriveDeployment(config);

  configs.vault.mutable_database()->set_sqlite(data + "/vault.db");
  configs.vault.mutable_kek()->set_directory(data + "/kek");
  *configs.vault.mutable_deployment() = deployment;

  configs.registry.mutable_database()->set_sqlite(data + "/registry.db");
  *configs.registry.mutable_deployment() = deployment;
  if (config.has_audit_retention()) *configs.registry.mutable_audit_retention() = config.audit_retention();

  configs.authn.mutable_database()->set_sqlite(data + "/authn.db");
  *configs.authn.mutable_deployment() = deployment;
  *configs.authn.mutable_connectors() = config.connectors();
  *configs.authn.mutable_roles() = config.roles();
  *configs.authn.mutable_clients() = config.clients();
  *configs.authn.mutable_platforms() = config.platforms();
  *configs.authn.mutable_kubernetes() = config.kubernetes();
  configs.authn.set_data_directory(data);
  if (config.has_session_lifetime()) *configs.authn.mutable_session_lifetime() = config.session_lifetime();
  if (config.has_access_token_lifetime()) {
    *configs.authn.mutable_access_token_lifetime() = config.access_token_lifetime();
  }

  for (config::v1::Database* database :
       {configs.vault.mutable_database(), configs.registry.mutable_database(), configs.authn.mutable_database()}) {
    database->set_audit_outbox_limit(config.audit_outbox_limit());
  }

  *configs.token_broker.mutable_deployment() = deployment;
  configs.token_broker.set_data_directory(data + "/token-broker");
  configs.token_broker.set_audit_backlog_limit(config.audit_backlog_limit());
  if (config.has_redis()) *configs.token_broker.mutable_redis() = config.redis();
  if (config.has_platform()) *configs.token_broker.mutable_platform() = config.platform();
  if (config.has_idle_revoke_after()) {
    *configs.token_broker.mutable_idle_revoke_after() = config.idle_revoke_after();
  }

  *configs.edge.mutable_deployment() = deployment;
  configs.edge.set_listen(config.listen());
  *configs.edge.mutable_tls() = config.tls();
  configs.edge.set_behind_tls_proxy(config.behind_tls_proxy());
  configs.edge.set_threads(config.threads());
  configs.edge.set_audit_backlog_limit(config.audit_backlog_limit());
  configs.edge.set_data_directory(data + "/edge");
  return configs;
}

absl::Status ValidateStandaloneConfig(const StandaloneConfig& config) {
  std::vector<absl::Status> checks;
  if (config.data_directory().empty()) {
    checks.push_back(InvalidField("dataDirectory", "is required: everything persistent lies there"));
  }
  if (config.listen().empty()) {
    checks.push_back(InvalidField("listen", "is required: the public address, such as 127.0.0.1:8080"));
  }
  const ServiceConfigs configs = DeriveConfigs(config);
  if (configs.edge.deployment().public_url().empty()) {
    checks.push_back(
        InvalidField("deployment.publicUrl", "is required unless `listen` is loopback: the origin clients use"));
  }
  // The first word about a field counts: what is said above comes first.
  checks.insert(checks.end(),
                {edge::ValidateEdgeConfig(configs.edge), authn::ValidateAuthnConfig(configs.authn),
                 token_broker::ValidateTokenBrokerConfig(configs.token_broker),
                 registry::ValidateRegistryConfig(configs.registry), vault::ValidateVaultConfig(configs.vault),
                 ValidateHealthListen(config.health_listen())});
  return InOurWords(MergeViolations(checks));
}

absl::StatusOr<std::unique_ptr<RunningService>> StartStandalone(const StandaloneConfig& config, const Clock& clock) {
  std::error_code error;
  std::filesystem::create_directories(config.data_directory(), error);
  if (error) return absl::UnavailableError(absl::StrCat(config.data_directory(), ": ", error.message()));
  std::filesystem::permissions(config.data_directory(), std::filesystem::perms::owner_all, error);
  auto standalone = std::make_unique<Standalone>();
  RETURN_IF_ERROR(InOurWords(standalone->Start(config, clock)));
  return std::unique_ptr<RunningService>(std::move(standalone));
}

}  // namespace sallyport::standalone

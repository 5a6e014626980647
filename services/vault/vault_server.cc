// SPDX-License-Identifier: Apache-2.0
#include "services/vault/vault_server.h"

#include <optional>
#include <utility>
#include <vector>

#include "common/audit/outbox.h"
#include "common/config/service_config.h"
#include "common/error.h"
#include "common/rpc/server.h"
#include "common/sql/config.h"
#include "common/status_macros.h"
#include "services/vault/access.h"
#include "services/vault/directory_kek.h"
#include "services/vault/keyring.h"
#include "services/vault/sqlite_journal.h"
#include "services/vault/store.h"
#include "services/vault/vault.h"
#include "services/vault/vault_admin.h"
#include "services/vault/vault_service.h"

namespace sallyport::vault {
namespace {

constexpr char kLimit[] = "database.auditOutboxLimit";

// A sealed vault that could not be asked for its keys would find nobody to say so.
class NoKeys final : public PassportKeySource {
 public:
  absl::StatusOr<std::string> FetchJwks() override { return absl::UnavailableError("no channel to authn"); }
};

std::unique_ptr<PassportVerifier> MakeVerifier(const config::v1::VaultConfig& config, const VaultPeers& peers) {
  std::unique_ptr<PassportKeySource> keys;
  if (peers.authn != nullptr) {
    keys = std::make_unique<RpcKeySource>(peers.authn);
  } else {
    keys = std::make_unique<NoKeys>();
  }
  return std::make_unique<PassportVerifier>(config.deployment().public_url(), std::move(keys));
}

}  // namespace

absl::Status ValidateVaultConfig(const config::v1::VaultConfig& config) {
  std::vector<absl::Status> checks = {ValidateDatabase(config.database())};
  if (config.kek().directory().empty()) {
    checks.push_back(InvalidField("kek.directory", "is required"));
  }
  if (config.deployment_id().size() > 128) {
    checks.push_back(InvalidField("deploymentId", "is longer than 128 bytes"));
  }
  return MergeViolations(checks);
}

absl::Status ValidateSplitConfig(const config::v1::VaultConfig& config) {
  return MergeViolations({ValidateVaultConfig(config), ValidateServer(config.server()),
                          ValidatePeers(config.peers(), {"authn"}), ValidateDeployment(config.deployment())});
}

// In order of construction: what is used stands before what uses it.
struct VaultServer::Parts {
  std::unique_ptr<Database> database;
  std::unique_ptr<KeyEncryptionKey> kek;
  std::unique_ptr<AuditOutbox> outbox;
  std::unique_ptr<AuditTrail> trail;
  std::unique_ptr<Keyring> keyring;
  std::unique_ptr<Vault> vault;
  std::unique_ptr<VaultAdmin> admin;
  std::unique_ptr<PassportVerifier> verifier;
  std::optional<CallGuard> guard;
  std::unique_ptr<RpcServer> rpc;
  const Clock* clock = nullptr;

  absl::Status OpenStore(const config::v1::VaultConfig& config);
  std::vector<std::unique_ptr<grpc::Service>> MakeServices(const std::shared_ptr<const PeerIdentity>& peer);
};

absl::Status VaultServer::Parts::OpenStore(const config::v1::VaultConfig& config) {
  ASSIGN_OR_RETURN(Database::Options options, DatabaseOptionsFrom(config.database(), *clock));
  ASSIGN_OR_RETURN(database, Database::Open(std::move(options)));
  RETURN_IF_ERROR(database->Migrate(VaultMigrations()));
  RETURN_IF_ERROR(FillInApps(*database));
  kek = std::make_unique<DirectoryKek>(config.kek().directory());
  ASSIGN_OR_RETURN(const int64_t audit_limit, AuditOutbox::LimitFrom(config.database().audit_outbox_limit(), kLimit));
  outbox =
      std::make_unique<AuditOutbox>(*database, *clock, AuditOutbox::Options{.source = "vault", .limit = audit_limit});
  trail = std::make_unique<AuditTrail>(*outbox);
  keyring = std::make_unique<Keyring>(*database, *kek, Keyring::Options{config.deployment_id()});
  std::function<void()> after_shred;
  if (!config.database().sqlite().empty()) {
    after_shred = [path = config.database().sqlite()] { TruncateSqliteJournal(path); };
  }
  vault = std::make_unique<Vault>(Vault::Dependencies{*database, *keyring, *trail, *clock, std::move(after_shred)});
  admin = std::make_unique<VaultAdmin>(*database, *keyring, *trail, *clock);
  return absl::OkStatus();
}

std::vector<std::unique_ptr<grpc::Service>> VaultServer::Parts::MakeServices(
    const std::shared_ptr<const PeerIdentity>& peer) {
  RpcHandler::Options options;
  options.guard = &*guard;
  options.peer = peer;
  options.verifier = &*verifier;
  options.clock = clock;
  std::vector<std::unique_ptr<grpc::Service>> services;
  options.service = "sallyport.vault.v1.Vault";
  services.push_back(std::make_unique<VaultService>(*vault, options));
  options.service = "sallyport.vault.v1.VaultAdmin";
  services.push_back(std::make_unique<VaultAdminService>(*admin, options));
  return services;
}

absl::StatusOr<std::unique_ptr<VaultServer>> VaultServer::Start(const config::v1::VaultConfig& config,
                                                                const Clock& clock, const VaultPeers& peers) {
  RETURN_IF_ERROR(ValidateVaultConfig(config));
  std::unique_ptr<VaultServer> server(new VaultServer());
  server->parts_ = std::make_unique<Parts>();
  Parts& parts = *server->parts_;
  parts.clock = &clock;
  RETURN_IF_ERROR(parts.OpenStore(config));
  parts.verifier = MakeVerifier(config, peers);
  ASSIGN_OR_RETURN(parts.guard, CallGuard::Create(VaultMethodTables()));
  // Sealed is a state to serve in: it answers why, and goes on trying.
  parts.keyring->EnsureActive(clock.Now()).IgnoreError();
  RpcServer::Options options;
  if (!config.server().listen().empty()) {
    ASSIGN_OR_RETURN(options, RpcOptionsFrom(config.server()));
  }
  ASSIGN_OR_RETURN(parts.rpc, RpcServer::Start(options, [&parts](const std::shared_ptr<const PeerIdentity>& peer) {
                     return parts.MakeServices(peer);
                   }));
  if (peers.registry != nullptr) {
    parts.outbox->StartShipping(MakeAuditSink(peers.registry));
  }
  return server;
}

VaultServer::~VaultServer() {
  if (parts_ != nullptr && parts_->rpc != nullptr) {
    parts_->rpc->Shutdown(absl::ZeroDuration());
  }
}

std::shared_ptr<grpc::Channel> VaultServer::InProcessChannel(const std::string& caller) {
  return parts_->rpc->InProcessChannel(caller);
}

int VaultServer::port() const { return parts_->rpc->port(); }

absl::Status VaultServer::Ready() const { return parts_->keyring->EnsureActive(parts_->clock->Now()); }

void VaultServer::SetServing(bool serving) { parts_->rpc->SetServing(serving); }

void VaultServer::Shutdown(absl::Duration grace) { parts_->rpc->Shutdown(grace); }

absl::StatusOr<std::unique_ptr<RunningService>> StartVault(const config::v1::VaultConfig& config, const Clock& clock) {
  const TlsFiles tls = TlsFilesFrom(config.server().tls());
  VaultPeers peers;
  if (!config.peers().authn().empty()) {
    ASSIGN_OR_RETURN(peers.authn, MakeChannel(config.peers().authn(), tls, "authn"));
  }
  if (!config.peers().registry().empty()) {
    ASSIGN_OR_RETURN(peers.registry, MakeChannel(config.peers().registry(), tls, "registry"));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<RunningService> server, VaultServer::Start(config, clock, std::move(peers)));
  return server;
}

}  // namespace sallyport::vault

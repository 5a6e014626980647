// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_listener.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/caller/caller.h"
#include "common/config/service_config.h"
#include "common/error.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "services/token_broker/deferred_audit.h"
#include "services/token_broker/platform/budgets.h"
#include "services/token_broker/platform/platform_accounts.h"
#include "services/token_broker/platform/platform_door.h"
#include "services/token_broker/platform/platform_metrics.h"
#include "services/token_broker/platform/platform_refusals.h"
#include "services/token_broker/platform/platform_service.h"
#include "services/token_broker/platform/platform_tokens.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {
namespace {

constexpr int kMaxThreads = 4096;
constexpr size_t kMaxQueue = 10'000;
constexpr size_t kMaxPlatforms = 1'000;
// The largest request has two tokens of 16 KiB.
constexpr int kMaxRequestBytes = 64 << 10;

absl::Status CheckPem(const char* field, const std::string& path, const char* missing) {
  return path.empty() && missing != nullptr ? InvalidField(field, missing) : CheckReadable(field, path);
}

RpcServer::Options OptionsFrom(const config::v1::PlatformListener& config) {
  RpcServer::Options options;
  options.listen = config.listen();
  options.tls.certificate = config.certificate();
  options.tls.private_key = config.private_key();
  options.tls.ca_bundle = config.client_ca_bundle();
  options.outside_peer = kPlatformPeer;
  options.max_request_bytes = kMaxRequestBytes;
  if (config.max_threads() > 0) {
    options.max_threads = config.max_threads();
  }
  if (config.reflection()) {
    options.reflected = {kPlatformService};
  }
  return options;
}

}  // namespace

absl::Status ValidatePlatformListener(const config::v1::PlatformListener& config) {
  const bool bad_threads = config.max_threads() < 0 || config.max_threads() > kMaxThreads;
  return MergeViolations(
      {config.listen().empty() ? InvalidField("platform.listen", "is required, such as 0.0.0.0:7100")
                               : CheckListenAddress("platform.listen", config.listen()),
       CheckPem("platform.certificate", config.certificate(), "is required: platforms come over TLS only"),
       CheckPem("platform.privateKey", config.private_key(), "is required: platforms come over TLS only"),
       CheckPem("platform.clientCaBundle", config.client_ca_bundle(), nullptr),
       bad_threads ? InvalidField("platform.maxThreads", absl::StrCat("must be 0 (the default) to ", kMaxThreads))
                   : absl::OkStatus()});
}

// Members are destroyed from the last to the first: what is used stands before what uses it.
struct PlatformListener::State {
  std::unique_ptr<DeferredAudit> audit;
  std::unique_ptr<CallGuard> guard;
  PlatformMetrics metrics;
  std::unique_ptr<PlatformRefusals> refusals;
  Budgets rates{kMaxPlatforms};
  std::unique_ptr<PlatformAccounts> accounts;
  // Of their own: platforms do not take the threads of those who call servers.
  std::unique_ptr<TaskRunner> runner;
  std::unique_ptr<PlatformDoor> door;
  std::unique_ptr<PlatformTokens> tokens;
  std::unique_ptr<RpcServer> server;
};

absl::StatusOr<std::unique_ptr<PlatformListener>> PlatformListener::Start(const config::v1::PlatformListener& config,
                                                                          const std::string& public_url,
                                                                          const std::shared_ptr<grpc::Channel>& authn,
                                                                          const Parts& parts) {
  RETURN_IF_ERROR(ValidatePlatformListener(config));
  const RpcServer::Options options = OptionsFrom(config);
  std::unique_ptr<PlatformListener> listener(new PlatformListener);
  listener->state_ = std::make_unique<State>();
  State& state = *listener->state_;
  ASSIGN_OR_RETURN(CallGuard guard, CallGuard::Create(PlatformMethodTables()));
  state.guard = std::make_unique<CallGuard>(std::move(guard));
  state.audit = std::make_unique<DeferredAudit>(parts.segments);
  state.refusals = std::make_unique<PlatformRefusals>(*state.audit, parts.clock);
  state.accounts = std::make_unique<PlatformAccounts>(public_url, parts.control, parts.accounts, parts.key, parts.audit,
                                                      parts.clock);
  state.runner = std::make_unique<TaskRunner>(options.max_threads, kMaxQueue);
  state.door =
      std::make_unique<PlatformDoor>(authn, parts.verifier, parts.control, state.metrics, *state.runner, parts.clock);
  state.tokens = std::make_unique<PlatformTokens>(parts.control, parts.secrets, parts.connections, *state.accounts,
                                                  *state.audit, *state.runner, parts.clock);
  // Called again later, when `parts` is gone.
  const auto factory = [&state, clock = &parts.clock](const std::shared_ptr<const PeerIdentity>& peer) {
    RpcHandler::Options handler;
    handler.service = kPlatformService;
    handler.guard = state.guard.get();
    handler.peer = peer;
    handler.clock = clock;
    // No verifier: a passport in a platform's metadata is refused, whosever it is.
    std::vector<std::unique_ptr<grpc::Service>> services;
    services.push_back(std::make_unique<PlatformService>(
        handler, PlatformService::Parts{*state.door, *state.tokens, *state.accounts, state.metrics, *state.refusals,
                                        state.rates, *state.runner}));
    return services;
  };
  absl::StatusOr<std::unique_ptr<RpcServer>> server = RpcServer::Start(options, factory);
  if (absl::IsUnavailable(server.status())) {
    return absl::UnavailableError(absl::StrCat("platform.listen: ", server.status().message()));
  }
  RETURN_IF_ERROR(server.status());
  state.server = *std::move(server);
  return listener;
}

PlatformListener::~PlatformListener() { Shutdown(absl::ZeroDuration()); }

int PlatformListener::port() const { return state_->server->port(); }

void PlatformListener::SetServing(bool serving) { state_->server->SetServing(serving); }

void PlatformListener::Obey(const ControlUpdate& update) { state_->door->Obey(update); }

void PlatformListener::Shutdown(absl::Duration grace) {
  if (state_->server != nullptr) {
    state_->server->Shutdown(grace);
  }
  if (state_->runner != nullptr) {
    state_->runner->Stop();
  }
  if (state_->audit != nullptr) {
    state_->audit->Flush();
  }
}

void ShowPlatformMetrics() { const PlatformMetrics metrics; }

}  // namespace sallyport::token_broker

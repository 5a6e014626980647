// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <google/protobuf/message.h>

#include "common/clock.h"
#include "common/config/yaml_config.h"
#include "common/rpc/server.h"
#include "sallyport/config/v1/common.pb.h"

namespace sallyport {

// What a program's main runs: a started service.
class RunningService {
 public:
  virtual ~RunningService() = default;
  // For /readyz and gRPC health: OK, or what is missing. Called from other threads, cheap.
  virtual absl::Status Ready() const = 0;
  // What gRPC health checks are answered: SERVING or NOT_SERVING, which it is before the first call.
  virtual void SetServing(bool serving) = 0;
  // Refuses new work, finishes what runs until `grace` is over.
  virtual void Shutdown(absl::Duration grace) = 0;
};

// A service's own validation of its configuration beyond types, for --check-config and every start: errors by
// InvalidField(s) with paths as in the file.
template <typename Config>
using ValidateConfig = std::function<absl::Status(const Config&)>;
template <typename Config>
using StartService = std::function<absl::StatusOr<std::unique_ptr<RunningService>>(const Config&, const Clock&)>;

namespace service_main_internal {
struct Program {
  std::string name;           // "token_broker"; the program is sallyport-token-broker.
  std::string server_fields;  // Where adminListen and logLevel stand: "server." or "".
  std::unique_ptr<google::protobuf::Message> config;
  std::function<absl::Status()> validate;
  std::function<absl::StatusOr<std::unique_ptr<RunningService>>(const Clock&)> start;
  std::function<std::string()> admin_listen;
  std::function<std::string()> log_level;
};
int Run(int argc, char** argv, Program program);
}  // namespace service_main_internal

// The whole of a main(): options --config FILE, --check-config, --version, --help; core dumps off (unless
// SALLYPORT_ALLOW_CORE=1 is in the environment), signals masked before any thread, libraries initialised, logging, the
// admin listener, gRPC health that follows readiness, waiting for SIGTERM or SIGINT, graceful shutdown of 10 s. Exit
// codes: 0; 1 start failed; 2 bad usage or configuration (stderr names file, line and field, also if only `start` found
// out).
//   int main(int argc, char** argv) { return sallyport::RunService<VaultConfig>(argc, argv, "vault",
//   ValidateVaultConfig, StartVault); }
template <typename Config>
int RunService(int argc, char** argv, const std::string& name, ValidateConfig<Config> validate,
               StartService<Config> start) {
  auto owned = std::make_unique<Config>();
  const Config* config = owned.get();
  service_main_internal::Program program;
  program.name = name;
  program.config = std::move(owned);
  program.validate = [config, validate] { return validate ? validate(*config) : absl::OkStatus(); };
  program.start = [config, start](const Clock& clock) { return start(*config, clock); };
  if constexpr (requires { config->server(); }) {
    program.server_fields = "server.";
    program.admin_listen = [config] { return config->server().admin_listen(); };
    program.log_level = [config] { return config->server().log_level(); };
  } else {
    program.admin_listen = [config] { return config->admin_listen(); };
    program.log_level = [config] { return config->log_level(); };
  }
  return service_main_internal::Run(argc, argv, std::move(program));
}

// Split mode's settings, checked by ValidateServer.
TlsFiles TlsFilesFrom(const config::v1::MutualTls& tls);
// Of `maxThreads`: 256 when 0.
int MaxThreads(const config::v1::Server& server);
absl::StatusOr<RpcServer::Options> RpcOptionsFrom(const config::v1::Server& server);

}  // namespace sallyport

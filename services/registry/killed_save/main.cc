// SPDX-License-Identifier: Apache-2.0
// Makes one save and sends itself SIGKILL before a step of it. Started by save_crash_test.
#include <csignal>
#include <fstream>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include <grpcpp/grpcpp.h>

#include "common/status_macros.h"
#include "services/registry/setup_testing.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::registry {
namespace {

constexpr char kUsage[] =
    "killed_save sqlite|postgresql DATABASE VAULT MICROSECONDS STEP "
    "apply FILE|delete SERVER|delete-app APP|finish-app UID\n";

struct Arguments {
  Engine engine = Engine::kSqlite;
  std::string database;
  std::string vault;
  absl::Time now;
  int step = 0;
  std::string action;
  std::string operand;
};

bool Parse(int argc, char** argv, Arguments& arguments) {
  if (argc != 8) return false;
  const std::string engine = argv[1];
  arguments.engine = engine == "postgresql" ? Engine::kPostgresql : Engine::kSqlite;
  arguments.database = argv[2];
  arguments.vault = argv[3];
  int64_t now = 0;
  if (!absl::SimpleAtoi(argv[4], &now) || !absl::SimpleAtoi(argv[5], &arguments.step)) return false;
  arguments.now = absl::FromUnixMicros(now);
  arguments.action = argv[6];
  arguments.operand = argv[7];
  const std::set<std::string> actions = {"apply", "delete", "delete-app", "finish-app"};
  return (engine == "postgresql" || engine == "sqlite") && actions.count(arguments.action) > 0;
}

StepHook KillBefore(int at) {
  return [at, steps = 0](absl::string_view step) mutable {
    if (++steps < at) return absl::OkStatus();
    std::cerr << "SIGKILL before step " << steps << ": " << step << std::endl;
    kill(getpid(), SIGKILL);
    return absl::InternalError("SIGKILL did not end the process");
  };
}

absl::Status Save(Catalog& catalog, const Arguments& arguments) {
  const std::string& operand = arguments.operand;
  if (arguments.action == "delete") return catalog.Delete<v1::McpServer>(operand, 0, CredentialAdmin()).status();
  if (arguments.action == "delete-app") return catalog.Delete<v1::App>(operand, 0, CredentialAdmin()).status();
  if (arguments.action == "finish-app") return catalog.FinishApp(operand);
  std::ifstream file(operand, std::ios::binary);
  v1::ApplyRequest request;
  if (!request.ParseFromIstream(&file)) {
    return absl::InvalidArgumentError(absl::StrCat(operand, ": not an ApplyRequest"));
  }
  return catalog.Apply(request, CredentialAdmin()).status();
}

absl::Status Run(const Arguments& arguments) {
  const FakeClock clock(arguments.now);
  ASSIGN_OR_RETURN(const std::unique_ptr<Database> database,
                   Database::Open(DatabaseOptions(arguments.engine, arguments.database, clock)));
  AuditOutbox audit(*database, clock, OutboxOptions());
  SecretVault vault(grpc::CreateChannel(arguments.vault, grpc::InsecureChannelCredentials()));
  Catalog::Options options = CatalogOptions();
  options.before_step = KillBefore(arguments.step);
  Catalog catalog(*database, audit, vault, clock, std::move(options));
  return Save(catalog, arguments);
}

}  // namespace
}  // namespace sallyport::registry

// Exit code 0: the save was complete before it came to that step.
int main(int argc, char** argv) {
  sallyport::registry::Arguments arguments;
  if (!sallyport::registry::Parse(argc, argv, arguments)) {
    std::cerr << sallyport::registry::kUsage;
    return 2;
  }
  const absl::Status saved = sallyport::registry::Run(arguments);
  if (saved.ok()) return 0;
  std::cerr << saved << std::endl;
  return 1;
}

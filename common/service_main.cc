// SPDX-License-Identifier: Apache-2.0
#include "common/service_main.h"

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <thread>
#include <unistd.h>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include <curl/curl.h>
#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "common/config/service_config.h"
#include "common/error.h"
#include "common/http/admin.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/mutex.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

constexpr int kStartFailed = 1;
constexpr int kBadUsage = 2;
constexpr absl::Duration kGrace = absl::Seconds(10);
// What may come on top for work that must not be cut off (an answer that exists nowhere else is being stored). Together
// they stay below the 30 s after which Kubernetes kills.
constexpr absl::Duration kCommitGrace = absl::Seconds(18);
constexpr std::chrono::milliseconds kHealthEvery{1000};

struct Arguments {
  std::string config;
  bool check_only = false;
  bool help = false;
  bool version = false;
};

absl::StatusOr<Arguments> ParseArguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    absl::string_view word = argv[i];
    if (word == "--help" || word == "-h") {
      arguments.help = true;
    } else if (word == "--version") {
      arguments.version = true;
    } else if (word == "--check-config") {
      arguments.check_only = true;
    } else if (absl::ConsumePrefix(&word, "--config=")) {
      arguments.config = std::string(word);
    } else if (word == "--config" && i + 1 < argc) {
      arguments.config = argv[++i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat("unknown option ", word, "; try --help"));
    }
  }
  if (arguments.config.empty() && !arguments.help && !arguments.version) {
    return absl::InvalidArgumentError("--config FILE is required; try --help");
  }
  return arguments;
}

// As the file of the program is called.
std::string BinaryName(const std::string& service) {
  return absl::StrCat("sallyport-", absl::StrReplaceAll(service, {{"_", "-"}}));
}

void PrintHelp(const std::string& binary) {
  std::printf(
      "%s: a service of the sallyport gateway\n\n"
      "  --config FILE    YAML configuration (required)\n"
      "  --check-config   say whether the configuration is good and the files it names are there, and end\n"
      "  --version        print the version, and end\n"
      "  --help           print this, and end\n\n"
      "SIGTERM and SIGINT end it gracefully within %lld s. Exit codes: 0 ended, 1 could not start, 2 bad usage or "
      "configuration.\n",
      binary.c_str(), static_cast<long long>(absl::ToInt64Seconds(kGrace)));
}

// Memory holds keys and tokens: no core file, and no ptrace by other processes of the same user.
void ForbidCoreDumps() {
  const char* allow = std::getenv("SALLYPORT_ALLOW_CORE");
  if (allow != nullptr && absl::string_view(allow) == "1") {
    return;
  }
  prctl(PR_SET_DUMPABLE, 0);
  const rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
}

// A relayed stream holds two descriptors, and the usual soft limit of 1,024 is there for programs that use select.
void RaiseFileLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

// Before any thread, so that all inherit the mask and only sigwait sees these signals. A peer that is gone, and a file
// that may not grow, are errors of the call that met them, and end nothing else.
sigset_t PrepareSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  return set;
}

// gRPC writes plain text to stderr otherwise.
void LogForGrpc(gpr_log_func_args* line) {
  const absl::string_view message = line->message;
  // Said for every connection to an address that is no DNS name; our peers are verified by SPIFFE id.
  if (absl::StartsWith(message, "No match found for server name")) {
    return;
  }
  Log(line->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kWarning : LogLevel::kDebug, "grpc",
      {{"file", absl::string_view(line->file)}, {"line", line->line}, {"message", message}});
}

// So does protobuf.
void LogForProtobuf(google::protobuf::LogLevel level, const char* file, int line, const std::string& message) {
  Log(level == google::protobuf::LOGLEVEL_INFO ? LogLevel::kDebug : LogLevel::kWarning, "protobuf",
      {{"file", file}, {"line", line}, {"message", message}});
}

// /readyz answers before and while the service starts.
class Readiness {
 public:
  absl::Status Check() {
    MutexLock lock(mu_);
    return service_ != nullptr ? service_->Ready() : absl::UnavailableError(why_);
  }
  void Set(const RunningService* service, const std::string& why) {
    MutexLock lock(mu_);
    service_ = service;
    why_ = why;
  }

 private:
  Mutex mu_;
  const RunningService* service_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::string why_ ABSL_GUARDED_BY(mu_) = "starting";
};

// gRPC health says what /readyz says, a second later at most; NOT_SERVING for good when it ends.
class HealthFollower {
 public:
  explicit HealthFollower(RunningService& service) : service_(service), thread_([this] { Run(); }) {}
  ~HealthFollower() {
    {
      MutexLock lock(mu_);
      stop_ = true;
      service_.SetServing(false);
    }
    wake_.notify_all();
    thread_.join();
  }

 private:
  void Run() {
    while (true) {
      const bool ready = service_.Ready().ok();
      MutexLock lock(mu_);
      if (stop_) {
        return;
      }
      service_.SetServing(ready);
      const auto next = std::chrono::steady_clock::now() + kHealthEvery;
      while (!stop_ && wake_.wait_until(mu_, next) != std::cv_status::timeout) {
      }
      if (stop_) {
        return;
      }
    }
  }

  RunningService& service_;
  Mutex mu_;
  std::condition_variable_any wake_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

absl::Status LoadConfig(const Arguments& arguments, service_main_internal::Program& program, FieldLines& lines) {
  RETURN_IF_ERROR(LoadYamlFile(arguments.config, program.config.get(), {}, &lines));
  std::vector<absl::Status> checks;
  if (!ParseLogLevel(program.log_level()).has_value()) {
    checks.push_back(InvalidField(program.server_fields + "logLevel", "must be debug, info, warning or error"));
  }
  if (const std::string admin = program.admin_listen(); !admin.empty()) {
    checks.push_back(CheckListenAddress(program.server_fields + "adminListen", admin));
  }
  checks.push_back(program.validate());
  return lines.Locate(MergeViolations(checks));
}

// What a failed start says, and the exit code. Some faults of a configuration only show when it is used.
int Fail(const service_main_internal::Program& program, const FieldLines& lines, const absl::Status& status) {
  Log(LogLevel::kError, "start_failed", {{"error", status}});
  if (!DetailOf(status).violations.empty()) {
    std::fprintf(stderr, "%s\n", std::string(lines.Locate(status).message()).c_str());
    return kBadUsage;
  }
  std::fprintf(stderr, "%s: %s\n", BinaryName(program.name).c_str(), std::string(status.message()).c_str());
  return kStartFailed;
}

constexpr GaugeInfo kBuildInfo = {
    .name = "sallyport_build_info",
    .help = "Always 1; its labels say which program of which version runs",
    .unit = "1",
    .labels = {{"program", "edge, authn, token_broker, vault, registry, standalone"},
               {"version", "version of sallyport"}},
    .rise = "Two versions at once: an upgrade is under way, or was left half done",
    .action = "Finish the upgrade; count the replicas by version",
};

int Serve(const service_main_internal::Program& program, const FieldLines& lines, const sigset_t& stop_signals) {
  const SystemClock clock;
  Readiness readiness;
  MetricGauge(kBuildInfo, {{"program", program.name}, {"version", SALLYPORT_VERSION}}).Set(1);
  std::unique_ptr<AdminHttp> admin;
  if (const std::string listen = program.admin_listen(); !listen.empty()) {
    absl::StatusOr<std::unique_ptr<AdminHttp>> started = AdminHttp::Start(
        listen, [&readiness] { return readiness.Check(); }, program.server_fields + "adminListen");
    if (!started.ok()) {
      return Fail(program, lines, started.status());
    }
    admin = *std::move(started);
    Log(LogLevel::kInfo, "admin_listening", {{"address", listen}, {"port", admin->port()}});
  }
  absl::StatusOr<std::unique_ptr<RunningService>> service = program.start(clock);
  if (!service.ok()) {
    return Fail(program, lines, service.status());
  }
  readiness.Set(service->get(), "");
  auto health = std::make_unique<HealthFollower>(**service);
  Log(LogLevel::kInfo, "started", {{"version", SALLYPORT_VERSION}});

  int signal_number = 0;
  sigwait(&stop_signals, &signal_number);

  Log(LogLevel::kInfo, "stopping", {{"signal", signal_number}});
  // Should something hang, the process ends all the same.
  alarm(static_cast<unsigned>(absl::ToInt64Seconds(kGrace + kCommitGrace)));
  health.reset();
  readiness.Set(nullptr, "stopping");
  (*service)->Shutdown(kGrace);
  service->reset();
  Log(LogLevel::kInfo, "stopped");
  return EXIT_SUCCESS;
}

}  // namespace

namespace service_main_internal {

int Run(int argc, char** argv, Program program) {
  const absl::StatusOr<Arguments> arguments = ParseArguments(argc, argv);
  if (!arguments.ok()) {
    std::fprintf(stderr, "%s: %s\n", BinaryName(program.name).c_str(),
                 std::string(arguments.status().message()).c_str());
    return kBadUsage;
  }
  if (arguments->help) {
    PrintHelp(BinaryName(program.name));
    return EXIT_SUCCESS;
  }
  if (arguments->version) {
    std::printf("%s %s\n", BinaryName(program.name).c_str(), SALLYPORT_VERSION);
    return EXIT_SUCCESS;
  }
  SetLogService(program.name);
  FieldLines lines;
  if (const absl::Status loaded = LoadConfig(*arguments, program, lines); !loaded.ok()) {
    std::fprintf(stderr, "%s\n", std::string(loaded.message()).c_str());
    return kBadUsage;
  }
  if (arguments->check_only) {
    std::printf("%s: the configuration is good\n", arguments->config.c_str());
    return EXIT_SUCCESS;
  }
  SetLogLevel(*ParseLogLevel(program.log_level()));
  ForbidCoreDumps();
  RaiseFileLimit();
  const sigset_t stop_signals = PrepareSignals();
  gpr_set_log_function(LogForGrpc);
  google::protobuf::SetLogHandler(LogForProtobuf);
  curl_global_init(CURL_GLOBAL_DEFAULT);
  return Serve(program, lines, stop_signals);
}

}  // namespace service_main_internal

TlsFiles TlsFilesFrom(const config::v1::MutualTls& tls) {
  return {tls.certificate(), tls.private_key(), tls.ca_bundle(), tls.trust_domain()};
}

int MaxThreads(const config::v1::Server& server) {
  return server.max_threads() > 0 ? server.max_threads() : RpcServer::Options().max_threads;
}

absl::StatusOr<RpcServer::Options> RpcOptionsFrom(const config::v1::Server& server) {
  RETURN_IF_ERROR(ValidateServer(server));
  RpcServer::Options options;
  options.listen = server.listen();
  options.tls = TlsFilesFrom(server.tls());
  options.max_threads = MaxThreads(server);
  return options;
}

}  // namespace sallyport

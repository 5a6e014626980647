// SPDX-License-Identifier: Apache-2.0
// What it costs the token broker to give a platform a token that it has in memory, beside a bare gRPC echo of the same
// messages on the same TLS.
//   sallyport-bench-platform [--users N] [--rounds N] [--seconds N] [--max RATIO] [--bin DIR]
// CPU time of the process that serves, user and system. Exit code 1 if the median of the rounds' ratios is above --max,
// or a check failed; fewer than 7 rounds give no verdict.
//
// Every load asks for each user in turn, kInFlight at a time, with a client certificate and the user's token. Before
// each measurement the broker's memory is emptied and filled; that nobody is asked anything while it is measured is
// checked. The broker's share lasts until every token is on record.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "tests/bench/measure.h"
#include "tests/bench/platform_world.h"

namespace sallyport::token_broker {
namespace {

using bench::Cost;
using bench::CpuOf;
using bench::FirstError;
using bench::Measure;
using bench::Median;

constexpr size_t kInFlight = 4;
constexpr int kRoundsForVerdict = 7;
// The broker asks about so many at once.
constexpr size_t kMaxUsers = 9'000;
constexpr absl::Duration kRecordsWait = absl::Minutes(10);

struct Settings {
  size_t users = 5'000;
  int rounds = kRoundsForVerdict;
  int seconds = 4;
  double max_ratio = 1.5;
  std::string directory = std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
};

bool Parse(int argc, char** argv, Settings& settings) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const bool good = name == "--users"     ? absl::SimpleAtoi(argv[i + 1], &settings.users)
                      : name == "--rounds"  ? absl::SimpleAtoi(argv[i + 1], &settings.rounds)
                      : name == "--seconds" ? absl::SimpleAtoi(argv[i + 1], &settings.seconds)
                      : name == "--max"     ? absl::SimpleAtod(argv[i + 1], &settings.max_ratio)
                      : name == "--bin"     ? (settings.directory = argv[i + 1], true)
                                            : false;
    if (!good) {
      return false;
    }
  }
  return argc % 2 == 1 && settings.users >= 100 && settings.users <= kMaxUsers && settings.rounds >= 1 &&
         settings.seconds >= 1;
}

// GetToken once for every user, kInFlight at a time; each answer must be the token that `expected` gives.
absl::Status CallForAll(const PlatformWorld& world, const std::shared_ptr<grpc::Channel>& channel,
                        const std::function<const std::string&(const PlatformBenchUser&)>& expected) {
  FirstError error;
  std::vector<std::thread> threads;
  for (size_t thread = 0; thread < kInFlight; ++thread) {
    threads.emplace_back([&, thread] {
      const auto stub = v1::Platform::NewStub(channel);
      for (size_t i = thread; i < world.users().size(); i += kInFlight) {
        const PlatformBenchUser& user = world.users()[i];
        v1::GetTokenResponse response;
        const auto context = MakeClientContext(absl::Seconds(30));
        absl::Status status = FromGrpcStatus(stub->GetToken(context.get(), user.request, &response));
        if (status.ok() && response.access_token() != expected(user)) {
          status = absl::InternalError(absl::StrCat("the answer for ", user.subject, " is not their token"));
        }
        if (!status.ok()) return error.Note(status);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return error.status();
}

const std::string& TokenOf(const PlatformBenchUser& user) { return user.token; }

absl::Status GetTokens(PlatformWorld& world) {
  world.Heartbeat();
  const int64_t questions = world.questions();
  RETURN_IF_ERROR(CallForAll(world, world.broker(), TokenOf));
  const int64_t asked = world.questions() - questions;
  return asked == 0 ? absl::OkStatus()
                    : absl::InternalError(absl::StrCat("the broker asked ", asked, " times for what it had in memory"));
}

absl::Status Echo(PlatformWorld& world, Cost& cost) {
  world.Heartbeat();
  const std::string& answer = world.answer().access_token();
  const double begun = CpuOf(world.echo_pid());
  RETURN_IF_ERROR(
      CallForAll(world, world.echo(), [&](const PlatformBenchUser& /*user*/) -> const std::string& { return answer; }));
  cost.seconds += CpuOf(world.echo_pid()) - begun;
  cost.calls += static_cast<double>(world.users().size());
  return absl::OkStatus();
}

// The probes are recorded as well, and nobody counts them.
absl::Status CheckRecords(PlatformWorld& world, int64_t calls) {
  const absl::Time deadline = absl::Now() + kRecordsWait;
  while (world.recorded() < calls && absl::Now() < deadline) {
    world.Heartbeat();
    absl::SleepFor(absl::Milliseconds(100));
  }
  return world.recorded() >= calls
             ? absl::OkStatus()
             : absl::DataLossError(absl::StrCat("of ", calls, " tokens only ", world.recorded(), " are on record"));
}

// Microseconds a call, a value for each round.
struct Figures {
  std::vector<double> tokens, echo, ratio;
  int64_t calls = 0;  // Of the broker, measured or not.
};

absl::Status RunRound(PlatformWorld& world, const Settings& settings, Figures& figures) {
  const auto users = static_cast<int64_t>(world.users().size());
  RETURN_IF_ERROR(world.EmptyMemory());
  RETURN_IF_ERROR(CallForAll(world, world.broker(), TokenOf));
  figures.calls += users;
  // Records are written and shipped behind the calls: what a token costs has been paid once they have arrived.
  RETURN_IF_ERROR(CheckRecords(world, figures.calls));
  const int64_t before = figures.calls;
  const double begun = CpuOf(world.broker_pid());
  RETURN_IF_ERROR(Measure(settings.seconds, [&](Cost& cost) {
                    figures.calls += users;
                    cost.calls += static_cast<double>(users);
                    return GetTokens(world);
                  }).status());
  RETURN_IF_ERROR(CheckRecords(world, figures.calls));
  const double tokens = (CpuOf(world.broker_pid()) - begun) * 1e6 / static_cast<double>(figures.calls - before);
  ASSIGN_OR_RETURN(const double echo, Measure(settings.seconds, [&](Cost& cost) { return Echo(world, cost); }));
  figures.tokens.push_back(tokens);
  figures.echo.push_back(echo);
  figures.ratio.push_back(tokens / echo);
  return absl::OkStatus();
}

int Report(const PlatformWorld& world, const Settings& settings, const Figures& figures) {
  std::printf("%zu users, request %zu bytes, answer %zu\n", world.users().size(),
              world.users()[0].request.ByteSizeLong(), world.answer().ByteSizeLong());
  std::printf("%-10s %12s\n", "load", "cpu_us/call");
  std::printf("%-10s %12.1f\n", "GetToken", Median(figures.tokens));
  std::printf("%-10s %12.1f\n", "echo", Median(figures.echo));
  const double ratio = Median(figures.ratio);
  std::printf("cpu ratio GetToken/echo: %.3f\n", ratio);
  if (settings.rounds < kRoundsForVerdict) {
    std::printf("verdict: none, which takes %d rounds\n", kRoundsForVerdict);
    return 0;
  }
  if (ratio > settings.max_ratio) {
    std::printf("verdict: too slow: the ratio is %.3f, above %.2f\n", ratio, settings.max_ratio);
    return 1;
  }
  std::printf("verdict: within the limits\n");
  return 0;
}

int Run(const Settings& settings) {
  bench::PinThread(bench::Side::kLoad);
  const absl::StatusOr<std::unique_ptr<PlatformWorld>> world = PlatformWorld::Start(settings.directory, settings.users);
  absl::Status status = world.status();
  Figures figures;
  for (int round = 0; status.ok() && round <= settings.rounds; ++round) {
    status = RunRound(**world, settings, figures);
    if (round == 0) {  // Warms up.
      const int64_t calls = figures.calls;
      figures = {};
      figures.calls = calls;
    }
  }
  if (!status.ok()) {
    std::cerr << "platform: " << status << "\n";
    return 1;
  }
  return Report(**world, settings, figures);
}

}  // namespace
}  // namespace sallyport::token_broker

int main(int argc, char** argv) {
  // gRPC says of every address without a name that it has none.
  setenv("GRPC_VERBOSITY", "NONE", 0);
  if (argc == 5 && std::string(argv[1]) == "--echo") {
    return sallyport::token_broker::ServePlatformEcho(argv[2], argv[3], argv[4]);
  }
  sallyport::token_broker::Settings settings;
  if (!sallyport::token_broker::Parse(argc, argv, settings)) {
    std::cerr
        << "usage: sallyport-bench-platform [--users 100..9000] [--rounds N] [--seconds N] [--max RATIO] [--bin DIR]\n";
    return 2;
  }
  return sallyport::token_broker::Run(settings);
}

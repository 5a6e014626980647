// SPDX-License-Identifier: Apache-2.0
// What it costs the token broker to answer for a user whose token lies in Redis, beside what no broker could do
// without: a bare gRPC echo of the same messages and a bare GET of the same value.
//   sallyport-bench-resolve [--users N] [--rounds N] [--seconds N] [--max RATIO] [--bin DIR]
// CPU time of the process that serves (of the threads that ask, for GET), user and system. Exit code 1 if the median of
// the rounds' ratios is above --max, or a check failed; fewer than 7 rounds give no verdict.
//
// Every load asks for each user in turn, kInFlight at a time. `resolve` is the sallyport-token-broker program; its
// memory is emptied before each pass, so that each answer comes from Redis, where the only copy of a user's token is,
// and that is checked with the counters of Redis and of the vault. Passports are known to it, as they are for five
// minutes after their first use; `first use` are the same calls with passports that it has to verify, for comparison.
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
#include <hiredis/hiredis.h>

#include "common/error.h"
#include "common/status_macros.h"
#include "tests/bench/measure.h"
#include "tests/bench/resolve_echo.h"
#include "tests/bench/resolve_world.h"

namespace sallyport::token_broker {
namespace {

using bench::Cost;
using bench::CpuOf;
using bench::FirstError;
using bench::Measure;
using bench::Median;
using bench::PinThread;
using bench::Read;
using bench::Side;

// As a broker under load has them: what waking up costs on an idle machine, which is more than the work, would hide it.
constexpr size_t kInFlight = 16;
constexpr int kRoundsForVerdict = 7;
// The broker remembers so many passports, the probe's among them.
constexpr size_t kMaxUsers = 9'999;

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

// `work` for every user, kInFlight at a time; each thread has its share of them.
absl::Status ForEachUser(const std::vector<BenchUser>& users,
                         const std::function<absl::Status(size_t thread, const std::vector<const BenchUser*>&)>& work) {
  std::vector<std::vector<const BenchUser*>> shares(kInFlight);
  for (size_t i = 0; i < users.size(); ++i) shares[i % kInFlight].push_back(&users[i]);
  FirstError error;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kInFlight; ++i) {
    threads.emplace_back([&, i] { error.Note(work(i, shares[i])); });
  }
  for (std::thread& thread : threads) thread.join();
  return error.status();
}

// Calls ResolveCredentials once for every user; each answer must be one piece with the value that `expected` gives.
absl::Status CallForAll(const ResolveWorld& world, const std::shared_ptr<grpc::Channel>& channel,
                        const std::function<bool(const BenchUser&, const std::string& value)>& expected) {
  return ForEachUser(world.users(), [&](size_t /*thread*/, const std::vector<const BenchUser*>& share) -> absl::Status {
    const auto stub = v1::TokenBroker::NewStub(channel);
    for (const BenchUser* user : share) {
      v1::ResolveCredentialsResponse response;
      const auto context = MakeClientContext(absl::Seconds(30), user->passport);
      RETURN_IF_ERROR(FromGrpcStatus(stub->ResolveCredentials(context.get(), world.request(), &response)));
      if (response.pieces_size() != 1 || !expected(*user, response.pieces(0).value())) {
        return absl::InternalError(absl::StrCat("the answer for ", user->subject, " is not their token"));
      }
    }
    return absl::OkStatus();
  });
}

absl::Status Resolve(ResolveWorld& world, bool first_use, Cost& cost) {
  if (first_use) world.RenewPassports();
  RETURN_IF_ERROR(world.EmptyMemory());
  ASSIGN_OR_RETURN(const ResolveWorld::RedisReads before, world.Reads());
  const int64_t vault_before = world.vault_reads();
  const double begun = CpuOf(world.broker_pid());
  RETURN_IF_ERROR(CallForAll(world, world.broker(), [](const BenchUser& user, const std::string& value) {
    return value == "Bearer " + user.token;
  }));
  cost.seconds += CpuOf(world.broker_pid()) - begun;
  cost.calls += static_cast<double>(world.users().size());
  ASSIGN_OR_RETURN(const ResolveWorld::RedisReads after, world.Reads());
  const int64_t vault_reads = world.vault_reads() - vault_before;
  // With passports seen before nothing is left to ask the vault; of a user's first call it is asked for their root.
  if (after.hits - before.hits != static_cast<int64_t>(world.users().size()) || after.misses != before.misses ||
      (!first_use && vault_reads != 0)) {
    return absl::InternalError(absl::StrCat(world.users().size(), " calls were ", after.hits - before.hits,
                                            " hits and ", after.misses - before.misses, " misses in Redis, and ",
                                            vault_reads, " reads of the vault"));
  }
  return absl::OkStatus();
}

absl::Status Echo(ResolveWorld& world, Cost& cost) {
  world.Heartbeat();
  const std::string& answer = world.answer().pieces(0).value();
  const double begun = CpuOf(world.echo_pid());
  RETURN_IF_ERROR(CallForAll(world, world.echo(),
                             [&](const BenchUser& /*user*/, const std::string& value) { return value == answer; }));
  cost.seconds += CpuOf(world.echo_pid()) - begun;
  cost.calls += static_cast<double>(world.users().size());
  return absl::OkStatus();
}

// On a blocking connection of the thread's own; the time is the thread's.
absl::Status GetShare(const std::string& socket, const std::vector<const BenchUser*>& share, double* seconds) {
  PinThread(Side::kMeasured);
  const std::unique_ptr<redisContext, decltype(&redisFree)> redis(redisConnectUnix(socket.c_str()), &redisFree);
  if (redis == nullptr || redis->err != 0) return absl::UnavailableError("Redis does not answer");
  const double begun = Read(CLOCK_THREAD_CPUTIME_ID);
  for (const BenchUser* user : share) {
    const char* words[] = {"GET", user->redis_key.data()};
    const size_t sizes[] = {3, user->redis_key.size()};
    auto* reply = static_cast<redisReply*>(redisCommandArgv(redis.get(), 2, words, sizes));
    const bool good =
        reply != nullptr && reply->type == REDIS_REPLY_STRING && static_cast<size_t>(reply->len) == user->sealed.size();
    freeReplyObject(reply);
    if (!good) return absl::InternalError(absl::StrCat("Redis has no value of ", user->subject));
  }
  *seconds = Read(CLOCK_THREAD_CPUTIME_ID) - begun;
  return absl::OkStatus();
}

absl::Status Get(ResolveWorld& world, Cost& cost) {
  world.Heartbeat();
  std::vector<double> seconds(kInFlight);
  RETURN_IF_ERROR(ForEachUser(world.users(), [&](size_t thread, const std::vector<const BenchUser*>& share) {
    return GetShare(world.redis_socket(), share, &seconds[thread]);
  }));
  for (const double part : seconds) cost.seconds += part;
  cost.calls += static_cast<double>(world.users().size());
  return absl::OkStatus();
}

// Microseconds a call, a value for each round.
struct Figures {
  std::vector<double> first_use, resolve, echo, get, ratio;
};

absl::Status RunRound(ResolveWorld& world, const Settings& settings, Figures& figures) {
  Cost first;
  RETURN_IF_ERROR(Resolve(world, /*first_use=*/true, first));
  ASSIGN_OR_RETURN(const double resolve,
                   Measure(settings.seconds, [&](Cost& cost) { return Resolve(world, /*first_use=*/false, cost); }));
  ASSIGN_OR_RETURN(const double echo, Measure(settings.seconds, [&](Cost& cost) { return Echo(world, cost); }));
  ASSIGN_OR_RETURN(const double get, Measure(settings.seconds, [&](Cost& cost) { return Get(world, cost); }));
  figures.first_use.push_back(first.per_call());
  figures.resolve.push_back(resolve);
  figures.echo.push_back(echo);
  figures.get.push_back(get);
  figures.ratio.push_back(resolve / (echo + get));
  return absl::OkStatus();
}

int Report(const ResolveWorld& world, const Settings& settings, const Figures& figures) {
  std::printf("%zu users, request %zu bytes and passport %zu, answer %zu, value in Redis %zu\n", world.users().size(),
              world.request().ByteSizeLong(), world.users()[0].passport.size(), world.answer().ByteSizeLong(),
              world.users()[0].sealed.size());
  std::printf("%-10s %12s\n", "load", "cpu_us/call");
  const std::pair<const char*, const std::vector<double>*> loads[] = {
      {"resolve", &figures.resolve}, {"first use", &figures.first_use}, {"echo", &figures.echo}, {"get", &figures.get}};
  for (const auto& [name, values] : loads) std::printf("%-10s %12.1f\n", name, Median(*values));
  const double ratio = Median(figures.ratio);
  std::printf("cpu ratio resolve/(echo + get): %.3f\n", ratio);
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
  PinThread(Side::kLoad);
  const absl::StatusOr<std::unique_ptr<ResolveWorld>> world = ResolveWorld::Start(settings.directory, settings.users);
  absl::Status status = world.status();
  Figures figures;
  for (int round = 0; status.ok() && round <= settings.rounds; ++round) {
    status = RunRound(**world, settings, figures);
    if (round == 0) figures = {};  // Warms up: connections, and the roots of the users' values.
  }
  if (!status.ok()) {
    std::cerr << "resolve: " << status << "\n";
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
    return sallyport::token_broker::ServeEcho(argv[2], argv[3], argv[4]);
  }
  sallyport::token_broker::Settings settings;
  if (!sallyport::token_broker::Parse(argc, argv, settings)) {
    std::cerr
        << "usage: sallyport-bench-resolve [--users 100..9999] [--rounds N] [--seconds N] [--max RATIO] [--bin DIR]\n";
    return 2;
  }
  return sallyport::token_broker::Run(settings);
}

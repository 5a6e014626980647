// SPDX-License-Identifier: Apache-2.0
// What it costs to replace the keys of many owners: whether the last part of the job costs what the first did.
//   sallyport-bench-stores --owners N [--max-growth RATIO] [--postgresql CONNECTION]
// In a new SQLite store, or in an empty database. Prints figures and exits with 1 if the last tenth costs more than
// RATIO times the first.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/clock.h"
#include "common/crypto/random.h"
#include "common/sql/sql.h"
#include "services/vault/directory_kek.h"
#include "services/vault/keyring.h"
#include "services/vault/ledger.h"
#include "services/vault/rewrap.h"
#include "services/vault/store.h"

namespace sallyport::vault {
namespace {

struct Settings {
  int owners = 200'000;
  double max_growth = 1.5;
  std::string postgresql;
};

bool Parse(int argc, char** argv, Settings& settings) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const bool good = name == "--owners"       ? absl::SimpleAtoi(argv[i + 1], &settings.owners)
                      : name == "--max-growth" ? absl::SimpleAtod(argv[i + 1], &settings.max_growth)
                      : name == "--postgresql" ? (settings.postgresql = argv[i + 1], true)
                                               : false;
    if (!good) {
      return false;
    }
  }
  return argc % 2 == 1 && settings.owners >= 1'000;
}

void Demand(const absl::Status& status) {
  if (!status.ok()) {
    std::cerr << "stores: " << status << "\n";
    std::exit(1);
  }
}

// A connection for each owner, as a link stores it.
absl::Status Fill(Database& database, Keyring& keyring, int owners) {
  constexpr int kPart = 2'000;
  const std::string payload = RandomBytes(700);  // About what two tokens and their scopes are.
  const Ledger ledger(keyring);
  for (int from = 0; from < owners; from += kPart) {
    const absl::Status status = database.Write([&](Transaction& tx) -> absl::Status {
      absl::StatusOr<absl::Time> now = tx.Now();
      for (int i = from; now.ok() && i < std::min(owners, from + kPart); ++i) {
        RecordRow row;
        row.rid = MakeUid("rec_");
        row.id = {{"user", absl::StrCat("corp:user-", i)}, "connection", "app_1"};
        if (absl::Status begun = Ledger::BeginGeneration(tx, row); !begun.ok()) {
          return begun;
        }
        if (absl::Status written = ledger.WriteHead(tx, row, 1, {payload, {}, {}}, *now); !written.ok()) {
          return written;
        }
      }
      return now.status();
    });
    if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

int Run(const Settings& settings) {
  std::string pattern = (std::filesystem::temp_directory_path() / "sallyport_bench_XXXXXX").string();
  const std::string directory = ::mkdtemp(pattern.data());
  const SystemClock clock;
  Database::Options options;
  options.clock = &clock;
  if (settings.postgresql.empty()) {
    options.sqlite_path = directory + "/vault.db";
  } else {
    options.postgresql = settings.postgresql;
  }
  absl::StatusOr<std::unique_ptr<Database>> database = Database::Open(std::move(options));
  Demand(database.status());
  Demand((*database)->Migrate(VaultMigrations()));
  DirectoryKek kek(directory + "/kek");
  Keyring keyring(**database, kek, {});
  Demand(keyring.EnsureActive(clock.Now()));
  Demand(Fill(**database, keyring, settings.owners));
  Demand(keyring.RotateTerm([](Transaction&, uint32_t) { return absl::OkStatus(); }).status());

  std::vector<double> parts;
  int64_t remaining = settings.owners;
  while (remaining > 0) {
    const auto begun = std::chrono::steady_clock::now();
    const absl::StatusOr<RewrapJob::Result> done = RewrapJob(**database, keyring).Run(settings.owners / 10);
    Demand(done.status());
    if (done->keys == 0) {
      Demand(absl::InternalError(absl::StrCat(done->remaining, " keys are left, and the job goes nowhere")));
    }
    parts.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count() /
                    static_cast<double>(done->keys));
    remaining = done->remaining;
  }
  database->reset();
  std::filesystem::remove_all(directory);
  // The vault's own key makes one part more, too small to tell anything.
  const double growth = parts[9] / parts[0];
  std::printf("rewrap of %d owners in %zu parts: the tenth costs %.2f times the first, an owner (limit %.2f)\n",
              settings.owners, parts.size(), growth, settings.max_growth);
  return growth <= settings.max_growth ? 0 : 1;
}

}  // namespace
}  // namespace sallyport::vault

int main(int argc, char** argv) {
  sallyport::vault::Settings settings;
  if (!sallyport::vault::Parse(argc, argv, settings)) {
    std::cerr << "usage: sallyport-bench-stores [--owners N] [--max-growth RATIO] [--postgresql CONNECTION]\n";
    return 2;
  }
  return sallyport::vault::Run(settings);
}

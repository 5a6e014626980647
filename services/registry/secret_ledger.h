// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/sql/sql.h"
#include "services/registry/secret_vault.h"
#include "services/registry/urls.h"

namespace sallyport::registry {

// Called before each step of a save, "commit transaction" within the transaction that is about to be committed; an
// error stops it there, as the death of the process would. For tests; may be empty.
using StepHook = std::function<absl::Status(absl::string_view step)>;

// The table of every version of a secret or binding that is in the vault or may be, and what is to become of it. The
// decision stands here first, in the transaction that makes it; Sweep carries it out in the vault. So a process may die
// anywhere, and the next sweep goes on. Thread-safe; static functions take the caller's transaction.
class SecretLedger {
 public:
  enum class State {
    kWritten,   // A write may put it into the vault; it is not known whether that write will be stored.
    kLive,      // A stored resource refers to it.
    kReplaced,  // Another version took its place: to be unpinned, so that the vault may prune it.
    kRetired,   // Of a former authentication type, kept until `until`, so that switching back works.
    kErasing,   // To be deleted in the vault; nothing may refer to it again.
  };
  struct Version {
    std::string record;
    std::string kind;
    int64_t version = 0;  // 0: what `write` put there, whichever that is.
    State state = State::kLive;
    std::string write;  // Id of a write that is not stored, by which the vault finds its versions.
    Origins origins;
    // kWritten: the write is given up then. kRetired: kept until then. kErasing: stays on the list at least until then.
    absl::Time until = absl::InfinitePast();
    absl::Time updated_at = absl::InfinitePast();  // When the value was given.
    // Where tokens go that are got with it: it cannot be resumed where they would go elsewhere.
    Origins onward;
    std::string public_jwk;  // Of private keys.
  };

  // A write whose outcome is unknown after this long is given up.
  static constexpr absl::Duration kKeepUnsettled = absl::Hours(1);
  // Longer than the vault may take to store what it was given before the write failed.
  static constexpr absl::Duration kKeepAbandoned = absl::Minutes(1);
  static constexpr absl::Duration kKeepRetired = absl::Hours(24 * 30);

  SecretLedger(Database& database, SecretVault& vault, const Clock& clock, StepHook step = nullptr)
      : database_(database), vault_(vault), clock_(clock), step_(std::move(step)) {}

  // Creates the table with every row of its three predecessors, and drops them.
  static std::vector<std::string> Schema();
  // Adds what a client's credentials have besides.
  static std::vector<std::string> ClientSchema();
  // Adds what the stored resources refer to: an earlier release kept no rows of that. Idempotent; before anything else.
  static absl::Status RecordReferences(Transaction& tx);

  static absl::StatusOr<std::vector<Version>> List(Transaction& tx);

  // Lists the records a write is about to put something into.
  absl::Status Announce(const std::vector<Version>& written);
  // Takes the write off: it is being stored, and refers to `live`. Versions these replace are to be unpinned, retired
  // ones of the same records erased, and what is listed of them and is not older is forgotten (a vault restored to an
  // earlier state gives numbers out again). ABORTED unless all `announced` entries are there: it was given up.
  static absl::Status Settle(Transaction& tx, const std::string& write, size_t announced,
                             const std::vector<Version>& live);
  // From here on the write cannot be stored; a sweep takes back what it has put into the vault.
  absl::Status Abandon(const std::string& write);
  // The same for all other writes of this record, after which this one may begin; takes theirs back.
  absl::Status AbandonOthers(const std::string& record, const std::string& write, const std::string& passport);
  // A live version goes out of use: kept for a while, or erased.
  static absl::Status Retire(Transaction& tx, const Version& version, absl::Time until);
  static absl::Status Erase(Transaction& tx, const Version& version);
  // Every version of the resource's records, which are answered.
  static absl::StatusOr<std::set<std::string>> EraseAll(Transaction& tx, const std::string& uid);
  // Every version of one record, which is answered if there is any.
  static absl::StatusOr<std::set<std::string>> EraseRecord(Transaction& tx, const std::string& record);
  // Takes a retired version into use again. ABORTED if it is being erased or was.
  static absl::Status Resume(Transaction& tx, const std::string& record, int64_t version);
  // Lists a version that nothing refers to for unpinning.
  static absl::Status Discard(Transaction& tx, const Version& version);

  // Marks what has become too old, then unpins and deletes in the vault what the table says, and takes it off. The
  // first error, after everything was tried; what failed stays listed. `records`: only these. Several replicas may do
  // it at once, and while others write.
  absl::Status Sweep(const std::optional<std::set<std::string>>& records, const std::string& passport);

  absl::Status Step(absl::string_view step) const { return step_ ? step_(step) : absl::OkStatus(); }

 private:
  absl::Status Carry(const Version& version, const std::string& passport);
  Database& database_;
  SecretVault& vault_;
  const Clock& clock_;
  const StepHook step_;
};

}  // namespace sallyport::registry

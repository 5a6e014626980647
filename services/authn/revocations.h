// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>

#include "common/mutex.h"
#include "sallyport/registry/v1/registry.pb.h"

namespace sallyport {
class Database;
class Transaction;
}  // namespace sallyport

namespace sallyport::authn {

// At most so many rows end in one transaction: writers of a database run one after the other, and a user, a client or a
// server may have ten thousand.
inline constexpr int kRevocationBatch = 500;

// What was ended in batches.
struct Ended {
  int count = 0;
  int batches = 0;
  // Others remain: the time was over.
  bool more = false;
};
// Asked between batches; null: always.
using MayGoOn = std::function<bool()>;
// Runs `batch` in transactions of its own until one ends fewer than kRevocationBatch rows. It ends at most so many,
// remembers their invalidations in the same transaction, and returns how many there were.
absl::StatusOr<Ended> EndInBatches(Database& database, const MayGoOn& may_go_on,
                                   const std::function<absl::StatusOr<int>(Transaction&)>& batch);

// Remembers, in the transaction that revokes, that what is cached for these sessions and grants (claim `sid`) must end:
// a crash right after the commit loses nothing. Delivered with the next publication, and every 5 s while something
// waits.
absl::Status RememberEndedSessions(Transaction& tx, const std::vector<std::string>& ids, absl::Time now);

// The same for everything that is cached for a subject, and their open streams: who they are has changed.
absl::Status RememberChangedSubject(Transaction& tx, absl::string_view subject, absl::Time now);

// What was revoked, and telling everybody. Whoever revokes writes the database first (a session, a grant, a token) and
// then calls one of these: the invalidation is remembered in a table until the registry has it, so that a dead registry
// or a crash delays it and never loses it. What RememberEndedSessions has noted may be published a second time, which
// harms nobody. Thread-safe.
class Revocations {
 public:
  // `database` outlives this. `registry` may lead nowhere yet.
  Revocations(Database& database, std::shared_ptr<grpc::Channel> registry);
  ~Revocations();

  // Access token of ours that must not be accepted any more: remembered by `jti` until `expires_at`, published by the
  // digest of its signing input.
  absl::Status RevokeToken(absl::string_view jti, absl::string_view token, absl::Time expires_at, absl::Time now);
  absl::StatusOr<bool> IsRevoked(absl::string_view jti) const;

  // Tokens of other issuers that name `subject` and were issued until `now` count no more, however long they live. Ends
  // what is cached for the subject, too.
  absl::Status RevokeSubject(absl::string_view subject, absl::Time now);
  // Was a token of `subject` revoked so? One that does not say when it was issued (`issued_at` absent) was.
  absl::StatusOr<bool> IsSubjectRevoked(absl::string_view subject, std::optional<absl::Time> issued_at) const;

  // Ends what is cached for sessions and grants (claim `sid`).
  absl::Status PublishSessions(const std::vector<std::string>& ids, absl::Time now);
  // Delivers now what somebody else's transaction has remembered.
  void Wake();
  // `may_go_on` for batches that take seconds: what each has remembered is delivered while the next ones run, also
  // where one of them fails.
  MayGoOn Delivering(MayGoOn may_go_on);

  // Begins to deliver in the background, at once when something is added and every 5 s while something waits.
  void Start();
  void Stop();
  // One delivery of everything that waits, at most 500 at a time: those of subjects first, each of which ends more than
  // a session's, and then the oldest. Called by the background thread and by tests.
  absl::Status Deliver();
  // Drops revoked tokens that have expired.
  absl::Status Prune(absl::Time now);

 private:
  absl::Status Enqueue(const std::vector<registry::v1::Invalidation>& invalidations, absl::Time now);
  void Run();

  Database& database_;
  const std::shared_ptr<grpc::Channel> registry_;
  Mutex mu_;
  std::condition_variable_any wake_;
  bool pending_ ABSL_GUARDED_BY(mu_) = true;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace sallyport::authn

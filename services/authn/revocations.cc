// SPDX-License-Identifier: Apache-2.0
#include "services/authn/revocations.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/rpc/server.h"
#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"

namespace sallyport::authn {
namespace {

using registry::v1::Invalidation;

constexpr int kBatch = 500;
constexpr std::chrono::seconds kRetry(5);

Invalidation Make(Invalidation::Kind kind, absl::string_view key, absl::Time now) {
  Invalidation invalidation;
  invalidation.set_kind(kind);
  invalidation.set_key(std::string(key));
  *invalidation.mutable_at() = ToTimestamp(now);
  return invalidation;
}

absl::Status Insert(Transaction& tx, const std::vector<Invalidation>& invalidations, absl::Time now) {
  std::vector<std::vector<SqlValue>> rows;
  rows.reserve(invalidations.size());
  for (const Invalidation& invalidation : invalidations) {
    rows.push_back({MakeUid("inv_"), invalidation.kind(), Bytes{invalidation.key()}, now});
  }
  return tx.Insert("pending_invalidations (id, kind, name, at)", rows).status();
}

absl::Status Delete(Transaction& tx, const std::vector<std::string>& ids) {
  std::vector<std::string> names;
  SqlParams params;
  for (const std::string& id : ids) {
    params.push_back({absl::StrCat("id", params.size()), id});
    names.push_back(absl::StrCat(":", params.back().name));
  }
  return tx
      .Exec(absl::StrCat("DELETE FROM pending_invalidations WHERE id IN (", absl::StrJoin(names, ", "), ")"), params)
      .status();
}

}  // namespace

absl::StatusOr<Ended> EndInBatches(Database& database, const MayGoOn& may_go_on,
                                   const std::function<absl::StatusOr<int>(Transaction&)>& batch) {
  Ended ended;
  while (true) {
    if (may_go_on && !may_go_on()) {
      ended.more = true;
      return ended;
    }
    int rows = 0;
    RETURN_IF_ERROR(database.Write([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(rows, batch(tx));
      return absl::OkStatus();
    }));
    ++ended.batches;
    ended.count += rows;
    if (rows < kRevocationBatch) {
      return ended;
    }
  }
}

absl::Status RememberEndedSessions(Transaction& tx, const std::vector<std::string>& ids, absl::Time now) {
  std::vector<Invalidation> invalidations;
  invalidations.reserve(ids.size());
  for (const std::string& id : ids) {
    invalidations.push_back(Make(Invalidation::SESSION, id, now));
  }
  return Insert(tx, invalidations, now);
}

absl::Status RememberChangedSubject(Transaction& tx, absl::string_view subject, absl::Time now) {
  return Insert(tx, {Make(Invalidation::SUBJECT, subject, now)}, now);
}

Revocations::Revocations(Database& database, std::shared_ptr<grpc::Channel> registry)
    : database_(database), registry_(std::move(registry)) {}

Revocations::~Revocations() { Stop(); }

absl::Status Revocations::RevokeToken(absl::string_view jti, absl::string_view token, absl::Time expires_at,
                                      absl::Time now) {
  // Not of the whole token: a signature may have several spellings.
  const absl::string_view signing_input = token.substr(0, token.rfind('.'));
  const Invalidation invalidation = Make(Invalidation::TOKEN, HexEncode(Sha256(signing_input)), now);
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    RETURN_IF_ERROR(
        tx.Exec("INSERT INTO revoked_tokens (jti, expires_at) VALUES (:jti, :expires_at) ON CONFLICT (jti) DO NOTHING",
                {{"jti", jti}, {"expires_at", expires_at}})
            .status());
    return Insert(tx, {invalidation}, now);
  }));
  Wake();
  return absl::OkStatus();
}

absl::StatusOr<bool> Revocations::IsRevoked(absl::string_view jti) const {
  bool revoked = false;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(std::optional<Row> row,
                     tx.QueryRow("SELECT expires_at FROM revoked_tokens WHERE jti = :jti", {{"jti", jti}}));
    revoked = row.has_value();
    return absl::OkStatus();
  }));
  return revoked;
}

absl::Status Revocations::RevokeSubject(absl::string_view subject, absl::Time now) {
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    RETURN_IF_ERROR(tx.Exec("INSERT INTO revoked_subjects (subject, at) VALUES (:subject, :now) ON CONFLICT (subject)"
                            " DO UPDATE SET at = excluded.at",
                            {{"subject", subject}, {"now", now}})
                        .status());
    return RememberChangedSubject(tx, subject, now);
  }));
  Wake();
  return absl::OkStatus();
}

absl::StatusOr<bool> Revocations::IsSubjectRevoked(absl::string_view subject,
                                                   std::optional<absl::Time> issued_at) const {
  std::optional<Row> row;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(row,
                     tx.QueryRow("SELECT at FROM revoked_subjects WHERE subject = :subject", {{"subject", subject}}));
    return absl::OkStatus();
  }));
  // `iat` has whole seconds: one of the revocation's own second may be from before it.
  return row.has_value() && (!issued_at.has_value() || *issued_at <= row->TimeAt("at"));
}

absl::Status Revocations::PublishSessions(const std::vector<std::string>& ids, absl::Time now) {
  std::vector<Invalidation> invalidations;
  invalidations.reserve(ids.size());
  for (const std::string& id : ids) {
    invalidations.push_back(Make(Invalidation::SESSION, id, now));
  }
  return Enqueue(invalidations, now);
}

absl::Status Revocations::Enqueue(const std::vector<Invalidation>& invalidations, absl::Time now) {
  if (invalidations.empty()) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) { return Insert(tx, invalidations, now); }));
  Wake();
  return absl::OkStatus();
}

absl::Status Revocations::Deliver() {
  while (true) {
    registry::v1::PublishInvalidationsRequest request;
    std::vector<std::string> ids;
    RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
      request.Clear();
      ids.clear();
      ASSIGN_OR_RETURN(
          Rows rows, tx.Query("SELECT id, kind, name, at FROM pending_invalidations ORDER BY CASE WHEN kind = :subject"
                              " THEN 0 ELSE 1 END, at LIMIT :limit",
                              {{"subject", Invalidation::SUBJECT}, {"limit", kBatch}}));
      for (const Row& row : rows) {
        ids.push_back(row.Text("id"));
        *request.add_invalidations() =
            Make(static_cast<Invalidation::Kind>(row.Int("kind")), row.BytesAt("name"), row.TimeAt("at"));
      }
      return absl::OkStatus();
    }));
    if (ids.empty()) {
      return absl::OkStatus();
    }
    auto stub = registry::v1::Registry::NewStub(registry_);
    registry::v1::PublishInvalidationsResponse response;
    auto context = MakeClientContext(absl::Seconds(5));
    RETURN_IF_ERROR(FromGrpcStatus(stub->PublishInvalidations(context.get(), request, &response)));
    // Only now: a crash before this delivers twice, which harms nobody.
    RETURN_IF_ERROR(database_.Write([&](Transaction& tx) { return Delete(tx, ids); }));
  }
}

absl::Status Revocations::Prune(absl::Time now) {
  return database_.Write([&](Transaction& tx) {
    return tx.Exec("DELETE FROM revoked_tokens WHERE expires_at < :now", {{"now", now}}).status();
  });
}

void Revocations::Start() {
  if (!thread_.joinable()) {
    thread_ = std::thread([this] { Run(); });
  }
}

void Revocations::Stop() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Revocations::Wake() {
  {
    MutexLock lock(mu_);
    pending_ = true;
  }
  wake_.notify_all();
}

MayGoOn Revocations::Delivering(MayGoOn may_go_on) {
  return [this, may_go_on = std::move(may_go_on)] {
    Wake();
    return may_go_on();
  };
}

void Revocations::Run() {
  bool failed = false;
  while (true) {
    {
      MutexLock lock(mu_);
      // Also when nothing was added here: a replica that died may have left something.
      const auto deadline = std::chrono::steady_clock::now() + kRetry;
      while (!stop_ && (!pending_ || failed)) {
        if (wake_.wait_until(mu_, deadline) == std::cv_status::timeout) {
          break;
        }
      }
      if (stop_) {
        return;
      }
      pending_ = false;
    }
    const absl::Status delivered = Deliver();
    if (!delivered.ok() && !failed) {
      Log(LogLevel::kWarning, "invalidations_wait", {{"status", delivered}});
    }
    failed = !delivered.ok();
  }
}

}  // namespace sallyport::authn

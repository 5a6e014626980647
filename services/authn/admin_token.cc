// SPDX-License-Identifier: Apache-2.0
#include "services/authn/admin_token.h"

#include <optional>

#include "absl/strings/strip.h"

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/files.h"
#include "common/json_log.h"
#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "services/authn/counted_address.h"
#include "services/authn/identity.h"

namespace sallyport::authn {
namespace {

constexpr size_t kMaxAddress = 45;  // The longest text of an IPv6 address.

std::string Digest(absl::string_view token) { return HexEncode(Sha256(token)); }

absl::StatusOr<bool> IsKnown(Transaction& tx, const std::string& digest) {
  ASSIGN_OR_RETURN(std::optional<Row> row,
                   tx.QueryRow("SELECT created_at FROM admin_tokens WHERE digest = :digest", {{"digest", digest}}));
  return row.has_value();
}

}  // namespace

absl::StatusOr<bool> AdminToken::IsRedeemed() const {
  bool redeemed = false;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(std::optional<Row> row, tx.QueryRow("SELECT at FROM admin_redemption WHERE id = 1"));
    redeemed = row.has_value();
    return absl::OkStatus();
  }));
  return redeemed;
}

absl::Status AdminToken::EnsureFile(absl::Time now) {
  if (data_directory_.empty()) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(bool redeemed, IsRedeemed());
  if (redeemed) {
    return RemoveFile(path());
  }
  if (absl::StatusOr<Secret> held = ReadSecretFile(path()); held.ok()) {
    bool known = false;
    RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(known, IsKnown(tx, Digest(held->Expose())));
      return absl::OkStatus();
    }));
    if (known) {
      return absl::OkStatus();
    }
  }
  const Secret token(RandomToken("spadm_"));
  // The row first: a file whose token is unknown would look good and be worth nothing.
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) {
    return tx
        .Exec("INSERT INTO admin_tokens (digest, created_at) VALUES (:digest, :now)",
              {{"digest", Digest(token.Expose())}, {"now", now}})
        .status();
  }));
  RETURN_IF_ERROR(MakeDirectories(data_directory_));
  std::string line(token.Expose());
  line.push_back('\n');
  const absl::Status written = WriteFileAtomic(path(), line, 0600);
  OPENSSL_cleanse(line.data(), line.size());
  RETURN_IF_ERROR(written);
  Log(LogLevel::kInfo, "admin_token_written", {{"path", path()}});
  return absl::OkStatus();
}

absl::Status AdminToken::Redeem(absl::string_view token, absl::string_view client_address, absl::Time now) {
  // The address first: what it is refused takes nothing from the others.
  if (const absl::Duration wait = by_address_.Take(CountedAddress(client_address), now); wait > absl::ZeroDuration()) {
    return WithRetryAfter(absl::ResourceExhaustedError("too many attempts"), wait);
  }
  if (!attempts_.Take(now)) {
    return WithRetryAfter(absl::ResourceExhaustedError("too many attempts"), attempts_.RetryAfter(now));
  }
  const std::string digest = Digest(absl::StripAsciiWhitespace(token));
  const auto event = [&](audit::v1::Decision decision) {
    audit::v1::Event made = MakeEvent("admin_token.redeemed", decision, kBootstrapSubject);
    made.set_client_address(std::string(client_address.substr(0, kMaxAddress)));
    return made;
  };
  bool good = false;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(good, IsKnown(tx, digest));
    return absl::OkStatus();
  }));
  if (good) {
    RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
      // Another redemption may have come in between.
      ASSIGN_OR_RETURN(good, IsKnown(tx, digest));
      if (good) {
        ASSIGN_OR_RETURN(int64_t inserted,
                         tx.Exec("INSERT INTO admin_redemption (id, at) VALUES (1, :now) ON CONFLICT (id) "
                                 "DO NOTHING",
                                 {{"now", now}}));
        good = inserted == 1;
        RETURN_IF_ERROR(tx.Exec("DELETE FROM admin_tokens").status());
      }
      return audit_.Append(tx, event(good ? audit::v1::DECISION_ALLOWED : audit::v1::DECISION_DENIED));
    }));
  } else if (audit::v1::Event wrong = event(audit::v1::DECISION_DENIED); wrong_.Admit(wrong, now)) {
    RETURN_IF_ERROR(database_.Write([&](Transaction& tx) { return audit_.Append(tx, wrong); }));
  }
  audit_.Kick();
  if (!good) {
    return WithReason(absl::UnauthenticatedError("the admin token is wrong or has been used"), "bad_admin_token");
  }
  if (!data_directory_.empty()) {
    if (const absl::Status removed = RemoveFile(path()); !removed.ok()) {
      Log(LogLevel::kWarning, "admin_token_file_left", {{"status", removed}});
    }
  }
  return absl::OkStatus();
}

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/transactions.h"

#include <optional>

#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/secret.h"
#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"

namespace sallyport::authn::web {
namespace {

std::string IdHash(absl::string_view id) { return Base64UrlEncode(HmacSha256("sallyport browser transaction", id)); }
std::string BrowserHash(absl::string_view cookie) {
  return Base64UrlEncode(HmacSha256("sallyport transaction cookie", cookie));
}

// What a step keeps is good for something only together with its id: the database holds neither the client's state nor
// the id of the step to go back to.
Secret PayloadKey(absl::string_view id) { return HkdfSha256(id, "", "sallyport browser transaction", kAeadKeySize); }

absl::Status Expired() {
  return WithReason(absl::InvalidArgumentError("the step is unknown, was used or has expired"), "transaction_expired");
}

absl::StatusOr<std::string> Select(Transaction& tx, absl::string_view id, absl::string_view cookie,
                                   absl::string_view kind, absl::Time now) {
  ASSIGN_OR_RETURN(
      const std::optional<Row> row,
      tx.QueryRow("SELECT browser, payload FROM browser_transactions WHERE hash = :hash AND kind = :kind AND"
                  " expires_at > :now",
                  {{"hash", IdHash(id)}, {"kind", kind}, {"now", now}}));
  if (!row.has_value()) {
    return Expired();
  }
  if (!BrowserTransactions::IsCookie(cookie) || !ConstantTimeEquals(row->Text("browser"), BrowserHash(cookie))) {
    return WithReason(absl::InvalidArgumentError("the step was begun in another browser"), "transaction_mismatch");
  }
  // One that was altered, or that an older process wrote in clear, is as good as expired.
  const absl::StatusOr<Secret> payload = AeadOpen(PayloadKey(id), row->BytesAt("payload"), kind);
  return payload.ok() ? absl::StatusOr<std::string>(std::string(payload->Expose())) : Expired();
}

}  // namespace

std::string BrowserTransactions::NewCookie() { return RandomToken(""); }

bool BrowserTransactions::IsCookie(absl::string_view value) {
  const absl::StatusOr<std::string> bytes = Base64UrlDecode(value);
  return bytes.ok() && bytes->size() == 32;
}

absl::StatusOr<std::string> BrowserTransactions::Begin(absl::string_view cookie, absl::string_view kind,
                                                       absl::string_view payload, absl::Time now) {
  const std::string id = RandomToken("");
  ASSIGN_OR_RETURN(const std::string sealed, AeadSeal(PayloadKey(id), payload, kind));
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    RETURN_IF_ERROR(tx.Exec("INSERT INTO browser_transactions (hash, browser, kind, payload, expires_at) VALUES (:hash,"
                            " :browser, :kind, :payload, :expires_at)",
                            {{"hash", IdHash(id)},
                             {"browser", BrowserHash(cookie)},
                             {"kind", kind},
                             {"payload", Bytes{sealed}},
                             {"expires_at", now + kLifetime}})
                        .status());
    ASSIGN_OR_RETURN(const std::optional<Row> row, tx.QueryRow("SELECT COUNT(*) AS n FROM browser_transactions"));
    const int64_t excess = row->Int("n") - kMaxPending;
    if (excess <= 0) {
      return absl::OkStatus();
    }
    return tx
        .Exec(
            "DELETE FROM browser_transactions WHERE hash IN (SELECT hash FROM browser_transactions ORDER BY expires_at"
            " LIMIT :excess)",
            {{"excess", excess}})
        .status();
  }));
  return id;
}

absl::StatusOr<std::string> BrowserTransactions::Look(absl::string_view id, absl::string_view cookie,
                                                      absl::string_view kind, absl::Time now) const {
  std::string payload;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(payload, Select(tx, id, cookie, kind, now));
    return absl::OkStatus();
  }));
  return payload;
}

absl::StatusOr<std::string> BrowserTransactions::Take(absl::string_view id, absl::string_view cookie,
                                                      absl::string_view kind, absl::Time now) {
  std::string payload;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(payload, Select(tx, id, cookie, kind, now));
    return tx.Exec("DELETE FROM browser_transactions WHERE hash = :hash", {{"hash", IdHash(id)}}).status();
  }));
  return payload;
}

absl::StatusOr<int> BrowserTransactions::Prune(absl::Time now) {
  int64_t pruned = 0;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(pruned, tx.Exec("DELETE FROM browser_transactions WHERE expires_at <= :now", {{"now", now}}));
    return absl::OkStatus();
  }));
  return static_cast<int>(pruned);
}

}  // namespace sallyport::authn::web

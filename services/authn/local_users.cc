// SPDX-License-Identifier: Apache-2.0
#include "services/authn/local_users.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "services/authn/counted_address.h"

namespace sallyport::authn {
namespace {

constexpr size_t kMaxPassword = 1024;
constexpr int kParallelChecks = 2;
constexpr int kMaxWaiting = 8;
constexpr std::chrono::seconds kMaxWait{2};

// Hash of nobody's password, with the parameters `sallyport hash-password` uses: what an unknown name is checked
// against.
const std::string& DummyHash() {
  static const auto& hash = *new std::string(HashPassword(Secret(std::string("nobody knows this one"))));
  return hash;
}

class CheckSlots {
 public:
  // False if there is no slot in time.
  bool Enter() {
    const auto deadline = std::chrono::steady_clock::now() + kMaxWait;
    MutexLock lock(mu_);
    if (used_ == kParallelChecks) {
      if (waiting_ == kMaxWaiting) {
        return false;
      }
      ++waiting_;
      while (used_ == kParallelChecks && free_.wait_until(mu_, deadline) != std::cv_status::timeout) {
      }
      --waiting_;
    }
    if (used_ == kParallelChecks) {
      return false;
    }
    ++used_;
    return true;
  }
  void Leave() {
    {
      MutexLock lock(mu_);
      --used_;
    }
    free_.notify_one();
  }

 private:
  Mutex mu_;
  std::condition_variable_any free_;
  int used_ ABSL_GUARDED_BY(mu_) = 0;
  int waiting_ ABSL_GUARDED_BY(mu_) = 0;
};

CheckSlots& Slots() {
  static auto& slots = *new CheckSlots();
  return slots;
}

struct Limit {
  std::string key;
  int most;
};

// Hashed: a table of names is worth something to somebody. Names compare case-insensitively here, so that spelling one
// in many ways gives no more attempts.
std::vector<Limit> Limits(absl::string_view username, absl::string_view client_address) {
  const std::string address = CountedAddress(client_address);
  const std::string name = absl::AsciiStrToLower(username);
  const auto key = [](absl::string_view kind, absl::string_view value) {
    return absl::StrCat(kind, ":", Base64UrlEncode(Sha256(value)));
  };
  return {{key("pair", absl::StrCat(name, "\n", address)), LoginAttempts::kPerPair},
          {key("name", name), LoginAttempts::kPerName},
          {key("address", address), LoginAttempts::kPerAddress}};
}

}  // namespace

absl::StatusOr<int> LoginAttempts::Begin(absl::string_view username, absl::string_view address, absl::Time now) {
  int left = 0;
  absl::Status refused;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    left = kPerAddress;
    refused = absl::OkStatus();
    for (const Limit& limit : Limits(username, address)) {
      ASSIGN_OR_RETURN(
          const std::optional<Row> row,
          tx.QueryRow("INSERT INTO login_attempts (key, failures, since) VALUES (:key, 1, :now) ON CONFLICT (key)"
                      " DO UPDATE SET failures = CASE WHEN login_attempts.since <= :old THEN 1 ELSE"
                      " login_attempts.failures + 1 END, since = CASE WHEN login_attempts.since <= :old THEN"
                      " excluded.since ELSE login_attempts.since END RETURNING failures, since",
                      {{"key", limit.key}, {"now", now}, {"old", now - kWindow}}));
      const int64_t rest = limit.most - row->Int("failures");
      if (rest < 0) {
        refused = WithRetryAfter(absl::ResourceExhaustedError("too many attempts to sign in"),
                                 row->TimeAt("since") + kWindow - now);
      }
      left = std::min(left, static_cast<int>(std::max<int64_t>(rest, 0)));
    }
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(refused);
  return left;
}

absl::Status LoginAttempts::Succeeded(absl::string_view username, absl::string_view address) {
  return database_.Write([&](Transaction& tx) -> absl::Status {
    const std::vector<Limit> limits = Limits(username, address);
    RETURN_IF_ERROR(tx.Exec("DELETE FROM login_attempts WHERE key = :key", {{"key", limits[0].key}}).status());
    for (size_t i = 1; i < limits.size(); ++i) {
      RETURN_IF_ERROR(tx.Exec("UPDATE login_attempts SET failures = failures - 1 WHERE key = :key AND failures > 0",
                              {{"key", limits[i].key}})
                          .status());
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<int> LoginAttempts::Prune(absl::Time now) {
  int64_t pruned = 0;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(pruned, tx.Exec("DELETE FROM login_attempts WHERE since <= :old", {{"old", now - kWindow}}));
    return absl::OkStatus();
  }));
  return static_cast<int>(pruned);
}

absl::StatusOr<const config::v1::LocalConnector::User*> LocalUsers::Check(const config::v1::LocalConnector& connector,
                                                                          absl::string_view username,
                                                                          const Secret& password) {
  const config::v1::LocalConnector::User* user = nullptr;
  for (const auto& candidate : connector.users()) {
    if (candidate.username() == username) {
      user = &candidate;
    }
  }
  const std::string& dummy = DummyHash();  // Made before the clock of whoever measures starts to differ.
  const bool too_long = password.Expose().size() > kMaxPassword;
  if (!Slots().Enter()) {
    return WithRetryAfter(absl::UnavailableError("too many passwords are being checked"), absl::Seconds(2));
  }
  const absl::StatusOr<bool> fits =
      VerifyPassword(too_long ? Secret() : password.Clone(), user == nullptr ? dummy : user->password_hash());
  Slots().Leave();
  return user != nullptr && !too_long && fits.ok() && *fits ? user : nullptr;
}

}  // namespace sallyport::authn

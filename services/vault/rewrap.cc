// SPDX-License-Identifier: Apache-2.0
#include "services/vault/rewrap.h"

#include <algorithm>
#include <utility>

#include "common/json_log.h"
#include "common/status_macros.h"
#include "services/vault/envelope.h"

namespace sallyport::vault {
namespace {

// Data keys in one round, and versions of one owner.
constexpr int kKeys = 100;
constexpr int kVersions = 200;

void Report(const OwnerKeyRow& row, const absl::Status& status) {
  Log(LogLevel::kError, "vault_rewrap_damaged",
      {{"owner_type", row.owner.type}, {"owner", row.owner.id}, {"key_version", row.key_version}, {"status", status}});
}

}  // namespace

absl::StatusOr<int64_t> RewrapJob::Remaining(Transaction& tx) {
  ASSIGN_OR_RETURN(const std::vector<TermRow> terms, ListTerms(tx));
  ASSIGN_OR_RETURN(const auto keys, CountOwnerKeysByTerm(tx));
  int64_t remaining = 0;
  for (const auto& [term, count] : keys) {
    remaining += term < ActiveTerm(terms) ? count : 0;
  }
  return remaining;
}

absl::StatusOr<RewrapJob::Result> RewrapJob::Run(int limit) {
  RETURN_IF_ERROR(keyring_.Reload());
  Result result;
  ASSIGN_OR_RETURN(result.terms, keyring_.RewrapTerms());
  std::optional<OwnerKeyRow> after;
  for (int taken = 0; taken < limit;) {
    std::vector<OwnerKeyRow> rows;
    RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(rows, ListOwnerKeysBefore(tx, keyring_.active_term(), after, std::min(kKeys, limit - taken)));
      return absl::OkStatus();
    }));
    if (rows.empty()) {
      break;
    }
    after = rows.back();
    taken += static_cast<int>(rows.size());
    std::vector<Moving> moving(rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      moving[i].row = std::move(rows[i]);
    }
    RETURN_IF_ERROR(MakeKeys(moving));
    const auto under_way = [](const Moving& one) { return !one.complete; };
    do {
      RETURN_IF_ERROR(ReadVersions(moving));
      RETURN_IF_ERROR(Store(moving, result));
    } while (std::any_of(moving.begin(), moving.end(), under_way));
  }
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(result.remaining, Remaining(tx));
    return absl::OkStatus();
  }));
  return result;
}

// From when this is committed, nobody writes under the old keys any more.
absl::Status RewrapJob::MakeKeys(std::vector<Moving>& moving) {
  return database_.Write([&](Transaction& tx) -> absl::Status {
    for (Moving& one : moving) {
      absl::StatusOr<OwnerKey> key = keyring_.KeyForWrite(tx, one.row.owner);
      if (absl::IsDataLoss(key.status()) && !Keyring::IsUnknownTerm(key.status())) {
        Report(one.row, key.status());
        one.damaged = one.complete = true;
        continue;
      }
      RETURN_IF_ERROR(key.status());
      one.new_key = *std::move(key);
    }
    return absl::OkStatus();
  });
}

absl::Status RewrapJob::ReadVersions(std::vector<Moving>& moving) {
  std::vector<std::vector<OwnedVersion>> versions(moving.size());
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    for (size_t i = 0; i < moving.size(); ++i) {
      Moving& one = moving[i];
      if (one.complete) {
        continue;
      }
      if (!one.old_key.has_value()) {
        absl::StatusOr<OwnerKey> key = keyring_.KeyForRead(tx, one.row.owner, one.row.key_version);
        if (absl::IsNotFound(key.status())) {
          one.complete = true;  // Another replica was faster, or the owner is gone.
          continue;
        }
        if (absl::IsDataLoss(key.status())) {
          Report(one.row, key.status());
          one.damaged = one.complete = true;
          continue;
        }
        RETURN_IF_ERROR(key.status());
        one.old_key = *std::move(key);
      }
      ASSIGN_OR_RETURN(versions[i], ListOwnedVersions(tx, one.row.owner, one.at, kVersions));
    }
    return absl::OkStatus();
  }));
  for (size_t i = 0; i < moving.size(); ++i) {
    if (!moving[i].complete) {
      Reseal(moving[i], versions[i]);
    }
  }
  return absl::OkStatus();
}

void RewrapJob::Reseal(Moving& moving, const std::vector<OwnedVersion>& versions) const {
  const std::string deployment_id = keyring_.state().deployment_id;
  for (const OwnedVersion& owned : versions) {
    moving.at = {owned.version.rid, owned.version.version};
    const absl::StatusOr<uint32_t> under = KeyVersionOf(owned.version.sealed);
    if (owned.version.role == VersionRole::kPending || !under.ok() || *under != moving.row.key_version) {
      continue;  // Space that is held for an answer; another key's.
    }
    const RecordIdentity identity = {deployment_id, owned.id, owned.version.version, owned.version.generation};
    absl::StatusOr<std::string> sealed = ResealRecord(moving.old_key->key, moving.new_key->key,
                                                      moving.new_key->key_version, identity, owned.version.sealed);
    if (!sealed.ok()) {
      Report(moving.row, sealed.status());
      moving.damaged = true;
      continue;
    }
    moving.resealed.emplace_back(owned.version, *std::move(sealed));
  }
  moving.complete = versions.size() < static_cast<size_t>(kVersions);
}

absl::Status RewrapJob::Store(std::vector<Moving>& moving, Result& result) {
  int64_t records = 0;
  int64_t keys = 0;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    records = keys = 0;
    for (const Moving& one : moving) {
      for (const auto& [version, sealed] : one.resealed) {
        // Written, moved or erased meanwhile: under a newer key, or gone.
        ASSIGN_OR_RETURN(const bool replaced, ReplaceSealed(tx, version, sealed));
        records += replaced ? 1 : 0;
      }
      if (one.complete && !one.damaged && !one.settled && one.old_key.has_value()) {
        RETURN_IF_ERROR(EraseOwnerKey(tx, one.row));
        ++keys;
      }
    }
    return absl::OkStatus();
  }));
  result.records += records;
  result.keys += keys;
  for (Moving& one : moving) {
    one.resealed.clear();
    if (one.complete && !one.settled) {
      result.damaged += one.damaged ? 1 : 0;
      one.settled = true;
    }
  }
  return absl::OkStatus();
}

}  // namespace sallyport::vault

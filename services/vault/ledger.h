// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/sql/sql.h"
#include "sallyport/vault/v1/vault.pb.h"
#include "services/vault/envelope.h"
#include "services/vault/keyring.h"
#include "services/vault/store.h"

namespace sallyport::vault {

// Encrypted versions of records, inside a transaction of the caller. Knows the invariants of a record, not who may
// touch it:
//   a version number is never given out twice; the head is the newest value; a new generation drops what belonged to
//   the old one.
class Ledger {
 public:
  explicit Ledger(Keyring& keyring) : keyring_(keyring) {}

  // NOT_FOUND for a record that never was and for a tombstone.
  static absl::StatusOr<RecordRow> Find(Transaction& tx, const RecordId& id);
  // DATA_LOSS tag_mismatch.
  absl::StatusOr<OpenedRecord> Open(Transaction& tx, const RecordRow& row, const VersionRow& version) const;
  absl::StatusOr<OpenedRecord> OpenHead(Transaction& tx, const RecordRow& row) const;

  struct Value {
    absl::string_view payload;
    Origins origins;
    Labels labels;
    absl::Time next_at = absl::InfinitePast();
    std::string state;
    bool pin = false;
    bool unbound = false;  // Does not say where it may be sent; `origins` do not count.
  };
  // Stores `value` as `version` of the record's generation and makes it the head; saves the row.
  absl::Status WriteHead(Transaction& tx, RecordRow& row, int64_t version, const Value& value, absl::Time now) const;
  // Keeps `value` as a side version of the record's generation; the row changes only by `last_version`, which the
  // caller saves.
  absl::Status WriteSide(Transaction& tx, const RecordRow& row, int64_t version, const Value& value,
                         absl::Time now) const;
  // Seals a version that is there anew, with these origins.
  absl::Status Bind(Transaction& tx, const RecordRow& row, VersionRow& version, const Secret& payload,
                    const Origins& origins) const;
  // Stores a version of `row` anew, as it was opened.
  absl::Status Reseal(Transaction& tx, const RecordRow& row, VersionRow version, const OpenedRecord& opened) const;
  // Begins a new generation in `row` (not saved): no lease, no failure and no side or pending version outlives the old
  // one.
  static absl::Status BeginGeneration(Transaction& tx, RecordRow& row);
  // Destroys all versions and leaves what refuses late writes.
  static absl::Status Tombstone(Transaction& tx, RecordRow& row, absl::Time now);
  // Drops values beyond those the kind keeps; the head and pinned versions stay.
  static absl::Status Prune(Transaction& tx, const RecordRow& row);

 private:
  absl::StatusOr<VersionRow> SealVersion(Transaction& tx, const RecordRow& row, int64_t version, const Value& value,
                                         absl::Time now) const;
  Keyring& keyring_;
};

v1::RecordMetadata ToMetadata(const RecordRow& row);
// INVALID_ARGUMENT over 4 KiB.
absl::Status CheckLabels(const google::protobuf::Map<std::string, std::string>& labels);
// What a record's state may look like; empty is fine.
absl::Status CheckState(const std::string& state);

}  // namespace sallyport::vault

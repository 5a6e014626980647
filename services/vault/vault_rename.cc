// SPDX-License-Identifier: Apache-2.0
// The part of Vault that gives connections other names: Rename.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/status_macros.h"
#include "services/vault/errors.h"
#include "services/vault/vault.h"

namespace sallyport::vault {
namespace {

// No provider's answer is longer on its way than this after its lease has lapsed. One that found its connection gone
// would be revoked, and the tokens that were renamed with it.
constexpr absl::Duration kLate = absl::Minutes(2);

struct Names {
  RecordId from;
  RecordId to;
};

absl::StatusOr<Names> ParseNames(const v1::RenameRequest& request) {
  Names names;
  ASSIGN_OR_RETURN(names.from, ParseRecordName(request.record()));
  if (names.from.kind != "connection" || IsSignIn(names.from)) {
    return InvalidField("record", "must be a connection to an app");
  }
  v1::RecordName to = request.record();
  to.set_name(request.new_name());
  const absl::StatusOr<RecordId> parsed = ParseRecordName(to);
  // Tokens of one app never become those of another, which would send them elsewhere.
  if (!parsed.ok() || AppOf(*parsed) != AppOf(names.from)) {
    return InvalidField("new_name", "must be a name of the same app");
  }
  names.to = *parsed;
  RETURN_IF_ERROR(CheckLabels(request.labels()));
  return names;
}

}  // namespace

absl::StatusOr<v1::RenameResponse> Vault::Rename(const Caller& caller, const v1::RenameRequest& request) {
  ASSIGN_OR_RETURN(const Names names, ParseNames(request));
  RETURN_IF_ERROR(
      Recorded(CheckAccess(caller, Operation::kRename, names.from), caller, Operation::kRename, names.from));
  v1::RenameResponse response;
  RETURN_IF_ERROR(Settled(Write([&](Transaction& tx) -> absl::Status {
                            ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
                            ASSIGN_OR_RETURN(RecordRow from, Ledger::Find(tx, names.from));
                            if (request.has_expected_version() && request.expected_version() != from.head) {
                              return error::VersionConflict();
                            }
                            ASSIGN_OR_RETURN(const auto found, FindRecord(tx, names.to));
                            if (found.has_value() && found->head != 0) {
                              return error::NameTaken();
                            }
                            if (from.claim_until != absl::InfinitePast() && from.claim_until + kLate > now) {
                              return error::Leased();
                            }
                            RecordRow to = from;
                            to.rid = found.has_value() ? found->rid : MakeUid("rec_");
                            to.id = names.to;
                            to.epoch = std::max(from.epoch, found.has_value() ? found->epoch : 0);
                            to.last_version = found.has_value() ? found->last_version : 0;
                            // Above both, so that caches drop what they have of either name.
                            to.generation = std::max(from.generation, found.has_value() ? found->generation : 0) + 1;
                            to.claim_until = absl::InfinitePast();
                            to.labels = {request.labels().begin(), request.labels().end()};
                            to.updated_at = now;
                            RETURN_IF_ERROR(MoveVersions(tx, from, to, request));
                            RETURN_IF_ERROR(SaveRecord(tx, to));
                            RETURN_IF_ERROR(Ledger::Tombstone(tx, from, now));
                            response.set_version(to.head);
                            response.set_generation(to.generation);
                            audit::v1::Event event =
                                MakeEvent("secret.write", audit::v1::DECISION_ALLOWED, "rename", caller);
                            SetRecord(names.from, 0, from.generation, event);
                            (*event.mutable_details())["new_name"] = names.to.name;
                            return trail_.Append(tx, std::move(event));
                          }),
                          caller, Operation::kRename, names.from));
  return response;
}

absl::Status Vault::MoveVersions(Transaction& tx, const RecordRow& from, RecordRow& to,
                                 const v1::RenameRequest& request) {
  ASSIGN_OR_RETURN(const std::vector<VersionRow> versions, ListVersions(tx, from.rid));
  if (std::none_of(versions.begin(), versions.end(),
                   [&](const VersionRow& version) { return version.version == from.head; })) {
    return error::TagMismatch();
  }
  // Numbers stay what payloads know them by, unless the other name has given them out already.
  const int64_t shift = to.last_version;
  to.last_version = from.last_version + shift;
  to.head = from.head + shift;
  for (const VersionRow& listed : versions) {
    if (listed.role == VersionRole::kPending) {
      continue;  // Space for the answer to a lease that is over.
    }
    const bool head = listed.version == from.head;
    ASSIGN_OR_RETURN(const auto version, FindVersion(tx, from.rid, listed.version));
    const absl::StatusOr<OpenedRecord> opened = ledger_.Open(tx, from, *version);
    if (!head && absl::IsDataLoss(opened.status()) && !Keyring::IsUnknownTerm(opened.status())) {
      Log(LogLevel::kError, "version_damaged", {{"rid", from.rid}, {"version", listed.version}});
      continue;
    }
    RETURN_IF_ERROR(opened.status());
    VersionRow moved = listed;
    moved.rid = to.rid;
    moved.version = listed.version + shift;
    moved.generation = to.generation;
    moved.shown_epoch = 0;
    if (head) {
      moved.labels = {request.labels().begin(), request.labels().end()};
    }
    RETURN_IF_ERROR(ledger_.Reseal(tx, to, moved, *opened));
  }
  return absl::OkStatus();
}

}  // namespace sallyport::vault

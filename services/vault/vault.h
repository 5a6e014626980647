// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/caller/caller.h"
#include "common/clock.h"
#include "common/sql/sql.h"
#include "sallyport/vault/v1/vault.pb.h"
#include "services/vault/access.h"
#include "services/vault/audit_trail.h"
#include "services/vault/keyring.h"
#include "services/vault/ledger.h"

namespace sallyport::vault {

// The methods of sallyport.vault.v1.Vault (contract: vault.proto), for callers already authenticated. Every method
// checks access, works in one transaction, and has its audit event durable before it returns. Thread-safe.
//
// The lease protocol: `generation` says which link of an account a token belongs to, `epoch` which holder was last. A
// holder's answer becomes the head if nobody took the record over since; is kept as a side version if somebody did;
// becomes a revocation that is owed if the connection has ended; and is refused (wrong_generation) if it was linked
// again, unless its holder wants it revoked then. A late answer heals a record that is marked NEEDS_REAUTH or
// NEEDS_INTERACTION, and a record cannot be marked so over a side version its holder has not seen.
class Vault {
 public:
  struct Dependencies {
    Database& database;
    Keyring& keyring;
    AuditTrail& trail;
    const Clock& clock;
    // Called after an owner's key was destroyed: lets the store forget its journal. May be null.
    std::function<void()> after_shred;
  };
  explicit Vault(Dependencies dependencies);

  absl::StatusOr<v1::PutResponse> Put(const Caller& caller, const v1::PutRequest& request);
  absl::StatusOr<v1::GetResponse> Get(const Caller& caller, const v1::GetRequest& request);
  absl::StatusOr<v1::ListResponse> List(const Caller& caller, const v1::ListRequest& request);
  absl::StatusOr<v1::DeleteResponse> Delete(const Caller& caller, const v1::DeleteRequest& request);
  absl::StatusOr<v1::PinResponse> Pin(const Caller& caller, const v1::PinRequest& request);
  absl::StatusOr<v1::RebindResponse> Rebind(const Caller& caller, const v1::RebindRequest& request);
  absl::StatusOr<v1::AdoptResponse> Adopt(const Caller& caller, const v1::AdoptRequest& request);

  absl::StatusOr<v1::AcquireLeaseResponse> AcquireLease(const Caller& caller, const v1::AcquireLeaseRequest& request);
  absl::StatusOr<v1::ReleaseResponse> Release(const Caller& caller, const v1::ReleaseRequest& request);
  absl::StatusOr<v1::PutStatusResponse> PutStatus(const Caller& caller, const v1::PutStatusRequest& request);

  absl::StatusOr<v1::ListDueResponse> ListDue(const Caller& caller, const v1::ListDueRequest& request);
  absl::StatusOr<v1::OweRevocationResponse> OweRevocation(const Caller& caller,
                                                          const v1::OweRevocationRequest& request);
  absl::StatusOr<v1::RenameResponse> Rename(const Caller& caller, const v1::RenameRequest& request);
  absl::StatusOr<v1::DeleteOwnerResponse> DeleteOwner(const Caller& caller, const v1::DeleteOwnerRequest& request);
  absl::StatusOr<v1::GetCacheRootsResponse> GetCacheRoots(const Caller& caller,
                                                          const v1::GetCacheRootsRequest& request);
  absl::StatusOr<v1::CountUsersResponse> CountUsers(const Caller& caller, const v1::CountUsersRequest& request);

 private:
  using Work = std::function<absl::Status(Transaction&)>;
  absl::Status Read(const Work& work) { return Run(&Database::Read, work); }
  absl::Status Write(const Work& work);
  absl::Status Run(absl::Status (Database::*method)(const Work&), const Work& work);

  // `check` as it is, after a refusal has been recorded.
  absl::Status Recorded(absl::Status check, const Caller& caller, Operation operation, const RecordId& id);
  // For what a transaction answered: damage is recorded.
  absl::Status Settled(absl::Status result, const Caller& caller, Operation operation, const RecordId& id);
  absl::Status AppendWrite(Transaction& tx, const Caller& caller, absl::string_view rule, const RecordId& id,
                           int64_t version, int64_t generation, AuditOutbox::Admit admit = AuditOutbox::Admit::kIfRoom);

  absl::Status PutUnleased(Transaction& tx, const Caller& caller, const RecordId& id, const v1::PutRequest& request,
                           v1::PutResponse& response);
  absl::Status PutLeased(Transaction& tx, const Caller& caller, const RecordId& id, const v1::PutRequest& request,
                         v1::PutResponse& response);
  // The version that already holds the payload, if the request asks to look for one.
  absl::StatusOr<std::optional<VersionRow>> FindEqual(Transaction& tx, const RecordRow& row,
                                                      const v1::PutRequest& request);
  // The Delete of some versions of a record that is no tombstone.
  absl::Status DeleteVersions(Transaction& tx, const Caller& caller, RecordRow& row, const v1::DeleteRequest& request,
                              v1::DeleteResponse& response);
  absl::StatusOr<bool> IsRepeat(Transaction& tx, const RecordRow& row, const LeaseRow& lease,
                                const v1::PutRequest& request);
  absl::Status DropExpiredFlows(Transaction& tx, absl::Time now);
  // The version that is bound now; 0 if there is none.
  absl::StatusOr<int64_t> AdoptOne(Transaction& tx, const Caller& caller, const RecordId& id,
                                   const v1::AdoptRequest::Entry& entry);

  struct Held {
    RecordRow row;
    LeaseRow lease;
  };
  // The lease of this caller on this record. LEASE_UNKNOWN, or PERMISSION_DENIED if it is another service's.
  absl::StatusOr<Held> FindHeld(Transaction& tx, const Caller& caller, const RecordId& id, const std::string& lease);
  // ABORTED (wrong_generation, lease_lost) if the record was linked anew, or is another holder's by now.
  static absl::Status CheckCurrent(const Held& held);
  absl::Status Grant(Transaction& tx, const Caller& caller, const RecordId& id, const v1::AcquireLeaseRequest& request,
                     v1::AcquireLeaseResponse& response);
  absl::Status ShowSides(Transaction& tx, const RecordRow& row, v1::AcquireLeaseResponse::Lease& out);
  // A record that is due and does not open would come up again at once, for ever.
  void PutOffDamaged(const Caller& caller, const RecordId& id);
  // A read by its owner is use of a connection; a store that cannot note it fails no read.
  void NoteUse(const Caller& caller, const RecordId& id, const RecordRow& row);

  // By what right a connection ends.
  struct Right {
    std::string rule;  // For the audit.
    AuditOutbox::Admit admit = AuditOutbox::Admit::kIfRoom;
    // Whoever asked asks the provider next: ListDue tells others of the revocations a little later only.
    bool awaited = false;
  };
  using OwedList = google::protobuf::RepeatedPtrField<v1::OweRevocationResponse::Owed>;
  // What an OweRevocation is about.
  struct Owing {
    const v1::OweRevocationRequest& request;
    std::optional<RecordId> record;
    std::string app_uid;   // Of the record, or of everybody's connections; empty of a user.
    absl::Status allowed;  // By the caller alone.
    Right right;
  };
  static absl::StatusOr<Owing> ParseOwing(const Caller& caller, const v1::OweRevocationRequest& request);
  absl::Status OweWhatIsNamed(Transaction& tx, const Caller& caller, const Owing& owing,
                              v1::OweRevocationResponse& response);
  // No binding says any more where tokens of the app may go.
  absl::StatusOr<bool> IsAppGone(Transaction& tx, const std::string& app_uid);
  // The connection that is named, if it is there and as the request expects it.
  absl::StatusOr<std::vector<RecordRow>> FindToOwe(Transaction& tx, const Caller& caller, const Owing& owing);
  absl::Status Owe(Transaction& tx, const Caller& caller, const Right& right, RecordRow& row,
                   const std::vector<VersionRow>& tokens, OwedList& owed);
  // The answer to a lease of a connection that has ended, or of a former link.
  absl::Status OweLate(Transaction& tx, const Caller& caller, Held& held, const v1::PutRequest& request,
                       v1::PutResponse& response);
  // Of a link that was in flight when everything of its user was ended.
  absl::Status OweUnstored(Transaction& tx, const Caller& caller, RecordRow& row, const v1::PutRequest& request,
                           v1::PutResponse& response);
  // nullopt, and recorded, if it does not open and never will.
  absl::StatusOr<std::optional<OpenedRecord>> OpenToken(Transaction& tx, const Caller& caller, const RecordRow& row,
                                                        const VersionRow& token);
  absl::StatusOr<RecordRow> MakeRevocation(Transaction& tx, const RecordRow& row, const VersionRow& token,
                                           const OpenedRecord& opened, const Right& right, absl::Time now);
  // The revocation of that name, if it holds this payload.
  absl::StatusOr<std::optional<RecordRow>> FindRevocation(Transaction& tx, const std::string& name,
                                                          const Secret& payload);
  absl::Status MoveVersions(Transaction& tx, const RecordRow& from, RecordRow& to, const v1::RenameRequest& request);

  Database& database_;
  Keyring& keyring_;
  AuditTrail& trail_;
  const Clock& clock_;
  const std::function<void()> after_shred_;
  const Ledger ledger_;
};

}  // namespace sallyport::vault

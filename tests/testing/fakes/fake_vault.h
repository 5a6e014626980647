// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/grpcpp.h>

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "sallyport/vault/v1/vault.grpc.pb.h"

namespace sallyport::testing {

// The contract of vault.proto in memory, for the tests of every service that calls the vault; tests/contract holds it
// to the real one. Without the vault's cryptography, audit and limits of size, and what it cannot store it loses with
// the process. A new one is adopted, as a new store is. Thread-safe.
class FakeVault {
 public:
  // The service that calls, and the passport it attached (FakePassport or a signed one); empty: none.
  struct Caller {
    std::string service;
    std::string passport;
  };

  explicit FakeVault(const Clock& clock) : clock_(clock) {}
  FakeVault(const FakeVault&) = delete;
  FakeVault& operator=(const FakeVault&) = delete;

  absl::StatusOr<vault::v1::PutResponse> Put(const Caller& caller, const vault::v1::PutRequest& request);
  absl::StatusOr<vault::v1::GetResponse> Get(const Caller& caller, const vault::v1::GetRequest& request);
  absl::StatusOr<vault::v1::ListResponse> List(const Caller& caller, const vault::v1::ListRequest& request);
  absl::StatusOr<vault::v1::DeleteResponse> Delete(const Caller& caller, const vault::v1::DeleteRequest& request);
  absl::StatusOr<vault::v1::PinResponse> Pin(const Caller& caller, const vault::v1::PinRequest& request);
  absl::StatusOr<vault::v1::RebindResponse> Rebind(const Caller& caller, const vault::v1::RebindRequest& request);
  absl::StatusOr<vault::v1::AdoptResponse> Adopt(const Caller& caller, const vault::v1::AdoptRequest& request);
  absl::StatusOr<vault::v1::AcquireLeaseResponse> AcquireLease(const Caller& caller,
                                                               const vault::v1::AcquireLeaseRequest& request);
  absl::StatusOr<vault::v1::ReleaseResponse> Release(const Caller& caller, const vault::v1::ReleaseRequest& request);
  absl::StatusOr<vault::v1::PutStatusResponse> PutStatus(const Caller& caller,
                                                         const vault::v1::PutStatusRequest& request);
  absl::StatusOr<vault::v1::ListDueResponse> ListDue(const Caller& caller, const vault::v1::ListDueRequest& request);
  absl::StatusOr<vault::v1::OweRevocationResponse> OweRevocation(const Caller& caller,
                                                                 const vault::v1::OweRevocationRequest& request);
  absl::StatusOr<vault::v1::RenameResponse> Rename(const Caller& caller, const vault::v1::RenameRequest& request);
  absl::StatusOr<vault::v1::DeleteOwnerResponse> DeleteOwner(const Caller& caller,
                                                             const vault::v1::DeleteOwnerRequest& request);
  absl::StatusOr<vault::v1::GetCacheRootsResponse> GetCacheRoots(const Caller& caller,
                                                                 const vault::v1::GetCacheRootsRequest& request);
  absl::StatusOr<vault::v1::CountUsersResponse> CountUsers(const Caller& caller,
                                                           const vault::v1::CountUsersRequest& request);

  // --- What tests do to it ---

  // What every call answers from now on; OK: works again.
  void Fail(absl::Status error);
  void SetDown(bool down);
  // What the next so many Puts answer.
  void FailPuts(int count, absl::Status failure = Down());
  // Gets are not answered until it ends.
  void SetHanging(bool hang);
  // Every lease is over, whatever its holder thinks.
  void LapseLeases();
  // As a store does that was put back to an earlier day.
  void ForgetLeases();
  // As one that has expired.
  void RefusePassport(const std::string& passport);
  // Every owner's data key is replaced.
  void RotateDataKeys();
  // As a store that an earlier release has written: no version says where it may be sent, there are no bindings, and
  // nothing is adopted.
  void MakeOld();
  // What this record holds does not open any more, until it is written again.
  void Damage(const vault::v1::RecordName& name);
  // What this record holds is of an earlier release.
  void Unbind(const vault::v1::RecordName& name);
  void SetAdopted(bool adopted);

  // --- What tests see of it, in whatever state it is ---

  struct Version {
    std::string payload;
    std::vector<std::string> origins;
    bool bound = true;  // Says where it may be sent.
    bool pinned = false;
    std::map<std::string, std::string> labels;
  };
  struct Record {
    std::map<int64_t, Version> versions;
    int64_t head = 0;          // 0: a tombstone, or there is no such record.
    std::string written_with;  // The passport of the last Put or Rebind.
  };
  // Empty if there is none.
  Record Find(const vault::v1::RecordName& name) const;
  // Of records that are no tombstones, by owner, kind and name.
  std::vector<vault::v1::RecordName> Live() const;
  vault::v1::RecordMetadata MetadataOf(const vault::v1::RecordName& name) const;
  // Metadata of what is owed, by name.
  std::vector<vault::v1::RecordMetadata> Revocations() const;
  // Payload; empty if there is none.
  std::string Head(const vault::v1::RecordName& name) const;
  // Payloads of late results, oldest first.
  std::vector<std::string> Sides(const vault::v1::RecordName& name) const;
  // Id of the lease that holds the record; empty if none.
  std::string Holder(const vault::v1::RecordName& name) const;
  size_t CountRecords(const std::string& kind) const;
  bool adopted() const;
  int gets() const;
  int puts() const;
  // Puts that stored something.
  int writes() const;
  // Until so many Puts have stored something; false after a minute.
  bool AwaitWrites(int count) const;
  // Gets that hang.
  int hanging() const;
  // Equal only for equal contents.
  std::string Fingerprint() const;

 private:
  enum class Operation { kGet, kPut, kDelete, kList, kPin, kRebind, kLease, kOwe, kRename };
  struct Side {
    int64_t version;
    std::string payload;
    std::map<std::string, std::string> labels;
    int64_t shown_epoch = 0;
  };
  struct Row : Record {
    vault::v1::RecordName name;
    std::vector<Side> sides;  // Oldest first.
    int64_t last_version = 0;
    int64_t generation = 0;
    int64_t epoch = 0;
    std::string state;
    std::string reason;
    absl::Time backoff_until = absl::InfinitePast();
    absl::Time next_at = absl::InfinitePast();
    absl::Time claim_until = absl::InfinitePast();
    absl::Time updated_at = absl::InfinitePast();
    absl::Time listed_until = absl::InfinitePast();
    absl::Time used_at = absl::InfinitePast();
    bool damaged = false;
    std::map<std::string, std::string> labels;
  };
  enum class LeaseState { kOpen, kEnded, kAnswered };
  struct Lease {
    std::string record;
    std::string caller;
    int64_t generation = 0;
    int64_t epoch = 0;
    int64_t version = 0;
    LeaseState state = LeaseState::kOpen;
    absl::Time acquired_at = absl::InfinitePast();
    int64_t answer_version = 0;
    bool answer_side = false;
    std::string answer;
  };
  struct DataKey {
    int version = 0;
    bool destroyed = false;
  };
  // What a new version holds and leaves in its record.
  struct Value {
    Version version;
    absl::Time next_at = absl::InfinitePast();
    std::string state;
  };

  static absl::Status Down();
  static bool MayKind(const std::string& service, Operation operation, const std::string& kind,
                      vault::v1::OwnerType owner);
  // nullopt: none was attached.
  absl::StatusOr<std::optional<Passport>> PassportOf(const Caller& caller) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What comes before every call: a vault that is down, a service that may not call the method, a passport that does
  // not verify.
  absl::Status Admit(const Caller& caller, const std::string& method) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckKind(const Caller& caller, Operation operation, const vault::v1::RecordName& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckAccess(const Caller& caller, Operation operation, const vault::v1::RecordName& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckOwner(const Caller& caller, vault::v1::OwnerType type, const std::string& id, bool admin_may) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckRole(const Caller& caller, absl::string_view role) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static absl::Status CheckUserRecord(const Passport& passport, Operation operation, const vault::v1::RecordName& name);
  // What a passport of purpose end names.
  static bool Names(const Passport::End& end, const vault::v1::RecordName& name);
  static bool NamesAllOf(const Passport::End& end, const std::string& subject);
  absl::StatusOr<bool> MaySee(const Caller& caller, const vault::v1::RecordName& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // By the caller alone.
  absl::Status CheckOwe(const Caller& caller, const vault::v1::OweRevocationRequest& request) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsAppGone(const std::string& app_uid) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<std::vector<Row*>> FindToOwe(const Caller& caller, const vault::v1::OweRevocationRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  using OwedList = google::protobuf::RepeatedPtrField<vault::v1::OweRevocationResponse::Owed>;
  void Owe(Row& row, bool awaited, OwedList& owed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The answer to a lease of a connection that has ended.
  absl::StatusOr<bool> IsOfBeforeEnd(const Caller& caller, const vault::v1::RecordName& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  vault::v1::PutResponse OweUnstored(const vault::v1::RecordName& connection, const vault::v1::PutRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  vault::v1::PutResponse OweLate(Row& row, Lease& lease, const vault::v1::PutRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // `number` of the version; 0: it was the head.
  static vault::v1::RecordName RevocationOf(const vault::v1::RecordName& connection, int64_t generation,
                                            int64_t number);
  const Row& MakeRevocation(const vault::v1::RecordName& name, const vault::v1::RecordName& connection, Version token,
                            const std::string& since) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Somebody has used a connection of theirs.
  void NoteUse(const Caller& caller, Row& row) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Null for a tombstone too.
  Row* FindLive(const vault::v1::RecordName& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  const Row* FindRow(const vault::v1::RecordName& name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Row& RowFor(const vault::v1::RecordName& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<std::pair<Row*, Lease*>> FindHeld(const Caller& caller, const vault::v1::RecordName& name,
                                                   const std::string& lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static absl::Status CheckCurrent(const Row& row, const Lease& lease);
  absl::StatusOr<vault::v1::PutResponse> PutLeased(const Caller& caller, const vault::v1::PutRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<int64_t> AdoptOne(const vault::v1::AdoptRequest::Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static Value ValueOf(const vault::v1::PutRequest& request);
  void WriteHead(Row& row, int64_t version, Value value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Tombstone(Row& row) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static void BeginGeneration(Row& row);
  static void Prune(Row& row);
  static vault::v1::RecordMetadata Metadata(const Row& row);

  const Clock& clock_;
  mutable Mutex mu_;
  std::map<std::string, Row> rows_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Lease> leases_ ABSL_GUARDED_BY(mu_);
  std::map<std::pair<int, std::string>, DataKey> data_keys_ ABSL_GUARDED_BY(mu_);
  mutable std::condition_variable_any changed_;
  absl::Status error_ ABSL_GUARDED_BY(mu_);
  absl::Status put_failure_ ABSL_GUARDED_BY(mu_);
  std::set<std::string> refused_passports_ ABSL_GUARDED_BY(mu_);
  bool adopted_ ABSL_GUARDED_BY(mu_) = true;
  std::map<std::string, absl::Time> ended_ ABSL_GUARDED_BY(mu_);  // By subject.
  bool hang_ ABSL_GUARDED_BY(mu_) = false;
  int hanging_ ABSL_GUARDED_BY(mu_) = 0;
  int puts_fail_ ABSL_GUARDED_BY(mu_) = 0;
  int gets_ ABSL_GUARDED_BY(mu_) = 0;
  int puts_ ABSL_GUARDED_BY(mu_) = 0;
  int writes_ ABSL_GUARDED_BY(mu_) = 0;
};

// Over gRPC, for calls of one service. Outlived by the vault.
class FakeVaultService final : public vault::v1::Vault::Service {
 public:
  // `method` is the RPC's name.
  using Hook = std::function<void(const std::string& method, const google::protobuf::Message& request)>;
  // `before` and `after` run before a call is carried out and before it is answered; they may be null.
  FakeVaultService(FakeVault& vault, std::string caller, Hook before = nullptr, Hook after = nullptr)
      : vault_(vault), caller_(std::move(caller)), before_(std::move(before)), after_(std::move(after)) {}

#define SALLYPORT_FAKE_VAULT_METHOD(Method)                                                          \
  grpc::Status Method(grpc::ServerContext* context, const vault::v1::Method##Request* request,       \
                      vault::v1::Method##Response* response) override {                              \
    return Handle(#Method, *context, *request, *response,                                            \
                  [&](const FakeVault::Caller& caller) { return vault_.Method(caller, *request); }); \
  }
  SALLYPORT_FAKE_VAULT_METHOD(Put)
  SALLYPORT_FAKE_VAULT_METHOD(Get)
  SALLYPORT_FAKE_VAULT_METHOD(List)
  SALLYPORT_FAKE_VAULT_METHOD(Delete)
  SALLYPORT_FAKE_VAULT_METHOD(Pin)
  SALLYPORT_FAKE_VAULT_METHOD(Rebind)
  SALLYPORT_FAKE_VAULT_METHOD(Adopt)
  SALLYPORT_FAKE_VAULT_METHOD(AcquireLease)
  SALLYPORT_FAKE_VAULT_METHOD(Release)
  SALLYPORT_FAKE_VAULT_METHOD(PutStatus)
  SALLYPORT_FAKE_VAULT_METHOD(ListDue)
  SALLYPORT_FAKE_VAULT_METHOD(OweRevocation)
  SALLYPORT_FAKE_VAULT_METHOD(Rename)
  SALLYPORT_FAKE_VAULT_METHOD(DeleteOwner)
  SALLYPORT_FAKE_VAULT_METHOD(GetCacheRoots)
  SALLYPORT_FAKE_VAULT_METHOD(CountUsers)
#undef SALLYPORT_FAKE_VAULT_METHOD

 private:
  // Runs the hooks around `act`, which gives StatusOr<Response>.
  template <typename Request, typename Response, typename Act>
  grpc::Status Handle(const std::string& method, const grpc::ServerContext& context, const Request& request,
                      Response& response, Act&& act) {
    if (before_) before_(method, request);
    auto result = act(FakeVault::Caller{caller_, AttachedPassport(context)});
    if (after_) after_(method, request);
    if (result.ok()) response = *result;
    return ToGrpc(result.status());
  }
  static std::string AttachedPassport(const grpc::ServerContext& context);
  static grpc::Status ToGrpc(const absl::Status& status);

  FakeVault& vault_;
  const std::string caller_;
  const Hook before_;
  const Hook after_;
};

}  // namespace sallyport::testing

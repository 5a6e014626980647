// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/audit/outbox.h"
#include "common/sql/sql.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "services/registry/resource.h"

namespace sallyport::registry {

// The catalog's tables: resources (current state, serialized), the change table that the control stream is read from,
// and what is still to be done in the vault: secrets of former authentication types, values that a new one took the
// place of, writes that are not settled. Everything takes the caller's transaction.
class Store {
 public:
  static std::vector<Migration> Migrations();

  // Random; made with the store and part of every resume token.
  static absl::StatusOr<std::string> StoreId(Transaction& tx);
  static absl::StatusOr<int64_t> Revision(Transaction& tx);

  struct Resource {
    std::string uid;
    std::string slug;
    int64_t version = 0;
    std::string body;  // Serialized message.
  };
  // By kind ("McpServer"), ascending slug.
  static absl::StatusOr<std::vector<Resource>> List(Transaction& tx, absl::string_view kind);
  static absl::StatusOr<std::optional<Resource>> FindBySlug(Transaction& tx, absl::string_view kind,
                                                            absl::string_view slug);

  // Inserts (expected 0) or replaces a resource whose version is still `expected_version`, and appends to the change
  // table. ABORTED if somebody else was faster, ALREADY_EXISTS for a taken slug.
  static absl::Status Save(Transaction& tx, absl::string_view kind, const Resource& resource, int64_t expected_version);
  static absl::Status Remove(Transaction& tx, absl::string_view kind, const Resource& resource);
  static absl::Status AppendInvalidations(Transaction& tx,
                                          const google::protobuf::RepeatedPtrField<v1::Invalidation>& invalidations);

  // What a watcher needs. Changes with a revision in (after, …], or nullopt if that part of history is gone.
  static absl::StatusOr<std::optional<v1::WatchEvent>> DeltaSince(Transaction& tx, int64_t after);
  static absl::StatusOr<v1::WatchEvent> Snapshot(Transaction& tx);
  static absl::Status PruneChanges(Transaction& tx, absl::Time before);

  // A version of a secret that nothing refers to any more, kept so that switching back works.
  struct Retired {
    std::string record;
    std::string vault_kind;
    int64_t version = 0;
    absl::Time updated_at;
    std::string origin;  // Where it may go; empty: anywhere its resource may.
    absl::Time until;    // kErasing: nobody may refer to it again, the vault is being told.
  };
  static constexpr absl::Time kErasing = absl::InfinitePast();
  static absl::Status Retire(Transaction& tx, const Retired& retired);
  // All that are on the list, whatever their time.
  static absl::StatusOr<std::vector<Retired>> AllRetired(Transaction& tx);
  // Takes one off the list because it is referred to again. ABORTED if it is being erased or was.
  static absl::Status Resume(Transaction& tx, absl::string_view record, int64_t version);
  // `version` of this record is referred to now: a retired one is to be erased if it is older. What is listed, retired
  // or replaced, and is not older is forgotten (a vault restored to an earlier state gives numbers out again).
  static absl::Status Supersede(Transaction& tx, absl::string_view record, int64_t version);
  // Marks those whose time is over, and answers all that are to be erased.
  static absl::StatusOr<std::vector<Retired>> ClaimExpired(Transaction& tx, absl::Time now);
  // After the vault has erased it.
  static absl::Status ForgetErased(Transaction& tx, absl::string_view record, int64_t version);

  // A version that a new value took the place of: to be unpinned in the vault, which would otherwise keep it for ever.
  // Listed by the transaction of the write, so that a writer that dies before telling the vault leaves word.
  struct Replaced {
    std::string record;
    std::string vault_kind;
    int64_t version = 0;
  };
  static absl::Status ListReplaced(Transaction& tx, const Replaced& replaced);
  static absl::StatusOr<std::vector<Replaced>> AllReplaced(Transaction& tx);
  // After the vault has unpinned it.
  static absl::Status ForgetReplaced(Transaction& tx, const Replaced& replaced);

  // A value that a write puts into the vault before it is known whether the write will be stored. Listed before, taken
  // off by the transaction of the write; what stays belongs to a write that lost, failed or died, and is taken back.
  struct SecretWrite {
    std::string write;
    std::string record;
    std::string vault_kind;
  };
  static absl::Status BeginSecretWrites(Transaction& tx, const std::vector<SecretWrite>& writes, absl::Time now);
  // ABORTED unless all `count` entries of the write are there: it was given up because it took too long.
  static absl::Status SettleSecretWrites(Transaction& tx, absl::string_view write, size_t count);
  // From now on this write cannot be stored.
  static absl::Status GiveUpSecretWrite(Transaction& tx, absl::string_view write);
  // The same for all that were begun before `before`; answers every entry of a write that was given up.
  static absl::StatusOr<std::vector<SecretWrite>> GiveUpSecretWrites(Transaction& tx, absl::Time before);
  static absl::Status ForgetSecretWrite(Transaction& tx, const SecretWrite& write);

 private:
  static absl::StatusOr<int64_t> NextRevision(Transaction& tx);
};

}  // namespace sallyport::registry

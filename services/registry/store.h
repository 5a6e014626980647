// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/audit_outbox.h"
#include "common/sql.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "services/registry/resource.h"

namespace sallyport::registry {

// The catalog's tables: resources (current state, serialized), the change table that the control stream is read from,
// and secrets of former authentication types that are kept for a while. Everything takes the caller's transaction.
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

  // A secret no longer referred to, kept so that switching back works.
  struct Retired {
    std::string record;
    std::string vault_kind;
    int64_t version = 0;
    absl::Time updated_at;
    std::string origin;  // Where it may go; empty: anywhere its resource may.
    absl::Time until;
  };
  static absl::Status Retire(Transaction& tx, const Retired& retired);
  // Those still kept at `now`.
  static absl::StatusOr<std::vector<Retired>> AllRetired(Transaction& tx, absl::Time now);
  static absl::Status ForgetRetired(Transaction& tx, absl::string_view record);
  static absl::StatusOr<std::vector<Retired>> ExpiredRetired(Transaction& tx, absl::Time now);

 private:
  static absl::StatusOr<int64_t> NextRevision(Transaction& tx);
};

}  // namespace sallyport::registry

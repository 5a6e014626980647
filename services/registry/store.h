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

// The catalog's tables: resources (current state, serialized), deleted apps that are ending, and the change table that
// the control stream is read from. Everything takes the caller's transaction. What is in the vault stands in
// SecretLedger.
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
  // Gives a resource of this version another body without a new version, and appends to the change table: for what no
  // person has changed. ABORTED as Save.
  static absl::Status Amend(Transaction& tx, absl::string_view kind, const Resource& resource);
  static absl::Status Remove(Transaction& tx, absl::string_view kind, const Resource& resource);

  // A deleted app that is kept until its users' tokens are revoked. Nobody finds it by its slug, which is free.
  struct EndingApp {
    std::string uid;
    std::string body;  // Serialized App, without its binding.
    absl::Time since;
  };
  // Removes an app and keeps it as an ending one. ABORTED as Save.
  static absl::Status EndApp(Transaction& tx, const Resource& app, absl::Time since);
  // Ascending uid.
  static absl::StatusOr<std::vector<EndingApp>> ListEndingApps(Transaction& tx);
  // Forgets an ending app and answers what it was; nullopt, and nothing is changed, if there is none of this uid.
  static absl::StatusOr<std::optional<EndingApp>> FinishApp(Transaction& tx, const std::string& uid);

  static absl::Status AppendInvalidations(Transaction& tx,
                                          const google::protobuf::RepeatedPtrField<v1::Invalidation>& invalidations);

  // What a watcher needs. Changes with a revision in (after, …], or nullopt if that part of history is gone.
  static absl::StatusOr<std::optional<v1::WatchEvent>> DeltaSince(Transaction& tx, int64_t after);
  static absl::StatusOr<v1::WatchEvent> Snapshot(Transaction& tx);
  static absl::Status PruneChanges(Transaction& tx, absl::Time before);

 private:
  static absl::StatusOr<int64_t> NextRevision(Transaction& tx);
};

}  // namespace sallyport::registry

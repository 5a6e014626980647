// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>

#include "common/clock.h"
#include "sallyport/registry/v1/registry.pb.h"

namespace sallyport {

// Configuration at one revision; immutable. Unchanged resources are shared between snapshots.
struct RegistrySnapshot {
  using Server = std::shared_ptr<const registry::v1::McpServer>;
  using App = std::shared_ptr<const registry::v1::App>;
  using Credential = std::shared_ptr<const registry::v1::Credential>;

  std::string store_id;  // Empty: nothing has been received yet.
  int64_t revision = 0;
  absl::flat_hash_map<std::string, Server> servers_by_uid;
  absl::flat_hash_map<std::string, Server> servers_by_slug;
  absl::flat_hash_map<std::string, App> apps_by_uid;
  absl::flat_hash_map<std::string, App> apps_by_slug;
  // Deleted, and kept until their users' tokens are revoked: for nothing else. Not in the two above.
  absl::flat_hash_map<std::string, App> ending_apps_by_uid;
  absl::flat_hash_map<std::string, Credential> credentials_by_uid;
  absl::flat_hash_map<std::string, Credential> credentials_by_slug;
  // Deleted since the last full snapshot.
  absl::flat_hash_set<std::string> deleted_server_uids;

  // Null if there is none.
  const registry::v1::McpServer* ServerByUid(absl::string_view uid) const;
  const registry::v1::McpServer* ServerBySlug(absl::string_view slug) const;
  const registry::v1::App* AppByUid(absl::string_view uid) const;
  const registry::v1::App* AppBySlug(absl::string_view slug) const;
  const registry::v1::App* EndingAppByUid(absl::string_view uid) const;
  const registry::v1::Credential* CredentialByUid(absl::string_view uid) const;
  const registry::v1::Credential* CredentialBySlug(absl::string_view slug) const;
};

// One event of the stream, after it took effect.
struct ControlUpdate {
  std::shared_ptr<const RegistrySnapshot> snapshot;
  // A full snapshot: anything may have changed, and `invalidations` are those of the last hour only.
  bool full = false;
  // Servers, apps or credentials differ from the snapshot before.
  bool config_changed = false;
  std::vector<registry::v1::Invalidation> invalidations;
};

// Follows the registry's Watch on a thread of its own: reconnects (200 ms to 2 s apart), resumes by (store id,
// revision), gives a stream up that was silent for 15 s. Everything is thread-safe.
class ControlStream {
 public:
  using Listener = std::function<void(const ControlUpdate&)>;
  struct Options {
    absl::Duration min_backoff = absl::Milliseconds(200);
    absl::Duration max_backoff = absl::Seconds(2);
    absl::Duration silence_limit = absl::Seconds(15);
  };

  // `clock` outlives this. No RPC is made before Start.
  ControlStream(std::shared_ptr<grpc::Channel> registry, const Clock& clock, Options options);
  ControlStream(std::shared_ptr<grpc::Channel> registry, const Clock& clock);
  ~ControlStream();

  // Called on the stream's thread, in order, after the snapshot was swapped. Only before Start.
  void AddListener(Listener listener);
  // Begins with an exported snapshot instead of nothing. Only before Start; listeners are told. INVALID_ARGUMENT if it
  // does not parse.
  absl::Status Seed(absl::string_view exported);
  void Start();
  void Stop();

  // Never null; empty (store_id "") until the first snapshot came.
  std::shared_ptr<const RegistrySnapshot> snapshot() const;
  // Has configuration, from the stream or a seed.
  bool has_snapshot() const;
  // An event came within the silence limit on the stream that is open now.
  bool connected() const;
  // When the last event came; InfinitePast if none.
  absl::Time last_contact() const;

  // The snapshot in which server `uid` has exactly `version`. Waits up to `timeout` for it, then UNAVAILABLE (reason
  // "config_behind"); ABORTED (reason "config_ahead") at once if the version is older than ours or the server is
  // deleted.
  absl::StatusOr<std::shared_ptr<const RegistrySnapshot>> WaitForServerVersion(absl::string_view uid, int64_t version,
                                                                               absl::Duration timeout) const;
  // True once has_snapshot().
  bool WaitForSnapshot(absl::Duration timeout) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Bytes that Seed takes (a serialized WatchEvent without invalidations).
std::string ExportSnapshot(const RegistrySnapshot& snapshot);

}  // namespace sallyport

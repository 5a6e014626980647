// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/providers.h"
#include "services/token_broker/refresher.h"
#include "services/token_broker/token_cache.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Which tokens a connection has now: cache, vault, refresh, in this order. Thread-safe.
class Connections {
 public:
  using Callback = std::function<void(absl::StatusOr<SharedConnection>)>;

  // All outlive this; `control` may be null (then entries of the cache are always re-checked after 5 s).
  Connections(VaultClient& vault, TokenCache& cache, Refresher& refresher, Providers& providers,
              const ControlStream* control, const Clock& clock);

  struct Need {
    ConnectionKey key;
    // JWT of a passport of key.subject.
    std::string passport;
    // Both 0: none was refused.
    int64_t refused_generation = 0;
    int64_t refused_version = 0;
    // The ID token is needed, not the access token.
    bool id_token = false;
    // For how long the access token must be good; what ends sooner is renewed first, if it can be.
    absl::Duration least = absl::ZeroDuration();
    // TryCurrent has looked in Redis, in vain.
    bool not_shared = false;
  };
  // Tokens that are in memory, good, and not about to be renewed; null if Current has to look further. Never blocks.
  SharedConnection InMemory(const Need& need) const;

  // Tokens that can be used, or a view whose state, or refused_again, says why there are none: kAbsent, kNeedsUser. A
  // token that is usable and due for renewal is given at once, and renewed behind the caller. Blocks for the vault (at
  // most 5 s), never for a provider or another replica: then `done` runs later, on another thread. UNAVAILABLE with
  // retry_after.
  void Current(const Need& need, Callback done);

  // The same without blocking, for tokens that are in memory or in Redis. False, and nothing is done, if the vault has
  // to be asked. `done` runs once, on another thread or before this returns, with null if Current has to look further,
  // and must not block.
  bool TryCurrent(const Need& need, std::function<void(SharedConnection)> done);

  // Has the provider asked for another access token than the connection's own, which `further` gets. `done` runs on
  // another thread, with the connection as it is then; `further` without an outcome: another renewal was joined, or the
  // connection has nothing to ask with.
  void AskFurther(const ConnectionKey& key, const std::string& passport, std::shared_ptr<FurtherToken> further,
                  Callback done);

  // Seals into a connection of an earlier release where it came from, and `binding`, the name of its app's binding.
  // Where somebody else writes it at this moment, that is as good. Blocks for the vault.
  void SealProvenance(const ConnectionKey& key, const std::string& passport, const std::string& binding);

  // Where a connection's tokens are renewed.
  Refresher::ProviderSource SourceFor(const std::string& connection) const;

 private:
  // Its tokens are of a provider that the app no longer names.
  bool HasMoved(const ConnectionKey& key, const ConnectionView& view) const;
  // Can be used as it is, for as long as is needed and without being renewed behind the caller.
  static bool IsGood(const Need& need, const ConnectionView& view, absl::Time now);
  // Whether its tokens can be found in memory and in Redis.
  static bool IsCacheable(const Need& need);
  absl::StatusOr<SharedConnection> Look(const Need& need);
  // True when done.
  bool Answer(const Need& need, const SharedConnection& view, int attempts, const Callback& done);
  void Renew(const Need& need, const SharedConnection& head, int attempts, const Callback& done);

  VaultClient& vault_;
  TokenCache& cache_;
  Refresher& refresher_;
  Providers& providers_;
  const ControlStream* const control_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/caller/passport.h"
#include "common/rpc/control_stream.h"
#include "common/secret.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "sallyport/token_broker/v1/token_set.pb.h"

namespace sallyport::token_broker {

using Plan = registry::v1::CredentialPlan;

// One piece of a plan that is needed for one call. Immutable.
struct Need {
  std::shared_ptr<const RegistrySnapshot> snapshot;  // Keeps server and piece alive.
  const registry::v1::McpServer* server = nullptr;
  const Plan::Piece* piece = nullptr;
  // Where the value goes: scheme://host:port.
  std::string upstream_origin;
  // Of the caller, verified and for this server; absent where nobody is verified.
  std::optional<Passport> passport;
  // Label of the caller's account that the call chose; empty: the plan's choice.
  std::string account;
  // The token the caller presented; empty where the plan asks for none.
  std::shared_ptr<const Secret> presented_token;
  // What the upstream refused of this piece; both 0: nothing.
  int64_t refused_generation = 0;
  int64_t refused_version = 0;
  // Whether nobody waits for the value any more: then nothing more is begun for it. From any thread, until `done` ran.
  std::function<bool()> abandoned;

  // With a token of ours: there is a sign-in behind it.
  bool signed_in() const { return passport.has_value() && !passport->session_id.empty(); }
  // "<connector>" of the caller.
  std::string connector() const;
};

// What goes out, before prefix and encoding.
struct Value {
  std::shared_ptr<const Secret> secret;
  // Of a credential that has one beside the secret; empty: the plan's.
  std::string username;
  // For audit, caching and forced renewal.
  std::string uid;
  int64_t generation = 0;
  int64_t version = 0;
  std::string connection;  // Its name (connection_name.h), for invalidations.
  bool renewable = false;
  // Its own end, with room for clocks that differ; and when to ask again. InfiniteFuture: no end is known.
  absl::Time expires_at = absl::InfiniteFuture();
  absl::Time renew_at = absl::InfiniteFuture();
  // Of the token of a sign-in.
  v1::TokenSet::Consent consent;
};

// A value, or what its user must do first: link an account, enter a credential, agree to more.
using Outcome = std::variant<Value, v1::LinkRequired>;

// Where values of one kind come from. Thread-safe. No source stands in for another: what cannot be had is an error.
class Source {
 public:
  virtual ~Source() = default;
  using Done = std::function<void(absl::StatusOr<Outcome>)>;

  // What tells the values of this source apart: needs of one key get the same value, and needs that must not share one
  // have different keys. Holds no secret.
  virtual std::string CacheKey(const Need& need) const = 0;
  // `done` runs once, before this returns or later on another thread. May block for the vault (at most 5 s), never for
  // a provider. CANCELLED, at the next step, for a need that was abandoned; other errors as in token_broker.proto.
  virtual void Get(const std::shared_ptr<const Need>& need, Done done) = 0;
  // The same without blocking, where what is known in this process, or one question to Redis, may do. False, and
  // nothing is done, if Get has to be called. `done` may run on a thread that must not be blocked.
  virtual bool TryGet(const std::shared_ptr<const Need>& /*need*/, const Done& /*done*/) { return false; }
};

// Lengths before the parts: "a" + "bc" must not be "ab" + "c".
std::string KeyOf(std::initializer_list<absl::string_view> parts);

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "sallyport/token_broker/v1/token_set.pb.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/grant_doubts.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/token_endpoint.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Another access token than the connection's own, asked for with its refresh token (RFC 6749 section 6): one for
// another audience. The flight keeps it nowhere and what comes of it marks nothing: it says nothing about the
// connection. A refresh token that comes with it is stored as any other.
struct FurtherToken {
  // Parameters of the request; empty: left out. `resource` as in RFC 8707.
  std::string scope;
  std::string resource;
  // What the provider made of it; none while it was not asked. Whoever waits reads it once the refresh has ended.
  std::optional<TokenResult> outcome;
};

// Why a refresh is wanted; decides when it is not needed any more.
struct RefreshWish {
  enum class Reason {
    kStale,    // Until the head is fresh.
    kForced,   // Until the head is another than (refused_generation, refused_version): an upstream refused that one.
    kDue,      // Until next_at lies ahead: an idle refresh token is kept alive.
    kFurther,  // Until `further` has an outcome.
    kOutlast,  // Until the head lasts for `least`.
  };
  Reason reason = Reason::kStale;
  int64_t refused_generation = 0;
  int64_t refused_version = 0;
  std::shared_ptr<FurtherToken> further = nullptr;
  absl::Duration least = absl::ZeroDuration();
};

// One refresh of one connection, from the lease to the answer's safe place in the vault, as a machine whose every step
// does at most one thing outside this process. Whoever drives it decides when each step happens: the service runs it to
// its end and waits where told, a test interleaves several of them in every order.
//
// What holds, in whatever order steps happen and wherever processes die (unless a holder sends after its lease has
// lapsed):
//   I1  one request with a given refresh token is in flight at most
//   I2  a refresh token that was received is in the vault (head or side version) or still held here
//   I3  a provider's rotation is never tripped by us without a crash or a lost response
//   I4  a connection is marked as needing its user only if no usable refresh token of its generation is known (one that
//       brings no access token, again and again, is not)
//   I5  an older link never overwrites a newer one, and unlinking is never undone
class RefreshFlight {
 public:
  struct Options {
    absl::Duration lease = absl::Seconds(30);
    // Of the whole exchange with the provider, as TokenEndpoint keeps it.
    absl::Duration provider_deadline = absl::Seconds(10);
    // For storing the answer within the lease.
    absl::Duration commit_budget = absl::Seconds(10);
    // How long to wait for another holder.
    absl::Duration held_limit = absl::Seconds(12);
    absl::Duration idle_refresh = absl::Hours(24 * 7);
    // What needs its user stays due, so that it is ended once it was not used for long.
    bool stays_due = false;
    // Failures in a row before this flight, for backoff.
    int former_failures = 0;
    // Uniform in [0, 1).
    std::function<double()> random;
    // Outlives the flight; null: a refusal that does not say what is wrong never ends a grant.
    GrantDoubts* doubts = nullptr;
  };

  struct Next {
    enum class Kind { kAgain, kWait, kDone };
    Kind kind = Kind::kAgain;
    absl::Duration wait = absl::ZeroDuration();
  };

  // `passport` lets the lease be taken; the provider call and the write need none. Empty: for maintenance, if the
  // record is due. `vault`, `endpoint`, `clock` outlive this.
  RefreshFlight(ConnectionKey key, Provider provider, RefreshWish wish, std::string passport, VaultClient& vault,
                TokenEndpoint& endpoint, const Clock& clock, Options options);

  // Next.wait is how long to wait before the next step.
  Next Step();
  // A passport that lives longer, of somebody who waits for this flight too. Between steps.
  void Lend(std::string passport) { passport_ = std::move(passport); }

  // After kDone. The connection as it is then; its state may say that the user is needed or that it is gone.
  // UNAVAILABLE (with retry_after) if it could not be told or renewed now.
  const absl::StatusOr<SharedConnection>& result() const { return result_; }

  // What happened, for audit, metrics, backoff and breakers.
  struct Report {
    bool asked_provider = false;
    bool renewed = false;        // This flight's answer is the head.
    bool adopted = false;        // A late answer of a former holder became the head.
    bool marked = false;         // Marked as needing the user.
    bool further = false;        // Brought the further token that was wished for.
    bool stray_revoked = false;  // The answer belonged to a former link and was revoked at the provider.
    bool stray_owed = false;     // The connection had ended or was linked again, and the answer's revocation is owed.
    std::string failure;         // Provider's error code or a word of ours; empty if none.
    std::string provider_error;  // The provider's own error code, where `failure` says what was concluded from it.
  };
  const Report& report() const { return report_; }

  // Has a provider's answer come that is not known to be stored?
  bool holds_answer() const;

  // For tests. The refresh token that was received and is not known to be stored, and the one about to be sent; empty
  // if none.
  std::string held_refresh_token() const;
  std::string sending_refresh_token() const { return phase_ == Phase::kSend ? head_.refresh_token() : ""; }
  // Everything that decides what the next steps do, for tests that explore states.
  std::string Fingerprint() const;

 private:
  enum class Phase {
    kAcquire,
    kPoll,   // Another holds the lease: look whether it has finished.
    kAdopt,  // A late answer of a former holder becomes the head.
    kSend,
    kCommit,  // An answer is held; it must become the head, or a side version.
    kMark,    // PutStatus.
    kRelease,
    kRecheck,      // invalid_grant: give the lease back and look again before anybody is disconnected.
    kReread,       // The vault refused the answer: find out why.
    kRevokeStray,  // The answer belongs to a former link.
    kOweStray,     // The same, and what is linked now is not known: the vault keeps it to be revoked.
    kDone,
  };

  Next Acquire();
  Next Poll();
  Next Adopt();
  Next Send();
  Next Commit();
  Next Mark();
  Next Release();
  Next Recheck();
  Next Reread();
  Next RevokeStray();
  Next OweStray();
  Next GiveUpStray();
  // The answer belongs to a former link: revoked, unless the link that is there now works with that very token, as with
  // a provider that does not rotate. `payload` is that link's; empty: there is none.
  Next EndStray(const std::string& payload);
  Next LeaveStray();
  Next EndOwed();
  // The payload holds the tokens that this flight began with.
  bool IsHead(const std::string& payload) const;

  Next Examine(absl::Time now);
  Next ExamineHead(absl::Time now);
  Next MarkNeedsUser(const std::string& state, const std::string& reason);
  Next Held(absl::Duration retry_after);
  Next Fail(const ProviderError& error);
  TokenResult AskProvider();
  // After the answer to a wish for a further token, or its refusal.
  Next EndFurther(TokenResult result);
  Next Finish(absl::StatusOr<SharedConnection> result);
  Next Then(Phase phase, absl::Duration wait = absl::ZeroDuration());
  absl::Status GiveBack();
  // Gives the lease back, then ends with `result`.
  Next ReleaseWith(absl::StatusOr<SharedConnection> result);
  // The head if it can still be used and nobody refused it, else UNAVAILABLE.
  // `code` as for ProviderUnavailable.
  absl::StatusOr<SharedConnection> HeadOrUnavailable(absl::string_view code, absl::Duration retry_after,
                                                     absl::Time now) const;
  bool IsSatisfied(const ConnectionView& head, const vault::v1::RecordMetadata& metadata, absl::Time now) const;
  // When the version refused was made, if a forced refresh made it.
  std::optional<absl::Time> ForcedAt() const;
  // Forced refreshes that led to the version refused, each of the outcome of the one before.
  int ForcedInARow(absl::Time now) const;
  // The error ends the grant, if a second look finds nothing better.
  bool EndsGrant(const ProviderError& error);
  bool BestSide(v1::TokenSet* tokens) const;
  vault::v1::PutRequest RequestToStore(const v1::TokenSet& tokens, bool forced, absl::Time now) const;
  absl::StatusOr<vault::v1::PutResponse> Store(const v1::TokenSet& tokens, bool forced, absl::Time now);
  SharedConnection ViewOfStored(const v1::TokenSet& tokens, const vault::v1::PutResponse& stored) const;
  absl::Duration Backoff(const ProviderError& error) const;

  const ConnectionKey key_;
  const Provider provider_;
  const RefreshWish wish_;
  std::string passport_;
  VaultClient& vault_;
  TokenEndpoint& endpoint_;
  const Clock& clock_;
  const Options options_;

  Phase phase_ = Phase::kAcquire;
  // As the clock's Elapsed().
  std::optional<absl::Duration> wait_since_;
  absl::Duration leased_ = absl::ZeroDuration();
  int polls_ = 0;
  vault::v1::AcquireLeaseResponse::Lease lease_;
  v1::TokenSet head_;
  v1::TokenSet side_;
  v1::TokenSet answer_;
  // The answer is a refresh token only. Once it is stored, the connection is left alone for a while.
  bool answer_lacks_access_ = false;
  // The vault lost our lease but not the connection: the answer goes in under a new one.
  bool resubmit_ = false;
  // The vault said that the answer belongs to a former link.
  bool former_link_ = false;
  int store_attempts_ = 0;
  // Answers of the vault that say nothing about what is linked now: our passport has ended, say.
  int refusals_ = 0;
  // Attempts to revoke the answer at the provider.
  int revocations_ = 0;
  bool took_over_ = false;
  // Refresh tokens the provider refused for good in this flight, what it called that, and the generation they are of.
  std::set<std::string> refused_tokens_;
  std::string refusal_;
  int64_t refused_tokens_generation_ = 0;
  vault::v1::PutStatusRequest status_;
  absl::StatusOr<SharedConnection> pending_ = absl::InternalError("no result yet");
  absl::StatusOr<SharedConnection> result_ = absl::InternalError("the refresh has not ended");
  Report report_;
};

}  // namespace sallyport::token_broker

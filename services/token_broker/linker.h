// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/token_broker/v1/state.pb.h"
#include "services/token_broker/account_identity.h"
#include "services/token_broker/account_rules.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/ended_subjects.h"
#include "services/token_broker/invalidations.h"
#include "services/token_broker/pending_links.h"
#include "services/token_broker/providers.h"
#include "services/token_broker/revoker.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/token_endpoint.h"
#include "services/token_broker/vault_client.h"
#include "services/token_broker/waiting_links.h"

namespace sallyport::token_broker {

// Linking a user's account of an app: leaving for the provider and coming back (RFC 6749 section 4.1, RFC 7636, RFC
// 9207), and whether it is the account that was meant. Thread-safe, blocking.
class Linker {
 public:
  // When a new link that nobody uses is renewed, and when it is ended if it cannot be (never when infinite).
  struct IdleTimes {
    absl::Duration refresh;
    absl::Duration revoke_after = absl::InfiniteDuration();
  };
  // All outlive this. `public_url`: bare origin.
  Linker(std::string public_url, VaultClient& vault, SecretReader& secrets, Providers& providers,
         TokenEndpoint& endpoint, AccountIdentity& identity, WaitingLinks& waiting, Revoker& revoker,
         Invalidations& invalidations, const EndedSubjects& ended, const AuditLog& audit, const Clock& clock,
         IdleTimes idle);

  struct Start {
    const registry::v1::App* app = nullptr;
    const registry::v1::McpServer* server = nullptr;
    std::string account;  // A label, or empty: checked by the caller.
    std::vector<std::string> scopes;
    std::string txn;
    std::string return_to;      // Checked by the caller; empty: nowhere.
    std::string platform = {};  // Id of the internal platform that asked for the link; empty: none did.
    std::string client_address;
  };
  // Where the browser goes. The pending link is in the vault before this returns.
  absl::StatusOr<std::string> Begin(const Start& start, const Passport& passport);

  struct Return {
    const registry::v1::App* app = nullptr;  // Of the path.
    // Of the authorization response: state, code, iss, error.
    std::map<std::string, std::string> parameters;
    std::string client_address;
  };
  struct Outcome {
    std::string txn;
    std::string server_uid;
    std::string return_to;
    std::string account;
    std::string platform;
    // Asked and not granted.
    std::vector<std::string> missing_scopes;
    // Nothing is linked yet: it is another account than before, which its user has to confirm.
    bool unconfirmed = false;
    // As people know the accounts; empty if not known.
    std::string account_name;
    std::string former_name;
  };
  // Errors; where the flow was consumed, `outcome` tells where it came from all the same:
  //   INVALID_ARGUMENT    no such pending link, used, expired, another app's, a wrong `iss`, no code
  //   PERMISSION_DENIED   reason link_user_mismatch: begun by another user or in another session; account_changed,
  //                       account_unknown, account_domain: not an account that the app takes. What was given is
  //                       revoked, unless it may be the account that is linked. passport_mismatch: everything of the
  //                       user was ended meanwhile
  //   CANCELLED           the user, or the provider, said no (reason is its error code)
  //   UNAVAILABLE         a part of the gateway is down, or the provider gave no tokens (reason provider_unavailable,
  //   see
  //                       provider_trouble.h); safe to begin again
  absl::Status Finish(const Return& returned, const Passport& passport, Outcome* outcome);

  // An account that waits to be confirmed.
  struct Unconfirmed {
    std::string account_name;
    std::string former_name;
    // What the page showed: of the tokens that wait, and of the connection that they would replace.
    int64_t version = 0;
    int64_t former_version = 0;
  };
  // NOT_FOUND as WaitingLinks::Find.
  absl::StatusOr<Unconfirmed> Find(const registry::v1::App& app, const std::string& account, const Passport& passport);
  struct Choice {
    const registry::v1::App* app = nullptr;
    const registry::v1::McpServer* server = nullptr;
    std::string account;
    std::string client_address;
    int64_t version = 0;
    int64_t former_version = 0;
  };
  // It takes the former account's place, which is revoked. NOT_FOUND; ABORTED if either is not what was shown any more;
  // UNAVAILABLE; PERMISSION_DENIED as above. Unless this is OK, what was given waits on, and is revoked in the end.
  absl::Status Confirm(const Choice& choice, const Passport& passport);
  // The former account stays, and what was given for this one is revoked.
  absl::Status Decline(const Choice& choice, const Passport& passport);

 private:
  // What a user has linked under a name.
  struct Former {
    bool linked = false;
    bool revoke_pending = false;  // Ended under an earlier release, and not revoked yet.
    v1::TokenSet::Account account;
    std::string token_origin;
    int64_t generation = 0;
    // 0: there is nothing. None: it does not open.
    std::optional<int64_t> version = 0;
  };
  // A link that has its tokens.
  struct Given {
    const registry::v1::App& app;
    ConnectionKey key;
    v1::TokenSet tokens;
    std::string bound_to;  // Label kBoundTo.
    std::string server_uid;
    std::string platform;
    std::string client_address;
    // Where its tokens are kept while it is no link: version of that record.
    std::optional<int64_t> waiting;
  };

  absl::Status Complete(const Return& returned, const Passport& passport, Outcome* outcome);
  absl::StatusOr<v1::LinkFlow> Consume(const Return& returned, const Passport& passport, const Provider& provider);
  // Stores it, has it wait, or refuses it.
  absl::Status Settle(Given& given, const Provider& provider, const Passport& passport, Outcome* outcome);
  // ABORTED: `former` is not what is linked any more.
  absl::Status SettleOver(Given& given, const Former& former, const Provider& provider, const Passport& passport,
                          Outcome* outcome);
  absl::StatusOr<Former> FormerOf(const ConnectionKey& key, const Passport& passport);
  // Both are known, and they differ.
  static bool IsAnother(const Former& former, const v1::TokenSet& tokens);
  AccountVerdict Judge(const registry::v1::App& app, const Former& former, const v1::TokenSet& tokens,
                       const Passport& passport) const;
  // Not as a link yet.
  absl::Status Keep(Given& given, const Provider& provider, const Passport& passport);
  // Revokes what was given, unless that may be the account that is linked.
  absl::Status GiveUp(Given& given, const Former& former, const Provider& provider, const Passport& passport);
  // Makes it the link. At each moment its tokens are somewhere, and those of a former account owed.
  absl::Status TakePlace(const Given& given, const Former& former, const Passport& passport);
  absl::Status EndFormer(const Given& given, const Former& former, const Passport& passport);
  // ABORTED unless `expected_version` is the head; unconditional without.
  absl::Status Store(const Given& given, std::optional<int64_t> expected_version, const Passport& passport);
  // Ends what was just linked.
  void Undo(const Given& given, const std::string& rule, const Passport& passport);
  // An event about a link.
  static AuditLog::Entry EntryOf(const Given& given, const std::string& type, const Passport& passport);
  absl::Status Refuse(const registry::v1::App& app, const std::string& client_address, const Passport& passport,
                      const std::string& rule) const;

  const std::string public_url_;
  VaultClient& vault_;
  PendingLinks pending_;
  SecretReader& secrets_;
  Providers& providers_;
  TokenEndpoint& endpoint_;
  AccountIdentity& identity_;
  WaitingLinks& waiting_;
  Revoker& revoker_;
  Invalidations& invalidations_;
  const EndedSubjects& ended_;
  const AuditLog& audit_;
  const Clock& clock_;
  const IdleTimes idle_;
};

// Counts links begun, those that came back from the provider, and how they ended. `app`: slug, or uid of a consent.
// What is expected is there before the first one, so that an alert sees it as a rise from 0.
void ExpectLinks(const std::string& app);
void CountLink(const std::string& app, const std::string& outcome);

// RFC 7636 section 4.2.
std::string CodeChallengeS256(absl::string_view verifier);

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/token_broker/v1/state.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/invalidations.h"
#include "services/token_broker/providers.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/token_endpoint.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Linking a user's account of an app: leaving for the provider and coming back (RFC 6749 section 4.1, RFC 7636, RFC
// 9207). Thread-safe, blocking.
class Linker {
 public:
  // All outlive this. `public_url`: bare origin. `idle_refresh`: when a new link that nobody uses is renewed.
  Linker(std::string public_url, VaultClient& vault, SecretReader& secrets, Providers& providers,
         TokenEndpoint& endpoint, Invalidations& invalidations, const AuditLog& audit, const Clock& clock,
         absl::Duration idle_refresh);

  struct Start {
    const registry::v1::App* app = nullptr;
    const registry::v1::McpServer* server = nullptr;
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
    std::string platform;
    // Asked and not granted.
    std::vector<std::string> missing_scopes;
  };
  // Errors; where the flow was consumed, `outcome` tells where it came from all the same:
  //   INVALID_ARGUMENT    no such pending link, used, expired, another app's, a wrong `iss`, no code
  //   PERMISSION_DENIED   reason link_user_mismatch: begun by another user or in another session
  //   CANCELLED           the user, or the provider, said no (reason is its error code)
  //   UNAVAILABLE         a part of the gateway is down, or the provider gave no tokens (reason provider_unavailable,
  //   see
  //                       provider_trouble.h); safe to begin again
  absl::Status Finish(const Return& returned, const Passport& passport, Outcome* outcome);

 private:
  absl::Status Complete(const Return& returned, const Passport& passport, Outcome* outcome);
  absl::StatusOr<v1::LinkFlow> Consume(const Return& returned, const Passport& passport, const Provider& provider);
  // `binding`: name of the app's binding, sealed with the tokens.
  absl::Status Store(const v1::LinkFlow& flow, const Provider& provider, const Passport& passport,
                     const TokenAnswer& answer, const std::string& binding, Outcome* outcome, const Return& returned);
  absl::Status Refuse(const Return& returned, const Passport& passport, const std::string& rule) const;

  const std::string public_url_;
  VaultClient& vault_;
  SecretReader& secrets_;
  Providers& providers_;
  TokenEndpoint& endpoint_;
  Invalidations& invalidations_;
  const AuditLog& audit_;
  const Clock& clock_;
  const absl::Duration idle_refresh_;
};

// Counts links begun, and how those ended that came back from the provider. `app`: slug, or uid of a consent.
void CountLink(const std::string& app, const std::string& outcome);

// RFC 7636 section 4.2.
std::string CodeChallengeS256(absl::string_view verifier);

}  // namespace sallyport::token_broker

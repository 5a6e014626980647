// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/broker_key.h"
#include "services/token_broker/providers.h"
#include "services/token_broker/revoker.h"
#include "services/token_broker/user_credentials.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// A user's linked accounts, as RPCs see them. Thread-safe, blocking. Errors as in the proto.
class Accounts {
 public:
  // All outlive this.
  Accounts(std::string public_url, const ControlStream& control, VaultClient& vault, BrokerKey& key, Revoker& revoker,
           Providers& providers, UserCredentials& credentials, const AuditLog& audit, const Clock& clock);

  absl::StatusOr<v1::StartLinkResponse> StartLink(const v1::StartLinkRequest& request, const Passport& passport);
  absl::StatusOr<v1::ResumeLinkResponse> ResumeLink(const v1::ResumeLinkRequest& request, const Passport& passport);
  absl::StatusOr<v1::ListConnectionsResponse> List(const Passport& passport);
  absl::StatusOr<v1::DisconnectResponse> Disconnect(const v1::DisconnectRequest& request, const Passport& passport);

 private:
  // A connection, or what became of it: without state.
  static v1::Connection Describe(const RegistrySnapshot& snapshot, const std::string& connection,
                                 const vault::v1::RecordMetadata& metadata);
  // What is ended here, and not yet at the provider.
  absl::Status AddOwed(const RegistrySnapshot& snapshot, const std::string& subject,
                       v1::ListConnectionsResponse* response);
  // As the provider names it; empty if that is not known.
  std::string AccountNameOf(const vault::v1::RecordMetadata& metadata, const Passport& passport);

  const std::string public_url_;
  const ControlStream& control_;
  VaultClient& vault_;
  BrokerKey& key_;
  Revoker& revoker_;
  Providers& providers_;
  UserCredentials& credentials_;
  const AuditLog& audit_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/token_broker/v1/platform.pb.h"
#include "services/token_broker/accounts.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/broker_key.h"
#include "services/token_broker/platform/admission.h"

namespace sallyport::token_broker {

// What is asked for of a user's account.
struct AccountWish {
  const registry::v1::App* app = nullptr;
  std::string account;
  std::vector<std::string> scopes;
  std::string return_to;
};

// Links and connections, for platforms. Thread-safe, blocking. Errors as in platform.proto.
class PlatformAccounts {
 public:
  // All outlive this.
  PlatformAccounts(std::string public_url, const ControlStream& control, Accounts& accounts, BrokerKey& key,
                   const AuditLog& audit, const Clock& clock);

  // Where the user connects the account. FAILED_PRECONDITION reason no_server_for_link while no server uses the app: it
  // is such a server's page.
  absl::StatusOr<v1::StartUserLinkResponse> LinkFor(const AccountWish& wish, const RegistrySnapshot& snapshot,
                                                    const Admission& admission);
  // FAILED_PRECONDITION reason link_required with such a link, or why there is none.
  absl::Status LinkRequired(const AccountWish& wish, const RegistrySnapshot& snapshot, const Admission& admission);
  // A link that was asked for, on record.
  absl::StatusOr<v1::StartUserLinkResponse> Start(const AccountWish& wish, const RegistrySnapshot& snapshot,
                                                  const Admission& admission);
  absl::StatusOr<v1::ListConnectionsResponse> List(const Admission& admission);
  absl::StatusOr<v1::DisconnectResponse> Disconnect(const v1::DisconnectUserRequest& request,
                                                    const Admission& admission);

 private:
  const std::string public_url_;
  const ControlStream& control_;
  Accounts& accounts_;
  BrokerKey& key_;
  const AuditLog& audit_;
  const Clock& clock_;
};

// That such a link was handed out.
AuditLog::Entry OfferOf(const AccountWish& wish, const Admission& admission);

// The app of this slug, or why not: PERMISSION_DENIED reason platform_not_granted, then UNAVAILABLE reason
// config_behind or NOT_FOUND.
absl::StatusOr<const registry::v1::App*> GrantedApp(const RegistrySnapshot& snapshot, const std::string& slug,
                                                    const Admission& admission);
// INVALID_ARGUMENT naming the field.
absl::Status CheckScopes(const std::vector<std::string>& scopes);

}  // namespace sallyport::token_broker

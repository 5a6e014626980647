// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/caller/caller.h"
#include "common/rpc/handler.h"
#include "sallyport/authn/v1/authn.pb.h"
#include "sallyport/authn/v1/clients.grpc.pb.h"
#include "services/authn/audit.h"
#include "services/authn/client_directory.h"
#include "services/authn/connection_endings.h"
#include "services/authn/grants.h"
#include "services/authn/passports.h"
#include "services/authn/revocations.h"
#include "services/authn/servers.h"
#include "services/authn/sessions.h"
#include "services/authn/time_budget.h"

namespace sallyport::authn {

// What an administrator ends, without gRPC. What is authn's own ends first, with the invalidations that tell every
// replica; connections are the broker's, which is asked with a passport that names what it may end. One per process;
// thread-safe.
class RevocationRpcs {
 public:
  // All outlive this.
  struct Parts {
    const Servers& servers;
    const Passports& passports;
    Sessions& sessions;
    Grants& grants;
    Revocations& revocations;
    ClientDirectory& clients;
    ConnectionEndings& connections;
    Audit& audit;
  };
  explicit RevocationRpcs(const Parts& parts) : parts_(parts) {}

  absl::StatusOr<v1::RevokeUserResponse> RevokeUser(const Caller& caller, const std::string& subject,
                                                    const TimeBudget& budget, absl::Time now);
  absl::StatusOr<v1::RevokeConnectionsResponse> RevokeConnections(const Caller& caller,
                                                                  const v1::RevokeConnectionsRequest& request,
                                                                  const TimeBudget& budget, absl::Time now);
  // UNAVAILABLE reason grants_remain if the time was not enough.
  absl::StatusOr<v1::RevokeServerResponse> RevokeServer(const Caller& caller, const v1::RevokeServerRequest& request,
                                                        const TimeBudget& budget, absl::Time now);

 private:
  absl::Status Record(const std::string& type, const std::string& by,
                      const std::map<std::string, std::string>& details);
  absl::StatusOr<token_broker::v1::EndConnectionsResponse> EndConnections(
      const std::string& by, const token_broker::v1::EndConnectionsRequest& request, const TimeBudget& budget,
      absl::Time now);

  const Parts parts_;
};

// gRPC to RevocationRpcs; one per listener. RevokeUser is a method of Authn.
class RevocationService final : public v1::Revocation::Service {
 public:
  // `rpcs` and what `options` points to outlive this.
  RevocationService(RevocationRpcs& rpcs, RpcHandler::Options options) : rpcs_(rpcs), rpc_(std::move(options)) {}

  grpc::Status RevokeConnections(grpc::ServerContext* context, const v1::RevokeConnectionsRequest* request,
                                 v1::RevokeConnectionsResponse* response) override;
  grpc::Status RevokeServer(grpc::ServerContext* context, const v1::RevokeServerRequest* request,
                            v1::RevokeServerResponse* response) override;

 private:
  RevocationRpcs& rpcs_;
  RpcHandler rpc_;
};

}  // namespace sallyport::authn

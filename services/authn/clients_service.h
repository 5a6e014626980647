// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/caller/caller.h"
#include "common/rpc/handler.h"
#include "sallyport/authn/v1/clients.grpc.pb.h"
#include "services/authn/audit.h"
#include "services/authn/client_directory.h"
#include "services/authn/grants.h"
#include "services/authn/revocations.h"
#include "services/authn/servers.h"
#include "services/authn/time_budget.h"

namespace sallyport::authn {

// MCP clients, and taking back what was agreed to with them; without gRPC. One per process; thread-safe.
class ClientsRpcs {
 public:
  // All outlive this.
  struct Parts {
    const Servers& servers;
    Grants& grants;
    Revocations& revocations;
    ClientDirectory& clients;
    Audit& audit;
  };
  explicit ClientsRpcs(const Parts& parts) : parts_(parts) {}

  absl::StatusOr<v1::ListOwnClientsResponse> ListOwnClients(const Caller& caller, absl::Time now) const;
  absl::StatusOr<v1::RemoveOwnClientResponse> RemoveOwnClient(const Caller& caller,
                                                              const v1::RemoveOwnClientRequest& request,
                                                              const TimeBudget& budget, absl::Time now);
  absl::StatusOr<v1::ListClientsResponse> ListClients(const v1::ListClientsRequest& request, absl::Time now) const;
  absl::StatusOr<v1::RemoveClientResponse> RemoveClient(const Caller& caller, const v1::RemoveClientRequest& request,
                                                        const TimeBudget& budget, absl::Time now);

 private:
  absl::Status CheckKnown(const GrantFilter& which, absl::Time now) const;
  absl::Status Record(const Caller& caller, const char* rule, const GrantFilter& which);
  // UNAVAILABLE reason grants_remain if the time was not enough.
  absl::StatusOr<int> End(const GrantFilter& which, const TimeBudget& budget, absl::Time now);

  const Parts parts_;
};

// gRPC to ClientsRpcs; one per listener.
class ClientsService final : public v1::Clients::Service {
 public:
  // `rpcs` and what `options` points to outlive this.
  ClientsService(ClientsRpcs& rpcs, RpcHandler::Options options) : rpcs_(rpcs), rpc_(std::move(options)) {}

  grpc::Status ListOwnClients(grpc::ServerContext* context, const v1::ListOwnClientsRequest* request,
                              v1::ListOwnClientsResponse* response) override;
  grpc::Status RemoveOwnClient(grpc::ServerContext* context, const v1::RemoveOwnClientRequest* request,
                               v1::RemoveOwnClientResponse* response) override;
  grpc::Status ListClients(grpc::ServerContext* context, const v1::ListClientsRequest* request,
                           v1::ListClientsResponse* response) override;
  grpc::Status RemoveClient(grpc::ServerContext* context, const v1::RemoveClientRequest* request,
                            v1::RemoveClientResponse* response) override;

 private:
  ClientsRpcs& rpcs_;
  RpcHandler rpc_;
};

}  // namespace sallyport::authn

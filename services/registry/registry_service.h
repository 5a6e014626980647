// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "common/audit/outbox.h"
#include "common/caller/caller.h"
#include "common/rpc/handler.h"
#include "services/registry/audit_store.h"
#include "services/registry/catalog.h"
#include "services/registry/watch_hub.h"

namespace sallyport::registry {

// What both gRPC services of this process work on; outlives them.
struct RegistryParts {
  Catalog& catalog;
  Database& database;
  WatchHub& hub;
  AuditStore& audit_store;
  AuditOutbox& audit;
  const CallGuard& guard;
  const PassportVerifier& verifier;
  const Clock& clock;
};

// Method tables of both services.
absl::StatusOr<CallGuard> MakeRegistryGuard();
// sallyport.registry.v1.Registry and sallyport.audit.v1.Audit for one listener.
std::vector<std::unique_ptr<grpc::Service>> MakeRegistryServices(const RegistryParts& parts,
                                                                 const std::shared_ptr<const PeerIdentity>& peer);

}  // namespace sallyport::registry

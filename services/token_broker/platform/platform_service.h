// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/rpc/handler.h"
#include "sallyport/token_broker/v1/platform.grpc.pb.h"
#include "services/token_broker/platform/budgets.h"
#include "services/token_broker/platform/platform_accounts.h"
#include "services/token_broker/platform/platform_door.h"
#include "services/token_broker/platform/platform_metrics.h"
#include "services/token_broker/platform/platform_refusals.h"
#include "services/token_broker/platform/platform_tokens.h"

namespace sallyport::token_broker {

inline constexpr char kPlatformService[] = "sallyport.token_broker.v1.Platform";
// What every caller of the platforms' listener is to CallGuard, which knows services only; PlatformDoor tells them
// apart.
inline constexpr char kPlatformPeer[] = "platform";

std::map<std::string, MethodTable> PlatformMethodTables();

// gRPC to domain, no logic but the order: who calls, whether it calls too often, what it asks for. Callback methods:
// who waits for a provider holds no thread.
class PlatformService final : public v1::Platform::CallbackService {
 public:
  struct Parts {
    PlatformDoor& door;
    PlatformTokens& tokens;
    PlatformAccounts& accounts;
    PlatformMetrics& metrics;
    PlatformRefusals& refusals;
    Budgets& rates;
    TaskRunner& runner;
  };
  // All parts outlive this.
  PlatformService(RpcHandler::Options options, const Parts& parts);

  grpc::ServerUnaryReactor* GetToken(grpc::CallbackServerContext* context, const v1::GetTokenRequest* request,
                                     v1::GetTokenResponse* response) override;
  grpc::ServerUnaryReactor* ListConnections(grpc::CallbackServerContext* context,
                                            const v1::ListUserConnectionsRequest* request,
                                            v1::ListConnectionsResponse* response) override;
  grpc::ServerUnaryReactor* StartLink(grpc::CallbackServerContext* context, const v1::StartUserLinkRequest* request,
                                      v1::StartUserLinkResponse* response) override;
  grpc::ServerUnaryReactor* Disconnect(grpc::CallbackServerContext* context, const v1::DisconnectUserRequest* request,
                                       v1::DisconnectResponse* response) override;

 private:
  using Done = std::function<void(absl::Status)>;
  using Act = std::function<void(const SharedAdmission&, Done)>;
  struct Call;

  // `app`: the one that is asked for, if any.
  grpc::ServerUnaryReactor* Handle(PlatformMethod method, grpc::CallbackServerContext* context,
                                   const v1::PlatformUser& user, const std::string& app, Act act);
  // For what blocks.
  template <typename Response, typename Work>
  Act Behind(const grpc::CallbackServerContext* context, Response* response, Work work);
  absl::Status CheckRate(const std::string& platform, double rate_limit, int rate_burst);
  void Proceed(const std::shared_ptr<Call>& call, const AdmissionCache::Answer& answer);
  void Note(const Call& call, const absl::Status& status) const;
  void End(Call& call, const absl::Status& status) const;

  RpcHandler rpc_;
  Parts parts_;
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_service.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/json_log.h"

namespace sallyport::token_broker {

std::map<std::string, MethodTable> PlatformMethodTables() {
  MethodTable table;
  for (int i = 0; i < kPlatformMethods; ++i) {
    table[NameOf(static_cast<PlatformMethod>(i))] = {kPlatformPeer};
  }
  return {{kPlatformService, table}};
}

struct PlatformService::Call {
  PlatformMethod method;
  RpcHandler::Call rpc;
  grpc::ServerUnaryReactor* reactor;
  Act act;
  SharedAdmission admission;
};

PlatformService::PlatformService(RpcHandler::Options options, const Parts& parts)
    : rpc_(std::move(options)), parts_(parts) {}

void PlatformService::End(Call& call, const absl::Status& status) const {
  PlatformCounters& counters = call.admission != nullptr ? *call.admission->counters : parts_.metrics.unknown();
  counters.Count(call.method, status.code());
  // For the log line.
  if (call.admission != nullptr && call.rpc.caller.ok() && LogEnabled(LogLevel::kInfo)) {
    call.rpc.caller->service = absl::StrCat("platform/", call.admission->platform);
    call.rpc.caller->passport = call.admission->passport;
  }
  call.reactor->Finish(rpc_.Finish(call.rpc, status));
}

absl::Status PlatformService::CheckRate(const Admission& admission) {
  if (admission.rate_limit <= 0) {
    return absl::OkStatus();
  }
  const double at_once = admission.rate_burst > 0 ? admission.rate_burst : 2 * admission.rate_limit;
  const absl::Duration wait =
      parts_.rates.Take(admission.platform, {admission.rate_limit, std::max(1.0, at_once)}, rpc_.clock().Elapsed());
  return wait == absl::ZeroDuration() ? absl::OkStatus()
                                      : WithDetail(absl::ResourceExhaustedError(absl::StrCat(
                                                       "the platform ", admission.platform, " is over its rate limit")),
                                                   {.reason = "platform_rate_limited", .retry_after = wait});
}

void PlatformService::Proceed(const std::shared_ptr<Call>& call, const AdmissionCache::Answer& answer) {
  if (!answer.ok()) {
    return End(*call, answer.status());
  }
  call->admission = *answer;
  if (const absl::Status rate = CheckRate(**answer); !rate.ok()) {
    return End(*call, rate);
  }
  call->act(*answer, [this, call](const absl::Status& status) { End(*call, status); });
}

grpc::ServerUnaryReactor* PlatformService::Handle(PlatformMethod method, grpc::CallbackServerContext* context,
                                                  const v1::PlatformUser& user, Act act) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto call =
      std::make_shared<Call>(Call{method, rpc_.Begin(NameOf(method), *context), reactor, std::move(act), nullptr});
  if (!call->rpc.caller.ok()) {
    End(*call, call->rpc.caller.status());
    return reactor;
  }
  const absl::StatusOr<Showing> showing = ShowingOf(*context, user);
  if (!showing.ok()) {
    End(*call, showing.status());
  } else if (const auto known = parts_.door.Known(*showing); known.has_value()) {
    Proceed(call, *known);
  } else {
    parts_.door.Ask(*showing, [this, call](const AdmissionCache::Answer& answer) { Proceed(call, answer); });
  }
  return reactor;
}

template <typename Response, typename Work>
PlatformService::Act PlatformService::Behind(Response* response, Work work) {
  return [this, response, work = std::move(work)](const SharedAdmission& admission, const Done& done) {
    const bool taken = parts_.runner.Post([response, work, admission, done] {
      absl::StatusOr<Response> result = work(*admission);
      const absl::Status status = result.status();
      if (status.ok()) {
        *response = *std::move(result);
      }
      done(status);
    });
    if (!taken) {
      done(WithRetryAfter(absl::UnavailableError("too many requests wait here"), absl::Seconds(1)));
    }
  };
}

grpc::ServerUnaryReactor* PlatformService::GetToken(grpc::CallbackServerContext* context,
                                                    const v1::GetTokenRequest* request,
                                                    v1::GetTokenResponse* response) {
  return Handle(PlatformMethod::kGetToken, context, request->user(),
                [this, request, response](const SharedAdmission& admission, Done done) {
                  parts_.tokens.Get(*request, admission, response, std::move(done));
                });
}

grpc::ServerUnaryReactor* PlatformService::ListConnections(grpc::CallbackServerContext* context,
                                                           const v1::ListUserConnectionsRequest* request,
                                                           v1::ListConnectionsResponse* response) {
  return Handle(PlatformMethod::kListConnections, context, request->user(),
                Behind(response, [this](const Admission& admission) { return parts_.accounts.List(admission); }));
}

grpc::ServerUnaryReactor* PlatformService::StartLink(grpc::CallbackServerContext* context,
                                                     const v1::StartUserLinkRequest* request,
                                                     v1::StartUserLinkResponse* response) {
  return Handle(PlatformMethod::kStartLink, context, request->user(),
                [this, request, response](const SharedAdmission& admission, Done done) {
                  parts_.tokens.StartLink(*request, admission, response, std::move(done));
                });
}

grpc::ServerUnaryReactor* PlatformService::Disconnect(grpc::CallbackServerContext* context,
                                                      const v1::DisconnectUserRequest* request,
                                                      v1::DisconnectResponse* response) {
  return Handle(PlatformMethod::kDisconnect, context, request->user(),
                Behind(response, [this, request](const Admission& admission) {
                  return parts_.accounts.Disconnect(*request, admission);
                }));
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_service.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/json_log.h"
#include "services/token_broker/platform/platform_errors.h"

namespace sallyport::token_broker {
namespace {

// Lives as long as the RPC, of which nobody asks after it has been answered.
std::function<bool()> IsGone(const grpc::CallbackServerContext* context) {
  return [context] { return context->IsCancelled(); };
}

}  // namespace

std::map<std::string, MethodTable> PlatformMethodTables() {
  MethodTable table;
  for (int i = 0; i < kPlatformMethods; ++i) {
    table[NameOf(static_cast<PlatformMethod>(i))] = {kPlatformPeer};
  }
  return {{kPlatformService, table}};
}

struct PlatformService::Call {
  PlatformMethod method;
  grpc::CallbackServerContext* context;
  std::string app;
  RpcHandler::Call rpc;
  grpc::ServerUnaryReactor* reactor;
  Act act;
  SharedAdmission admission;
  // Where authn had to be asked, or has refused: who it was the last time. The request has been charged to it.
  std::optional<PlatformDoor::Met> met;
};

PlatformService::PlatformService(RpcHandler::Options options, const Parts& parts)
    : rpc_(std::move(options)), parts_(parts) {}

void PlatformService::Note(const Call& call, const absl::Status& status) const {
  if (status.ok()) {
    return;
  }
  const bool admitted = call.admission != nullptr;
  // What authn refuses is on its record.
  const bool ours = admitted || (call.met.has_value() && ReasonOf(status) == kPlatformRateLimited);
  if (ours && IsPlatformRefusal(status)) {
    parts_.refusals.Note({.platform = admitted ? call.admission->platform : call.met->platform,
                          .subject = admitted ? call.admission->passport.subject : "",
                          .method = call.method,
                          .app = call.app,
                          .rule = ReasonOf(status)});
  }
}

void PlatformService::End(Call& call, const absl::Status& status) const {
  PlatformCounters& counters = call.admission != nullptr ? *call.admission->counters
                               : call.met.has_value()    ? *call.met->counters
                                                         : parts_.metrics.unknown();
  counters.Count(call.method, status.code());
  Note(call, status);
  // For the log line.
  if (call.admission != nullptr && call.rpc.caller.ok() && LogEnabled(LogLevel::kInfo)) {
    call.rpc.caller->service = absl::StrCat("platform/", call.admission->platform);
    call.rpc.caller->passport = call.admission->passport;
  }
  call.reactor->Finish(rpc_.Finish(call.rpc, status));
}

absl::Status PlatformService::CheckRate(const std::string& platform, double rate_limit, int rate_burst) {
  if (rate_limit <= 0) {
    return absl::OkStatus();
  }
  const double at_once = rate_burst > 0 ? rate_burst : 2 * rate_limit;
  const absl::Duration wait = parts_.rates.Take(platform, {rate_limit, std::max(1.0, at_once)}, rpc_.clock().Elapsed());
  return wait == absl::ZeroDuration()
             ? absl::OkStatus()
             : WithDetail(
                   absl::ResourceExhaustedError(absl::StrCat("the platform ", platform, " is over its rate limit")),
                   {.reason = kPlatformRateLimited, .retry_after = wait});
}

void PlatformService::Proceed(const std::shared_ptr<Call>& call, const AdmissionCache::Answer& answer) {
  if (!answer.ok()) {
    return End(*call, answer.status());
  }
  call->admission = *answer;
  if (!call->met.has_value()) {
    const Admission& admission = **answer;
    if (const absl::Status rate = CheckRate(admission.platform, admission.rate_limit, admission.rate_burst);
        !rate.ok()) {
      return End(*call, rate);
    }
  }
  call->act(*answer, [this, call](const absl::Status& status) {
    End(*call, !status.ok() && call->context->IsCancelled() ? absl::CancelledError() : ForPlatform(status));
  });
}

grpc::ServerUnaryReactor* PlatformService::Handle(PlatformMethod method, grpc::CallbackServerContext* context,
                                                  const v1::PlatformUser& user, const std::string& app, Act act) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto call = std::make_shared<Call>(
      Call{method, context, app, rpc_.Begin(NameOf(method), *context), reactor, std::move(act), nullptr, std::nullopt});
  if (!call->rpc.caller.ok()) {
    End(*call, call->rpc.caller.status());
    return reactor;
  }
  const absl::StatusOr<Showing> showing = ShowingOf(*context, user, rpc_.clock().Now());
  if (!showing.ok()) {
    End(*call, showing.status());
    return reactor;
  }
  const auto known = parts_.door.Known(*showing);
  if (!known.has_value() || !known->ok()) {
    // What is refused counts as well, and questions to authn above all.
    call->met = parts_.door.MetAs(*showing);
    const absl::Status rate = call->met.has_value()
                                  ? CheckRate(call->met->platform, call->met->rate_limit, call->met->rate_burst)
                                  : absl::OkStatus();
    if (!rate.ok()) {
      End(*call, rate);
      return reactor;
    }
  }
  if (known.has_value()) {
    Proceed(call, *known);
  } else {
    parts_.door.Ask(*showing, [this, call](const AdmissionCache::Answer& answer) { Proceed(call, answer); });
  }
  return reactor;
}

template <typename Response, typename Work>
PlatformService::Act PlatformService::Behind(const grpc::CallbackServerContext* context, Response* response,
                                             Work work) {
  return [this, context, response, work = std::move(work)](const SharedAdmission& admission, const Done& done) {
    const bool taken = parts_.runner.Post([context, response, work, admission, done] {
      if (context->IsCancelled()) {
        return done(absl::CancelledError());
      }
      absl::StatusOr<Response> result = work(*admission);
      const absl::Status status = result.status();
      if (status.ok()) {
        *response = *std::move(result);
      }
      done(status);
    });
    if (!taken) {
      done(GatewayUnavailable("too many requests wait here"));
    }
  };
}

grpc::ServerUnaryReactor* PlatformService::GetToken(grpc::CallbackServerContext* context,
                                                    const v1::GetTokenRequest* request,
                                                    v1::GetTokenResponse* response) {
  return Handle(PlatformMethod::kGetToken, context, request->user(), request->app(),
                [this, context, request, response](const SharedAdmission& admission, Done done) {
                  parts_.tokens.Get(*request, admission, response, std::move(done), IsGone(context));
                });
}

grpc::ServerUnaryReactor* PlatformService::ListConnections(grpc::CallbackServerContext* context,
                                                           const v1::ListUserConnectionsRequest* request,
                                                           v1::ListConnectionsResponse* response) {
  return Handle(
      PlatformMethod::kListConnections, context, request->user(), "",
      Behind(context, response, [this](const Admission& admission) { return parts_.accounts.List(admission); }));
}

grpc::ServerUnaryReactor* PlatformService::StartLink(grpc::CallbackServerContext* context,
                                                     const v1::StartUserLinkRequest* request,
                                                     v1::StartUserLinkResponse* response) {
  return Handle(PlatformMethod::kStartLink, context, request->user(), request->app(),
                [this, context, request, response](const SharedAdmission& admission, Done done) {
                  parts_.tokens.StartLink(*request, admission, response, std::move(done), IsGone(context));
                });
}

grpc::ServerUnaryReactor* PlatformService::Disconnect(grpc::CallbackServerContext* context,
                                                      const v1::DisconnectUserRequest* request,
                                                      v1::DisconnectResponse* response) {
  return Handle(PlatformMethod::kDisconnect, context, request->user(), request->app(),
                Behind(context, response, [this, request](const Admission& admission) {
                  return parts_.accounts.Disconnect(*request, admission);
                }));
}

}  // namespace sallyport::token_broker

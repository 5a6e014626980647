// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <grpcpp/grpcpp.h>

#include "common/caller/caller.h"
#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/metrics.h"

namespace sallyport {

// What every method of a gRPC service does around its work: checks who calls (CallGuard), measures, converts the status
// once, and writes one log line (method, code, caller, reason, latency; the message of an INTERNAL error goes there and
// nowhere else). One per service object, that is per listener. Thread-safe.
//
//   grpc::Status Get(grpc::ServerContext* context, const GetRequest* request, GetResponse* response) override {
//     return rpc_.Handle("Get", context, response, [&](const Caller& caller) { return vault_.Get(caller, *request); });
//   }
class RpcHandler {
 public:
  struct Options {
    std::string service;  // Full name: "sallyport.vault.v1.Vault".
    // These outlive the handler; `verifier` may be null for services that never see a passport.
    const CallGuard* guard = nullptr;
    std::shared_ptr<const PeerIdentity> peer;
    const PassportVerifier* verifier = nullptr;
    const Clock* clock = nullptr;
  };
  explicit RpcHandler(Options options);

  // `act(const Caller&)` returns StatusOr<Response>, or Status having filled *response itself.
  template <typename Response, typename Act>
  grpc::Status Handle(absl::string_view method, grpc::ServerContextBase* context, Response* response, Act&& act) const {
    Call call = Begin(method, *context);
    if (!call.caller.ok()) {
      return Finish(call, call.caller.status());
    }
    using Result = std::invoke_result_t<Act, const Caller&>;
    if constexpr (std::is_same_v<Result, absl::Status>) {
      return Finish(call, std::forward<Act>(act)(*call.caller));
    } else {
      Result result = std::forward<Act>(act)(*call.caller);
      const absl::Status status = result.status();
      if (status.ok()) {
        *response = *std::move(result);
      }
      return Finish(call, status);
    }
  }

  using Done = std::function<void(absl::Status)>;
  // For callback services: `act(const Caller&, Done)` returns at once; `done` is called exactly once, from any thread,
  // *response having been filled before (the request and response live until then).
  template <typename Act>
  grpc::ServerUnaryReactor* HandleAsync(absl::string_view method, grpc::CallbackServerContext* context,
                                        Act&& act) const {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    auto call = std::make_shared<Call>(Begin(method, *context));
    if (!call->caller.ok()) {
      reactor->Finish(Finish(*call, call->caller.status()));
      return reactor;
    }
    std::forward<Act>(act)(
        *call->caller, [this, call, reactor](const absl::Status& status) { reactor->Finish(Finish(*call, status)); });
    return reactor;
  }

  // The two halves, for streams: admit, and later account for the end.
  struct Call {
    std::string method;
    absl::StatusOr<Caller> caller;
    absl::Time start;
  };
  Call Begin(absl::string_view method, const grpc::ServerContextBase& context) const;
  grpc::Status Finish(const Call& call, const absl::Status& status) const;

  const Clock& clock() const { return *options_.clock; }

 private:
  Options options_;
  std::shared_ptr<const RpcMetrics> metrics_;
};

}  // namespace sallyport
